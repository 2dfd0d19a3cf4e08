"""Calls (RPC) from a device to a desktop, and their answers. A call that waits is known where its caller is connected.

Where both are connected to this process no letter is written. Else the call goes to the desktop's process
(remote_calls.py), and the answer comes back to whichever process the caller is connected to by then.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import trio

from server.relay.bridge import Bridge, Letter
from server.relay.call_frames import OFFLINE, UNDELIVERABLE, Failure, build_answer, build_call, build_failure
from server.relay.call_letters import AnswerLetter, CallLetter, GoneLetter, MissLetter, RoomLetter
from server.relay.call_room import CallRoom
from server.relay.call_table import ANSWER_SECONDS, NO_PINGS, Call, CallTable, Desktop
from server.relay.channels import Channels
from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.messages import CallRequest, CallResponse
from server.relay.remote_calls import RemoteCalls
from server.relay.roster import Roster
from storage.presence import Link

ANSWER_ROOM_SECONDS = 10.0
"""So long a desktop is stopped by a process that does not take its answers."""
LOOK_SECONDS = 0.25
"""So often those are looked for that calls wait for, should nothing have told that they are back."""
MAX_LOOK_SECONDS = 1.0
"""Then it is time for what has expired meanwhile, however slowly Redis answers."""
MAX_GONE = 1_000


class Calls:
    """One per process. Registers its letters, and what it listens to, when it is made: before any loop runs."""

    def __init__(
        self,
        hub: Hub,
        roster: Roster,
        bridge: Bridge,
        channels: Channels,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._hub = hub
        self._roster = roster
        self._bridge = bridge
        self._clock = clock
        self._table = CallTable()
        self._remote = RemoteCalls(hub, bridge, clock)
        self._room = CallRoom(hub, bridge)
        self._gone: OrderedDict[UUID, None] = OrderedDict()
        """Those that have ended, whatever the roster says for some seconds more."""
        self._bell = trio.Event()
        bridge.handle("answer", AnswerLetter, self._receive_answer)
        bridge.handle("miss", MissLetter, self._receive_miss)
        bridge.handle("gone", GoneLetter, self._receive_gone)
        bridge.handle("room", RoomLetter, self._receive_room)
        bridge.hear_lost(self._note_lost_instance)
        hub.hear_leaving(self._note_leaving)
        channels.hear("links", self._note_links)

    @property
    def pending(self) -> int:
        """Calls of this process's devices that have no answer yet."""
        return len(self._table)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        """Deadlines, graces."""
        return (self._keep_time, *self._remote.loops)

    async def call(self, caller: Member, request: CallRequest) -> None:
        """Forward it to the primary desktop, or answer at once that there is none. Waits while that has no room.

        A call that its caller makes again while it waits (the same id and idempotency key) is forwarded again, and
        answered once. One that shares an id and no key with another is a call of its own, and both are answered.
        """
        if (failure := self._table.check(caller.connection_id, request.id)) is not None:
            self._refuse(caller, request.id, failure)
            return
        desktop = await self._reach(caller.user_id, request.target_device_id)
        if self._hub.find_connection(caller.connection_id) is None:
            return
        repeated = self._table.find_repeated(caller.connection_id, request.id, request.idempotency_key)
        if repeated is not None:
            self._repeat(repeated, caller, request, desktop)
        elif desktop is None:
            self._refuse(caller, request.id, OFFLINE)
        else:
            self._meet(caller.user_id, desktop, self._clock())  # what waits for it is older, and goes first
            self._make(caller, request, desktop)

    async def answer(self, desktop: Member, response: CallResponse) -> None:
        """What a desktop (or whoever was called) answers, brought to its caller. Dropped where nobody waits for it: the
        caller is gone, was answered already, or had asked another device.
        """
        if (caller_id := _read_device_id(response.client_id)) is None:
            return
        body = AnswerLetter(caller_id, response.id, desktop.device_id, response.is_final)
        instance = await self._find_caller(desktop.user_id, caller_id)
        if instance == self._bridge.instance:
            self._pass_on(desktop.user_id, body, response.payload)
        elif instance is not None:
            await self._send_answer(desktop, instance, body, response.payload)
        else:
            await self._answer_whoever_called(desktop, body, response.payload)

    async def _answer_whoever_called(self, desktop: Member, body: AnswerLetter, payload: bytes) -> None:
        """Redis has no link of the caller, as one that has lost its memory: it is where the calls have come from, or
        gone.
        """
        body.is_forwarded = True
        for instance in self._remote.list_callers(desktop.connection_id):
            await self._send_answer(desktop, instance, body, payload)

    def _make(self, caller: Member, request: CallRequest, desktop: Desktop) -> None:
        call = Call(
            serial=self._table.next_serial(),
            user_id=caller.user_id,
            caller_id=caller.connection_id,
            id=request.id,
            desktop=desktop,
            idempotency_key=request.idempotency_key,
            is_ping=request.method in NO_PINGS,
            ends_at=self._clock() + ANSWER_SECONDS,
        )
        frame = build_call(request.payload, caller.device_id, caller.user_id)
        is_first = not self.pending
        self._table.add(call, frame)
        if is_first:
            self._ring()
        self._forward(call, frame, caller)

    def _repeat(self, call: Call, caller: Member, request: CallRequest, desktop: Desktop | None) -> None:
        """One that waits for its desktop to come back will be sent, or answered, by itself."""
        if desktop is not None and self._table.is_asked(call, desktop.connection_id):
            call.is_repeated = True
            self._forward(call, build_call(request.payload, caller.device_id, caller.user_id), caller)

    def _forward(self, call: Call, frame: bytes, caller: Member) -> None:
        desktop = call.desktop
        if desktop.instance != self._bridge.instance:
            letter = CallLetter(call.serial, desktop.device_id, desktop.connection_id)
            after = caller.last_event_id
            if not self._bridge.send(desktop.instance, call.user_id, "call", letter, frame, after_event=after):
                self._fail([call])
        elif (member := self._hub.find_connection(desktop.connection_id)) is not None:
            member.outbox.put_text(frame)
        else:
            self._fail([call])

    async def _reach(self, user_id: UUID, target_device_id: UUID | None) -> Desktop | None:
        """The desktop, once it has room. It may have a new connection by then."""
        for _ in range(2):
            desktop = await self._find(user_id, target_device_id)
            if desktop is None:
                return None
            if await self._room.wait(desktop) and self._is_there(user_id, desktop):
                return desktop
        return None

    async def _find(self, user_id: UUID, target_device_id: UUID | None) -> Desktop | None:
        """Asks anew, once, if what is remembered is known to be over."""
        for _ in range(2):
            link = await self._find_link(user_id, target_device_id)
            if link is None:
                return None
            if (desktop := self._as_desktop(user_id, link)) is not None:
                return desktop
            self._roster.note_changed(user_id)
        return None

    async def _find_link(self, user_id: UUID, target_device_id: UUID | None) -> Link | None:
        if target_device_id is None:
            return await self._roster.find_primary(user_id)
        link = await self._roster.find(user_id, target_device_id)
        return link if link is not None and link.is_visible and link.client_type == "desktop" else None

    def _as_desktop(self, user_id: UUID, link: Link) -> Desktop | None:
        """None if its connection is known to have ended."""
        if (here := self._find_here(user_id, link.device_id)) is not None:
            return here
        if link.instance == self._bridge.instance or link.connection_id in self._gone:
            return None
        return Desktop(link.device_id, link.connection_id, link.instance)

    def _find_here(self, user_id: UUID, device_id: UUID) -> Desktop | None:
        member = self._hub.find(user_id, device_id)
        if member is None or member.outbox.is_closed:
            return None
        return Desktop(device_id, member.connection_id, self._bridge.instance)

    def _is_there(self, user_id: UUID, desktop: Desktop) -> bool:
        if desktop.instance == self._bridge.instance:
            return self._find_here(user_id, desktop.device_id) == desktop
        return desktop.connection_id not in self._gone

    async def _send_answer(self, desktop: Member, instance: str, body: AnswerLetter, payload: bytes) -> None:
        with trio.move_on_after(ANSWER_ROOM_SECONDS) as waiting:
            await self._bridge.wait_room(instance)
        if waiting.cancelled_caught:
            payload, body.is_final = build_failure(body.id, UNDELIVERABLE), True
        after = desktop.last_event_id
        self._bridge.send(instance, desktop.user_id, "answer", body, payload, after_event=after)

    async def _find_caller(self, user_id: UUID, device_id: UUID) -> str | None:
        """Its process. Asks anew, once, if it is said to be here and is not."""
        for _ in range(2):
            if self._find_here(user_id, device_id) is not None:
                return self._bridge.instance
            link = await self._roster.find(user_id, device_id)
            if link is None or link.instance != self._bridge.instance:
                return None if link is None else link.instance
            self._roster.note_changed(user_id)
        return None

    def _pass_on(self, user_id: UUID, body: AnswerLetter, payload: bytes) -> None:
        caller = self._hub.find(user_id, body.caller_id)
        if caller is not None and self._table.answer(
            caller.connection_id, body.id, body.desktop_id, self._clock(), is_final=body.is_final
        ):
            caller.outbox.put_text(build_answer(payload))

    def _refuse(self, caller: Member, call_id: str, failure: Failure) -> None:
        caller.outbox.put_text(build_answer(build_failure(call_id, failure)))

    def _fail(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self._table.fail(call)
            self._tell(call, OFFLINE)

    def _tell(self, call: Call, failure: Failure) -> None:
        if (caller := self._hub.find_connection(call.caller_id)) is not None:
            self._refuse(caller, call.id, failure)

    def _meet(self, user_id: UUID, desktop: Desktop, missed_until: float) -> None:
        met = self._table.meet(user_id, desktop, missed_until)
        for call in met.failed:
            self._tell(call, OFFLINE)
        for call, frame in met.again:
            if (caller := self._hub.find_connection(call.caller_id)) is not None:
                self._forward(call, frame, caller)

    async def _receive_answer(self, letter: Letter, body: AnswerLetter) -> None:
        """A caller that has just gone to another process is not yet known to be there by whoever has sent this."""
        user_id = letter.user_id
        if body.is_forwarded or self._find_here(user_id, body.caller_id) is not None:
            self._pass_on(user_id, body, letter.blob)
            return
        self._roster.note_changed(user_id)
        instance = await self._find_caller(user_id, body.caller_id)
        if instance is not None and instance != self._bridge.instance:
            body.is_forwarded = True
            self._bridge.send(instance, user_id, "answer", body, letter.blob)

    async def _receive_miss(self, letter: Letter, body: MissLetter) -> None:
        self._roster.note_changed(letter.user_id)
        failed = self._table.miss(body.serial, body.connection_id, letter.blob, self._clock())
        if failed is not None:
            self._tell(failed, OFFLINE)
        self._ring()

    async def _receive_gone(self, letter: Letter, body: GoneLetter) -> None:
        self._gone[body.connection_id] = None
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
        self._room.forget(body.connection_id)
        self._lose(body.connection_id)

    async def _receive_room(self, letter: Letter, body: RoomLetter) -> None:
        self._room.note(body.connection_id, letter.sender, has_room=body.has_room)

    def _lose(self, connection_id: UUID) -> None:
        for call in self._table.lose(connection_id, self._clock()):
            self._tell(call, OFFLINE)
        self._ring()

    def _note_lost_instance(self, instance: str) -> None:
        self._room.forget_instance(instance)
        for call in self._table.lose_instance(instance, self._clock(), self._bridge.find_last_sign(instance)):
            self._tell(call, OFFLINE)
        self._ring()

    def _note_leaving(self, member: Member) -> None:
        self._table.forget(member.connection_id)
        self._room.forget(member.connection_id)
        self._lose(member.connection_id)

    async def _note_links(self, user_id: UUID, message: bytes) -> None:
        if self._table.has_lost(user_id):
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    @property
    def _missed_until(self) -> float:
        """Not at once: a desktop that was not there yet is about to be."""
        return self._clock() - LOOK_SECONDS / 2

    async def _keep_time(self) -> None:
        while True:
            await self._wait_turn()
            for call, failure in self._table.expire(self._clock()).items():
                self._tell(call, failure)
            await self._look_for_lost()

    async def _wait_turn(self) -> None:
        pause = max(0.0, self._table.next_at - self._clock())
        with trio.move_on_after(min(pause, LOOK_SECONDS) if self._table.lost else pause):
            await self._bell.wait()

    async def _look_for_lost(self) -> None:
        ends_at = self._clock() + MAX_LOOK_SECONDS
        elsewhere = []
        for user_id, device_id in tuple(self._table.lost):
            if (here := self._find_here(user_id, device_id)) is not None:
                self._meet(user_id, here, self._missed_until)
                self._table.note_sought((user_id, device_id))
            else:
                elsewhere.append((user_id, device_id))
        for user_id, device_id in elsewhere:
            if self._clock() >= ends_at:
                break
            await self._look_elsewhere(user_id, device_id)
            self._table.note_sought((user_id, device_id))

    async def _look_elsewhere(self, user_id: UUID, device_id: UUID) -> None:
        link = await self._roster.find(user_id, device_id)
        if link is not None and (desktop := self._as_desktop(user_id, link)) is not None:
            self._meet(user_id, desktop, self._missed_until)
        else:
            for call in self._table.give_up(user_id, device_id):
                self._tell(call, OFFLINE)


def _read_device_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
