"""A call as the accounts see it: what it holds, how it ends, and what is left of it when its owner is gone."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from storage.journal import Progress, Usage


class Hold(Protocol):
    """What a caller sets aside. `price` is JSON text, kept as it is for whoever settles."""

    @property
    def id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def amount_usd(self) -> Decimal: ...
    @property
    def model_id(self) -> str: ...
    @property
    def provider_code(self) -> str: ...
    @property
    def task_type(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def price(self) -> str: ...
    @property
    def idempotency_key(self) -> str | None: ...
    @property
    def api_key_id(self) -> UUID | None: ...


class Settlement(Protocol):
    @property
    def hold_id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def outcome(self) -> str: ...
    @property
    def charge_usd(self) -> Decimal: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def provisional(self) -> bool: ...
    @property
    def provider_code(self) -> str: ...
    @property
    def upstream_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ExpiredHold:
    """A hold whose owner is gone, with what its call is known to have used, and the price to charge it by."""

    id: UUID
    user_id: UUID
    price: str
    progress: Progress
    upstream_provider: str | None = None
    upstream_id: str | None = None
    """Of an answer that its provider makes in the background."""
    is_young: bool = False
    """Whether such an answer may be under way still."""
