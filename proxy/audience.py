"""Who wants to know which calls run: told when one begins and when it has ended, and never of what lies between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from proxy.events import Usage
from proxy.ledger import Settlement
from proxy.routing import Model


class RunningCall(Protocol):
    """A call under way, which may be asked how far it has come until it has ended."""

    @property
    def request_id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def idempotency_key(self) -> str | None: ...
    @property
    def model(self) -> Model: ...

    def usage_so_far(self) -> Usage: ...

    async def cancel(self) -> bool:
        """End it for its user, and return when it has been charged. False if it was over before."""
        ...


class Audience(Protocol):
    """Neither method may wait or raise: they are called where a call begins and where it ends."""

    def note_started(self, call: RunningCall) -> None: ...

    def note_ended(self, call: RunningCall, settlement: Settlement | None) -> None:
        """As it was charged, or will be if the accounts could not be reached; None if nobody can say."""
        ...


class Nobody:
    """An audience where there is none."""

    def note_started(self, call: RunningCall) -> None: ...

    def note_ended(self, call: RunningCall, settlement: Settlement | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Several:
    """Audiences that hear the same, in their order."""

    audiences: Sequence[Audience]

    def note_started(self, call: RunningCall) -> None:
        for audience in self.audiences:
            audience.note_started(call)

    def note_ended(self, call: RunningCall, settlement: Settlement | None) -> None:
        for audience in self.audiences:
            audience.note_ended(call, settlement)
