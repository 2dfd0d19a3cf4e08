"""Accounts and a journal that work, in memory: the same refusals as the real ones, and faults on demand."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from decimal import Decimal
from uuid import UUID

import trio

from proxy.events import Usage
from proxy.ledger import Hold, Settlement
from storage.credits import BalanceTooLow, RequestRepeated


@dataclass(slots=True)
class Fault:
    """What befalls the next calls, for as long as it is set. `error` is raised; `gate` has them wait, before or after
    the change is made.
    """

    error: Exception | None = None
    gate: trio.Event | None = None
    comes_late: bool = False
    """The change is made, and then the fault: an answer that got lost."""

    async def strike(self, *, late: bool) -> None:
        if late != self.comes_late:
            return
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


class FakeLedger:
    """Balances by user; who is not in them has none. Fits proxy.ledger.Ledger."""

    def __init__(self, balances: Mapping[UUID, Decimal]) -> None:
        self.balances = dict(balances)
        self.running: dict[UUID, Hold] = {}
        """Holds that stand, by their id."""
        self.taken: list[Hold] = []
        """Every hold that was ever taken, in order."""
        self.settlements: dict[UUID, Settlement] = {}
        """How each hold was settled, the first time."""
        self.settle_attempts: list[Settlement] = []
        self.upstreams: dict[UUID, tuple[str, str]] = {}
        """Answers in the background: the provider's code and its id."""
        self.on_hold = Fault()
        self.on_settle = Fault()
        self._keys: dict[UUID, tuple[UUID, str]] = {}

    def held(self, user_id: UUID) -> Decimal:
        return sum((hold.amount_usd for hold in self.running.values() if hold.user_id == user_id), Decimal(0))

    async def hold(self, hold: Hold) -> None:
        """Raises BalanceTooLow, or RequestRepeated."""
        await trio.lowlevel.checkpoint()
        await self.on_hold.strike(late=False)
        self._take(hold)
        await self.on_hold.strike(late=True)

    async def settle(self, settlement: Settlement) -> bool:
        """False if there is no such hold, or if it was settled before."""
        self.settle_attempts.append(settlement)
        await trio.lowlevel.checkpoint()
        await self.on_settle.strike(late=False)
        is_first = self._charge(settlement)
        await self.on_settle.strike(late=True)
        return is_first

    async def note_upstream(self, hold_id: UUID, provider_code: str, upstream_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.upstreams[hold_id] = (provider_code, upstream_id)

    def _take(self, hold: Hold) -> None:
        balance = self.balances.get(hold.user_id, Decimal(0))
        available = balance - self.held(hold.user_id)
        if hold.amount_usd > available:
            raise BalanceTooLow(hold.amount_usd, available)
        key = None if hold.idempotency_key is None else (hold.user_id, hold.idempotency_key)
        if hold.id in self.running or hold.id in self.settlements or key in self._keys.values():
            raise RequestRepeated("a request with this idempotency key is running, or has been answered")
        self.running[hold.id] = hold
        self.taken.append(hold)
        if key is not None:
            self._keys[hold.id] = key

    def _charge(self, settlement: Settlement) -> bool:
        hold = self.running.pop(settlement.hold_id, None)
        if hold is None:
            return False
        self.settlements[hold.id] = settlement
        self.balances[hold.user_id] -= settlement.charge_usd
        if settlement.outcome != "completed":  # only an answered request must not be asked again
            self._keys.pop(hold.id, None)
        return True


@dataclass(frozen=True, slots=True)
class Noted:
    """What the journal knows of one call."""

    accepted: bool
    reported: bool
    usage: Usage


@dataclass(slots=True)
class FakeSlot:
    journal: "FakeJournal"
    hold_id: UUID
    is_open: bool = True

    def note(self, accepted: bool, reported: bool, usage: Usage) -> None:
        if min(astuple(usage)) < 0 or max(astuple(usage)) >= 2**64:
            raise ValueError("a slot has eight bytes for a number, and no sign")
        if self.is_open:
            self.journal.running[self.hold_id] = Noted(accepted, reported, replace(usage))

    def clear(self) -> None:
        self.is_open = False
        self.journal.running.pop(self.hold_id, None)

    def leave(self) -> None:
        self.is_open = False
        self.journal.left[self.hold_id] = self.journal.running.pop(self.hold_id)


@dataclass(slots=True)
class FakeJournal:
    """Fits proxy.ledger.Journal. `running` has every call that is not over."""

    running: dict[UUID, Noted] = field(default_factory=dict)
    left: dict[UUID, Noted] = field(default_factory=dict)
    """Calls that ended and could not be settled."""

    def open_slot(self, hold_id: UUID) -> FakeSlot:
        slot = FakeSlot(self, hold_id)
        slot.note(False, False, Usage())
        return slot
