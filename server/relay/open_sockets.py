"""Every device socket of this process, registered or not; and what ends one of them from outside."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID

import msgspec
import trio

from server.auth.callers import Caller
from server.relay.channels import Channels
from server.relay.endless import Loop
from server.relay.outbox import Outbox
from server.relay.sign_in_check import SIGNED_OUT, list_names, list_owners

UNLINKED_EVENT = "device-unlinked"
MOST_WAITING_BYTES = 512 * 1024 * 1024
"""Of all sockets together; above that, those that leave most unread have to come again."""
LOOK_SECONDS = 1.0
AWAY = 1013
AWAY_REASON = "too much was left unread: come again"


class OpenSocket(Protocol):
    """What is done here to a socket. Nothing of it waits."""

    caller: Caller
    outbox: Outbox

    def end(self, code: int, reason: str) -> None: ...

    def check_soon(self) -> None:
        """Whether its sign-in still counts."""

    def note_unlinked(self, device_id: UUID) -> None:
        """A device of the user was unlinked: perhaps this one."""


class _Status(msgspec.Struct, rename="camel"):
    event_type: str = ""
    payload: Any = None


class OpenSockets:
    """One per process."""

    def __init__(self, channels: Channels) -> None:
        self._by_owner: dict[UUID, set[OpenSocket]] = defaultdict(set)
        self.count = 0
        channels.hear("ended", self._hear_ended)
        channels.hear("status", self._hear_status)
        channels.hear_lost(self._hear_lost)

    @contextmanager
    def admit(self, socket: OpenSocket) -> Iterator[None]:
        """It is told what concerns it for as long as the block lasts."""
        owners = list_owners(socket.caller)
        for owner in owners:
            self._by_owner[owner].add(socket)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            for owner in owners:
                self._remove(owner, socket)

    @property
    def waiting_bytes(self) -> int:
        """That wait to be written, to all."""
        return sum(socket.outbox.waiting_bytes for socket in self._list_all())

    @property
    def loops(self) -> tuple[Loop, ...]:
        """What waits is bounded for all sockets together, beside what may wait for each."""
        return (self._keep_bounded,)

    def end_heaviest(self) -> None:
        """As many as it takes."""
        waiting_bytes = self.waiting_bytes
        if waiting_bytes <= MOST_WAITING_BYTES:
            return
        for socket in sorted(self._list_all(), key=_count_waiting, reverse=True):
            if waiting_bytes > MOST_WAITING_BYTES:
                waiting_bytes -= _count_waiting(socket)
                socket.end(AWAY, AWAY_REASON)

    async def _keep_bounded(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            self.end_heaviest()

    def _list_all(self) -> set[OpenSocket]:
        return {socket for sockets in self._by_owner.values() for socket in sockets}

    def _list(self, owner: UUID) -> tuple[OpenSocket, ...]:
        return tuple(self._by_owner[owner]) if owner in self._by_owner else ()

    def _remove(self, owner: UUID, socket: OpenSocket) -> None:
        self._by_owner[owner].discard(socket)
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    async def _hear_ended(self, owner: UUID, name: bytes) -> None:
        ended = name.decode()
        for socket in self._list(owner):
            if ended in list_names(socket.caller):
                socket.end(SIGNED_OUT, "signed out")

    async def _hear_status(self, owner: UUID, said: bytes) -> None:
        if UNLINKED_EVENT.encode() not in said:
            return
        status = msgspec.json.decode(said, type=_Status)
        if status.event_type == UNLINKED_EVENT and isinstance(status.payload, dict):
            device_id = UUID(status.payload["deviceId"])
            for socket in self._list(owner):
                socket.note_unlinked(device_id)

    async def _hear_lost(self, owner: UUID) -> None:
        for socket in self._list(owner):
            socket.check_soon()


def _count_waiting(socket: OpenSocket) -> int:
    return socket.outbox.waiting_bytes
