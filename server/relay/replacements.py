"""A device that connects anew takes the place of its former connection, wherever that is: once it is vacated.

What a device had said on its former connection goes before what it says on the new one; so that one is asked to end, is
heard out, and only then the new one is answered. For whoever does not end in time, storage.event_stream has a fence.
"""

from dataclasses import dataclass, field
from uuid import UUID

import msgspec
import trio

from server.relay.bridge import Bridge, Letter
from server.relay.hub import REPLACED, REPLACED_REASON, Hub
from server.relay.member import Member
from storage.presence import Link

VACATE_SECONDS = 1.0
"""No device waits for longer: its former connection may be at a process that is gone, and nobody knows it yet."""


class ReplacedLetter(msgspec.Struct, array_like=True):
    """A newer connection of its device has come to another process, which is to hear when this one is no more."""

    connection_id: UUID


class VacatedLetter(msgspec.Struct, array_like=True):
    """That connection is no more."""

    connection_id: UUID


@dataclass(slots=True)
class _Waiting:
    count: int = 0
    over: trio.Event = field(default_factory=trio.Event)


class Replacements:
    """One per process. To be made before the loops run."""

    def __init__(self, bridge: Bridge, hub: Hub) -> None:
        self._bridge = bridge
        self._hub = hub
        self._waiting: dict[UUID, _Waiting] = {}
        self._askers: dict[UUID, str] = {}
        hub.hear_leaving(self._note_left)
        bridge.handle("replaced", ReplacedLetter, self._end)
        bridge.handle("vacated", VacatedLetter, self._note_vacated)

    async def take_place(self, user_id: UUID, replaced: Link) -> None:
        """Of that link. Returns when its connection is no more, or does not end in time."""
        connection_id = replaced.connection_id
        waiting = self._waiting.setdefault(connection_id, _Waiting())
        waiting.count += 1
        try:
            if self._ask(user_id, replaced):
                with trio.move_on_after(VACATE_SECONDS):
                    await waiting.over.wait()
        finally:
            waiting.count -= 1
            if not waiting.count and self._waiting.get(connection_id) is waiting:
                del self._waiting[connection_id]

    def _ask(self, user_id: UUID, replaced: Link) -> bool:
        """Whether there is anybody to wait for."""
        if replaced.instance != self._bridge.instance:
            letter = ReplacedLetter(replaced.connection_id)
            return self._bridge.send(replaced.instance, user_id, "replaced", letter)
        if (member := self._hub.find_connection(replaced.connection_id)) is None:
            return False
        member.end(REPLACED, REPLACED_REASON)
        return True

    async def _end(self, letter: Letter, body: ReplacedLetter) -> None:
        member = self._hub.find_connection(body.connection_id)
        if member is None:
            self._bridge.send(letter.sender, letter.user_id, "vacated", VacatedLetter(body.connection_id))
            return
        self._askers[body.connection_id] = letter.sender
        member.end(REPLACED, REPLACED_REASON)

    def _note_left(self, member: Member) -> None:
        connection_id = member.connection_id
        self._note_over(connection_id)
        if (asker := self._askers.pop(connection_id, None)) is not None:
            self._bridge.send(asker, member.user_id, "vacated", VacatedLetter(connection_id))

    async def _note_vacated(self, _: Letter, body: VacatedLetter) -> None:
        self._note_over(body.connection_id)

    def _note_over(self, connection_id: UUID) -> None:
        if (waiting := self._waiting.pop(connection_id, None)) is not None:
            waiting.over.set()
