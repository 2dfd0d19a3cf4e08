"""One socket of a device, from its handshake to its end: the nursery `device`.

It reads, writes, beats, and is a member of the relay while its device is registered; each is a task. Whatever ends the
socket is told to `end`: from then on nobody reaches it, the writer has the last word, and all tasks end with it.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID, uuid4

import msgspec
import trio

from server.auth.callers import Caller
from server.presence import HeldLink
from server.relay.conversation import Conversation
from server.relay.device_notes import DeviceNotes
from server.relay.hub import REPLACED, REPLACED_REASON
from server.relay.member import Member
from server.relay.open_sockets import AWAY, AWAY_REASON
from server.relay.outbox import Outbox
from server.relay.parts import Parts
from server.relay.registration import Registered, read_client_type, read_wish
from server.relay.sign_in_check import SIGNED_OUT, list_owners
from server.relay.text_budget import BURST_REGISTRATIONS, REGISTRATIONS_PER_SECOND, TextBudget
from server.websocket import Ping, Pong, SocketClosed, WebSocket
from storage.credits import UserUnknown
from storage.errors import RedisUnavailable, StorageError
from storage.presence import Link

PING_SECONDS = 30.0
PING = b"heartbeat"
CHECK_BEATS, EXTEND_BEATS = 2, 10
"""Of so many pings each: the sign-in is looked at, the session is extended."""
REGISTER_SECONDS = 60.0
"""So long a socket may be nobody's."""
LAST_WORDS_SECONDS = 5.0
STOP_SECONDS = 3.0
"""When a server stops, its devices leave one by one within this time: they all come again elsewhere."""
PAUSE_SECONDS, QUIET_SECONDS = 2.0, 0.25
"""A desktop that streams is told to keep its output, and what is under way is awaited: until it has heard that, and
nothing has come for a moment.
"""
PAUSED = b"paused"
DEPART_SECONDS = 15.0
"""More than a link's grace, and what is to be told of its end."""

