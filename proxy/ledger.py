"""What the gateway needs from the accounts. `storage/credits.py` and `storage/journal.py` happen to fit; mypy checks
it.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol
from uuid import UUID

from proxy.events import Usage

Outcome = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one call, before it starts.

    `price` is what the charge will be computed from, as `pricing.encode_price` writes it: whoever settles an orphaned
    hold needs no catalogue, and a price that changes meanwhile changes nothing.
    """

    id: UUID
    user_id: UUID
    amount_usd: Decimal
    model_id: str
    provider_code: str
    task_type: str
    prompt_tokens: int
    price: str
    idempotency_key: str | None
    api_key_id: UUID | None = None
    """Of the key that asked; None if it was a person."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one call ended, and what it costs. `provisional`: the tokens were counted here, not by the provider.

    `provider_code` is who answered, which may be another than the hold's; empty where it is the hold's own.
    `upstream_id` is that provider's id for the answer, where it can be asked later what it has cost.
    """

    hold_id: UUID
    user_id: UUID
    outcome: Outcome
    charge_usd: Decimal
    usage: Usage
    provisional: bool
    provider_code: str = ""
    upstream_id: str | None = None


class Ledger(Protocol):
    """Both calls are one SQL statement each, decided there, and safe to repeat."""

    async def hold(self, hold: Hold) -> None:
        """Set the amount aside, or raise: the balance less everything held already does not cover it."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Charge and release. False if the hold was settled before, and then nothing has changed."""
        ...

    async def note_upstream(self, hold_id: UUID, provider_code: str, upstream_id: str) -> None:
        """The answer is being made in the background, under this id of the provider's: whoever settles an orphaned
        hold calls it off.
        """
        ...


class Allowance(Protocol):
    """The tokens a minute that one call may still have. Nobody is called, and nothing held, unless they are granted."""

    async def reserve(self, tokens: int) -> None:
        """Draw an estimate, or raise: there is no room, or nobody who can say so. Once for a call."""
        ...

    async def true_up(self, tokens: int) -> None:
        """What the call has really used, 0 if it never started. Draws the difference, and never raises."""
        ...


class Unlimited:
    """An allowance without an end, where nobody counts."""

    async def reserve(self, tokens: int) -> None: ...

    async def true_up(self, tokens: int) -> None: ...


class Slot(Protocol):
    """The place of one running call in the journal, a few bytes that outlive `kill -9` of this process."""

    def note(self, accepted: bool, reported: bool, usage: Usage) -> None:
        """What is known by now. `accepted`: the provider took the request; `reported`: the usage is the provider's
        own.
        """
        ...

    def clear(self) -> None:
        """The call is settled. Safe to repeat."""
        ...

    def leave(self) -> None:
        """The call has ended and could not be settled: what is noted is left to the sweep."""
        ...


class Journal(Protocol):
    def open_slot(self, hold_id: UUID) -> Slot: ...
