"""A model of the accounts that knows no SQL: what each step ought to do, beside the step itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from uuid import UUID

from proxy.ledger import Hold, Outcome
from storage.credits import BalanceTooLow, Credits, RequestRepeated
from storage.journal import Progress
from tests.storage.calls import build_hold, build_settlement

OUTCOMES: Sequence[Outcome] = ("completed", "cancelled", "failed")


@dataclass(slots=True)
class Call:
    hold: Hold
    state: str = "held"
    has_lapsed: bool = False
    charge: Decimal = Decimal(0)
    key: str | None = None


@dataclass(slots=True)
class CreditModel:
    """`seen` names what has happened at least once, so that a walk can be asked whether it went everywhere."""

    users: Sequence[UUID]
    seen: set[str] = field(default_factory=set)
    _calls: list[Call] = field(default_factory=list)
    _granted: dict[str, tuple[UUID, Decimal]] = field(default_factory=dict)

    def balance(self, user_id: UUID) -> Decimal:
        granted = sum((amount for owner, amount in self._granted.values() if owner == user_id), Decimal(0))
        return granted - sum((call.charge for call in self._calls_of(user_id)), Decimal(0))

    def held(self, user_id: UUID) -> Decimal:
        held = (call.hold.amount_usd for call in self._calls_of(user_id) if call.state == "held")
        return sum(held, Decimal(0))

    async def step(self, credits_: Credits, draw: Random) -> None:
        """One thing that may happen, checked against what it says of itself."""
        steps = [self._grant, self._hold, self._hold, self._settle, self._expire, self._renew, self._sweep]
        await draw.choice(steps)(credits_, draw)

    async def _grant(self, credits_: Credits, draw: Random) -> None:
        user_id, amount, key = draw.choice(self.users), _amount(draw), f"grant {draw.randrange(40)}"
        is_new = await credits_.grant(user_id, amount, idempotency_key=key, description="")
        assert is_new == (key not in self._granted)
        self._granted.setdefault(key, (user_id, amount))
        self.seen.add("granted")

    async def _hold(self, credits_: Credits, draw: Random) -> None:
        key = draw.choice([None, f"key {draw.randrange(5)}"])
        hold = build_hold(draw.choice(self.users), str(_amount(draw)), key)
        expected = self._expect_hold(hold)
        try:
            await credits_.hold(hold)
            happened = "held"
            self._calls.append(Call(hold, key=key))
        except BalanceTooLow:
            happened = "too low"
        except RequestRepeated:
            happened = "repeated"
        assert happened == expected
        self.seen.add(happened)

    def _expect_hold(self, hold: Hold) -> str:
        if self.balance(hold.user_id) - self.held(hold.user_id) < hold.amount_usd:
            return "too low"
        taken = {call.key for call in self._calls_of(hold.user_id) if call.key}
        return "repeated" if hold.idempotency_key in taken else "held"

    async def _settle(self, credits_: Credits, draw: Random) -> None:
        for call in draw.sample(self._calls, min(2, len(self._calls))):
            outcome, charge = draw.choice(OUTCOMES), draw.choice([_amount(draw), Decimal(0)])
            is_first = await credits_.settle(build_settlement(call.hold, str(charge), outcome))
            assert is_first == (call.state != "settled")
            self.seen.add({"held": "settled", "expired": "late", "settled": "nothing"}[call.state])
            if is_first:
                _close(call, "settled", charge, outcome)

    async def _expire(self, credits_: Credits, draw: Random) -> None:
        for call in draw.sample(self._calls, min(3, len(self._calls))):
            await credits_.expire([Progress(call.hold.id)])
            call.has_lapsed = True

    async def _renew(self, credits_: Credits, draw: Random) -> None:
        calls = draw.sample(self._calls, min(1, len(self._calls)))
        await credits_.renew([Progress(call.hold.id) for call in calls])
        for call in calls:
            call.has_lapsed = False

    async def _sweep(self, credits_: Credits, draw: Random) -> None:
        found = {expired.id for expired in await credits_.find_expired()}
        assert found == {call.hold.id for call in self._calls if call.state == "held" and call.has_lapsed}
        for call in self._calls:
            charge = _amount(draw)
            is_first = await credits_.settle_expired(build_settlement(call.hold, str(charge), "cancelled"))
            assert is_first == (call.hold.id in found)
            if is_first:
                _close(call, "expired", charge, "cancelled")
                self.seen.add("expired")

    def _calls_of(self, user_id: UUID) -> list[Call]:
        return [call for call in self._calls if call.hold.user_id == user_id]


def _close(call: Call, state: str, charge: Decimal, outcome: Outcome) -> None:
    call.state, call.charge = state, charge
    call.key = call.key if outcome == "completed" else None


def _amount(draw: Random) -> Decimal:
    """From a millionth of a dollar to three dollars."""
    return Decimal(draw.randrange(1, 3_000_001)) / 1_000_000
