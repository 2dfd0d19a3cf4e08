"""Calls that come from other processes, to desktops that are connected to this one."""

import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import trio

from server.relay.bridge import Bridge, Letter
from server.relay.call_letters import CallLetter, GoneLetter, MissLetter, RoomLetter
from server.relay.call_table import ANSWER_SECONDS
from server.relay.hub import Hub
from server.relay.member import Member

LOOK_SECONDS = 0.05
"""How soon those who wait are told that a desktop has read what was there."""
RETRY_SECONDS = 1.0
MAX_UNTOLD = 10_000


@dataclass(frozen=True, slots=True)
class _Untold:
    """Whoever has called it is to hear that it has gone; until `ends_at`, when the calls have ended by themselves."""

    instance: str
    user_id: UUID
    letter: GoneLetter
    ends_at: float


class RemoteCalls:
    """One per process. Callers stop for a desktop that has much to read: they are told so, and soft as that is, what is
    on its way meanwhile is less than would overflow.
    """

    def __init__(self, hub: Hub, bridge: Bridge, clock: Callable[[], float] = trio.current_time) -> None:
        self._hub = hub
        self._bridge = bridge
        self._clock = clock
        self._callers: defaultdict[UUID, set[str]] = defaultdict(set)
        """By connection of a desktop: the processes that have sent calls to it."""
        self._crowded: dict[UUID, set[str]] = {}
        self._untold: deque[_Untold] = deque(maxlen=MAX_UNTOLD)
        self._bell = trio.Event()
        bridge.handle("call", CallLetter, self._receive)
        bridge.hear_lost(self._forget_instance)
        hub.hear_leaving(self._note_leaving)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return (self._keep_telling,)

    def list_callers(self, connection_id: UUID) -> Sequence[str]:
        """The processes that have sent calls to that connection of a desktop."""
        return tuple(self._callers.get(connection_id, ()))

    async def _receive(self, letter: Letter, body: CallLetter) -> None:
        desktop = self._hub.find(letter.user_id, body.device_id)
        if desktop is None or desktop.connection_id != body.connection_id or desktop.outbox.is_closed:
            missed = MissLetter(body.serial, body.connection_id)
            self._bridge.send(letter.sender, letter.user_id, "miss", missed, letter.blob)
            return
        self._callers[body.connection_id].add(letter.sender)
        desktop.outbox.put_text(letter.blob)
        if not desktop.outbox.has_room:
            self._note_crowded(desktop, letter.sender)

    def _note_crowded(self, desktop: Member, instance: str) -> None:
        told = self._crowded.setdefault(desktop.connection_id, set())
        if instance not in told:
            told.add(instance)
            letter = RoomLetter(desktop.connection_id, has_room=False)
            self._bridge.send(instance, desktop.user_id, "room", letter)
            self._ring()

    def _note_leaving(self, member: Member) -> None:
        self._crowded.pop(member.connection_id, None)
        ends_at = self._clock() + ANSWER_SECONDS
        letter, was_told = GoneLetter(member.connection_id), not self._untold
        callers = self._callers.pop(member.connection_id, ())
        self._tell_gone([_Untold(instance, member.user_id, letter, ends_at) for instance in callers])
        if was_told and self._untold:  # those who wait have their turn; all sockets may end at once
            self._ring()

    def _tell_gone(self, untold: Sequence[_Untold]) -> None:
        """Those who cannot be told now, as Redis is away, are told later."""
        now = self._clock()
        for gone in untold:
            if not self._bridge.send(gone.instance, gone.user_id, "gone", gone.letter) and self._is_worth_it(gone, now):
                self._untold.append(gone)

    def _is_worth_it(self, gone: _Untold, now: float) -> bool:
        return now < gone.ends_at and self._bridge.is_alive(gone.instance)

    def _tell_room(self) -> None:
        for connection_id, instances in tuple(self._crowded.items()):
            desktop = self._hub.find_connection(connection_id)
            if desktop is not None and desktop.outbox.has_room:
                instances -= {instance for instance in instances if self._has_told_room(desktop, instance)}
                if not instances:
                    del self._crowded[connection_id]

    def _has_told_room(self, desktop: Member, instance: str) -> bool:
        letter = RoomLetter(desktop.connection_id, has_room=True)
        is_sent = self._bridge.send(instance, desktop.user_id, "room", letter)
        return is_sent or not self._bridge.is_alive(instance)

    def _forget_instance(self, instance: str) -> None:
        for connection_id, instances in tuple(self._callers.items()):
            instances.discard(instance)
            if not instances:
                del self._callers[connection_id]

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    async def _keep_telling(self) -> None:
        while True:
            pause = LOOK_SECONDS if self._crowded else RETRY_SECONDS if self._untold else math.inf
            with trio.move_on_after(pause):
                await self._bell.wait()
            self._tell_room()
            untold = tuple(self._untold)
            self._untold.clear()
            self._tell_gone(untold)
