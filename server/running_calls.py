"""The calls that this process runs, by their ids: in memory alone, told of by the gateway."""

from uuid import UUID

from proxy.audience import RunningCall
from proxy.ledger import Settlement


class RunningCalls:
    """One per process; an audience of the gateway."""

    def __init__(self) -> None:
        self._calls: dict[UUID, RunningCall] = {}
        self._keyed: dict[tuple[UUID, str], RunningCall] = {}

    def note_started(self, call: RunningCall) -> None:
        self._calls[call.request_id] = call
        if call.idempotency_key is not None:
            self._keyed[call.user_id, call.idempotency_key] = call

    def note_ended(self, call: RunningCall, _settlement: Settlement | None) -> None:
        """A call that was settled may end after another one has got its key."""
        self._calls.pop(call.request_id, None)
        if call.idempotency_key is not None and self._keyed.get((call.user_id, call.idempotency_key)) is call:
            del self._keyed[call.user_id, call.idempotency_key]

    def get(self, id_: UUID) -> RunningCall | None:
        """Whoever's it is: for who knows already that its user wants it."""
        return self._calls.get(id_)

    def find(self, user_id: UUID, id_: UUID | None, idempotency_key: str | None = None) -> RunningCall | None:
        """One of that user's, by its id, or else by its key. None for a foreign one."""
        call = None if id_ is None else self._calls.get(id_)
        if call is None and idempotency_key is not None:
            call = self._keyed.get((user_id, idempotency_key))
        return call if call is not None and call.user_id == user_id else None