POLICY, FAULT, RESTART, SILENT = 1008, 1011, 1012, 4002
"""https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number; from 4000 on they are ours."""
DISCARDING = frozenset({AWAY, SILENT, SIGNED_OUT})
"""What waits is not written: the device does not take it, or is not to have it."""
HEARD_OUT_SECONDS = {RESTART: LAST_WORDS_SECONDS, REPLACED: 0.8}
"""So long at most a device that did nothing wrong is still heard: what it had said when it heard of the end counts."""
FORMER_QUIET_SECONDS = 0.1
"""Who was replaced may be long gone, and its newer connection waits: it is heard until nothing comes for so long."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    code: int
    reason: str


@dataclass(eq=False, slots=True)
class _Membership:
    """`ready` is set once what was missed waits to be written, or when it has failed; `left` when it is over."""

    registered: Registered
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ready: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    held: HeldLink | None = None


class DeviceSocket:
    """`serve` is its life."""

    def __init__(self, parts: Parts, websocket: WebSocket, caller: Caller) -> None:
        self.caller = caller
        self.outbox = Outbox(self._overflow)
        self._parts = parts
        self._websocket = websocket
        self._client_type = read_client_type(websocket.headers)
        self._ending: Ending | None = None
        self._has_left = False
        self._is_over = False
        self._heard = 0
        self._has_paused = trio.Event()
        self._writing = trio.CancelScope()
        self._bell = trio.Event()
        self._membership: _Membership | None = None
        self._unregistered_since = now = trio.current_time()
        self._registrations = TextBudget(now, BURST_REGISTRATIONS, REGISTRATIONS_PER_SECOND)

    async def serve(self) -> None:
        """Until the socket has ended. Its link has its grace after that."""
        await self._websocket.accept()
        with self._parts.sockets.admit(self):
            async with trio.open_nursery() as device:
                self._device = device
                notes = DeviceNotes(device)
                self._conversation = Conversation(self._parts, self.outbox, notes, self._register, self.end)
                device.start_soon(self._guard, self._write)
                device.start_soon(self._guard, self._beat)
                self._websocket.hear_stopping(self._note_stopping)
                await self._guard(self._live)
            self._is_over = True

    def end(self, code: int, reason: str) -> None:
        """Nothing more is said to the device; unless it may be heard out, nobody reaches it from now on. Returns at
        once. Safe to repeat: the first counts.
        """
        if self._ending is not None:
            return
        self._ending = Ending(code, reason)
        if self._has_left:
            self._device.cancel_scope.cancel()
        self.outbox.close(discards=code in DISCARDING)
        self._writing.deadline = trio.current_time() + LAST_WORDS_SECONDS
        if (membership := self._membership) is not None:
            if membership.held is not None and code == SIGNED_OUT:
                membership.held.grace_seconds = 0
            membership.scope.deadline = trio.current_time() + HEARD_OUT_SECONDS.get(code, 0)
            if not self._is_heard:
                membership.scope.cancel()

    def check_soon(self) -> None:
        self._bell.set()

    def note_unlinked(self, device_id: UUID) -> None:
        """Nobody reaches it any more; its next heartbeat tells it so."""
        membership = self._membership
        if membership is not None and membership.registered.device_id == device_id:
            self._conversation.was_unlinked = True
            membership.scope.cancel()

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except SocketClosed:
            self._device.cancel_scope.cancel()
        except StorageError as error:
            logger.warning("a device has to come again", extra={"reason": str(error)})
            self.end(AWAY, "come again in a moment")
        except Exception:  # the edge of the task
            logger.exception("the socket of a device broke in our own code")
            self.end(FAULT, "something went wrong on our side")

    async def _live(self) -> None:
        """The sign-in is looked at once more when its end would be heard of: it was there before the handshake."""
        async with AsyncExitStack() as stack:
            for owner in list_owners(self.caller):
                await stack.enter_async_context(self._parts.channels.keep(owner))
            if await self._parts.check.is_buried(self.caller):
                self.end(SIGNED_OUT, "signed out")
            await self._read()
            await trio.sleep_forever()  # the writer ends the nursery

    async def _read(self) -> None:
        """Raises SocketClosed."""
        budget = TextBudget(trio.current_time())
        while self._is_heard:
            message = await self._websocket.receive()
            if self._is_heard:
                await self._take(message, budget)

    @property
    def _is_heard(self) -> bool:
        return self._ending is None or self._ending.code in HEARD_OUT_SECONDS

    async def _take(self, message: str | bytes | Ping | Pong, budget: TextBudget) -> None:
        traffic, conversation = self._parts.traffic, self._conversation
        self._heard += 1
        if (member := conversation.member) is not None:
            member.held.pulse.note_life()
        if isinstance(message, str):
            traffic.texts_in += 1
            await self._slow_down(budget)
            await conversation.take_text(message)
        elif isinstance(message, bytes):
            traffic.binaries_in += 1
            conversation.take_bytes(message)
        elif isinstance(message, Pong) and member is not None:
            self._take_pong(member, message.payload)

    def _take_pong(self, member: Member, payload: bytes) -> None:
        if payload == PAUSED:
            self._has_paused.set()
        else:
            self._parts.terminals.note_pong(member, payload)

    async def _slow_down(self, budget: TextBudget) -> None:
        if pause := budget.draw(trio.current_time()):
            if budget.is_abused(trio.current_time()):
                self._conversation.tell_error("rateLimited", "this device says too much, and has for minutes")
                self.end(POLICY, "too many messages")
            await trio.sleep(pause)

    async def _write(self) -> None:
        """The last word is the close code. Of a client that has left, or may be heard out, what it has said before is
        yet to be read: the reader ends the socket when it has come to its end.
        """
        outbox, traffic = self.outbox, self._parts.traffic
        try:
            with self._writing:
                while (frames := await outbox.take()) is not None:
                    await self._websocket.send(frames)
                    outbox.note_written(len(frames))
                    traffic.bytes_out += len(frames)
                    traffic.frames_out += outbox.batch_frames
            ending = self._ending or Ending(FAULT, "")
            seconds = HEARD_OUT_SECONDS.get(ending.code, 0)
            await self._websocket.close(ending.code, ending.reason, hears_out=seconds > 0)
            with trio.move_on_after(seconds):
                await self._hear_out(ending.code)
        except SocketClosed:
            self._has_left = self._ending is None
            outbox.close(discards=True)
        finally:
            if not self._has_left:
                self._device.cancel_scope.cancel()

    async def _hear_out(self, code: int) -> None:
        """Who was replaced may be long gone, and its newer connection waits."""
        if code == REPLACED:
            await self._wait_quiet(FORMER_QUIET_SECONDS)
        else:
            await trio.sleep_forever()

    async def _beat(self) -> None:
        beats = 0
        while True:
            with trio.move_on_after(PING_SECONDS) as waiting:
                await self._bell.wait()
            self._bell = trio.Event()
            if waiting.cancelled_caught:
                beats += 1
                self.outbox.put_ping(PING)
                self._look_for_nobody()
            if beats % CHECK_BEATS == 0 or not waiting.cancelled_caught:
                await self._check_sign_in()
            if beats % EXTEND_BEATS == 1:
                await self._extend_session()

    def _look_for_nobody(self) -> None:
        is_late = trio.current_time() - self._unregistered_since >= REGISTER_SECONDS
        if self._membership is None and is_late:
            self.end(POLICY, "nobody has registered here")

    async def _check_sign_in(self) -> None:
        """What cannot be looked up now is looked up next time."""
        with suppress(StorageError):
            if await self._parts.check.has_ended(self.caller):
                self.end(SIGNED_OUT, "signed out")

    async def _extend_session(self) -> None:
        membership = self._membership
        if membership is None or not membership.registered.is_kept:
            return
        registered = membership.registered
        with suppress(RedisUnavailable):
            await self._parts.registrar.sessions.extend(
                self.caller.user_id, registered.device_id, registered.session.id
            )

    async def _register(self, payload: msgspec.Raw) -> None:
        """A device that has registered here before does so again, without anybody hearing that it was away. Raises
        MessageInvalid.
        """
        await trio.sleep(self._registrations.draw(trio.current_time()))
        wish = read_wish(payload, self._websocket.headers.get("X-Device-ID"))
        try:
            registered = await self._parts.registrar.register(self.caller.user_id, self._client_type, wish)
        except UserUnknown:
            self.end(SIGNED_OUT, "this account is gone")
            return
        if (before := self._membership) is not None:
            before.scope.cancel()
            await before.left.wait()
        if self._ending is None:
            self._conversation.was_unlinked = False
            self._membership = membership = _Membership(registered)
            self._device.start_soon(self._guard, partial(self._belong, membership))
            await membership.ready.wait()

    async def _belong(self, membership: _Membership) -> None:
        stack = AsyncExitStack()
        try:
            with membership.scope:
                link = self._build_link(membership.registered)
                opening = self._parts.presence.open_link(self.caller.user_id, link)
                membership.held = await stack.enter_async_context(opening)
                await self._be_member(membership, membership.held)
        finally:
            self._membership = None
            self._unregistered_since = trio.current_time()
            membership.ready.set()
            membership.left.set()
            with trio.move_on_after(DEPART_SECONDS, shield=True):
                await self._depart(membership, stack)

    async def _depart(self, membership: _Membership, stack: AsyncExitStack) -> None:
        await self._parts.departures.take(stack)
        if self._ending is not None and self._ending.code == SIGNED_OUT:
            with suppress(RedisUnavailable):
                await self._parts.registrar.sessions.drop(self.caller.user_id, membership.registered.device_id)

    async def _be_member(self, membership: _Membership, held: HeldLink) -> None:
        parts, registered = self._parts, membership.registered
        member = Member(
            user_id=self.caller.user_id,
            device_id=registered.device_id,
            connection_id=held.link.connection_id,
            client_type=self._client_type,
            fresh_at=registered.session.fresh_at,
            outbox=self.outbox,
            held=held,
            end=self.end,
        )
        if held.replaced is not None:
            await parts.replacements.take_place(member.user_id, held.replaced)
        since = registered.last_event_id
        if since is None and not registered.is_resumed:
            since = await parts.events.find_last(member.user_id)  # whatever happens once it has heard the reply is new
        self.outbox.put_text(registered.reply)  # who has heard it can be reached, and hears nothing before it
        with parts.hub.admit(member):
            async with parts.events.join(member, since, is_resumed=registered.is_resumed):
                self._conversation.member = member
                membership.ready.set()
                try:
                    await parts.terminals.resume_producer(member)
                    held.pulse.note_life()  # nothing was read while what it has missed was put together
                    self._note_ending(await parts.presence.keep_alive(held), registered.device_id)
                finally:
                    self._conversation.member = None

    def _note_ending(self, ending: str, device_id: UUID) -> None:
        match ending:
            case "silent":
                self.end(SILENT, "nothing was heard of you for too long")
            case "replaced":
                self.end(REPLACED, REPLACED_REASON)
            case _:
                self.note_unlinked(device_id)

    def _build_link(self, registered: Registered) -> Link:
        return Link(
            device_id=registered.device_id,
            connection_id=uuid4(),
            instance=self._parts.bridge.instance,
            client_type=self._client_type,
            device_name=registered.device_name,
            is_visible=registered.is_visible,
            fresh_at=registered.session.fresh_at,
        )

    def _note_stopping(self) -> None:
        if self._ending is None and not self._is_over:
            self._device.start_soon(self._leave)

    async def _leave(self) -> None:
        await trio.sleep(random.uniform(0, STOP_SECONDS))  # noqa: S311 - not for secrets
        if (member := self._conversation.member) is not None and self._parts.terminals.prepare_end(member):
            with trio.move_on_after(PAUSE_SECONDS):
                self.outbox.put_ping(PAUSED)
                await self._has_paused.wait()
                await self._wait_quiet(QUIET_SECONDS)
        self.end(RESTART, "this server stops: come again")

    async def _wait_quiet(self, seconds: float) -> None:
        """Until nothing has come for so long."""
        heard = -1
        while heard != self._heard:
            heard = self._heard
            await trio.sleep(seconds)

    def _overflow(self) -> None:
        self.end(AWAY, AWAY_REASON)
