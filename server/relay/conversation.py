"""What a device says on its socket, carried out in the order in which it says it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import trio
from msgspec import Raw

from server.relay.call_frames import OFFLINE, Failure, build_answer, build_failure
from server.relay.call_messages import CallInvalid, read_call, read_response
from server.relay.device_notes import DeviceNotes
from server.relay.events import NewEvent, Source
from server.relay.member import End, Member
from server.relay.messages import (
    MessageInvalid,
    Said,
    read_ack,
    read_bind,
    read_event,
    read_heartbeat,
    read_text,
    read_unbind,
)
from server.relay.outbox import Outbox
from server.relay.parts import Parts
from server.relay.replies import PONG, build_error
from server.relay.side_effects import HINT, Effects, build_hint, find_effects
from storage.devices import Vitals
from storage.errors import RedisUnavailable, StorageError

HIDDEN, UNLINKED = 4003, 4004
LARGE_CHARACTERS = 256 * 1024
"""To look through more takes milliseconds, in which nobody else would be served."""
NOTE_SECONDS = 1.0
"""A device's heartbeats are written down no more often."""

Register = Callable[[Raw], Awaitable[None]]


class Conversation:
    """Of one socket. `member` is whoever has registered on it, and None before and after."""

    def __init__(self, parts: Parts, outbox: Outbox, notes: DeviceNotes, register: Register, end: End) -> None:
        self._parts = parts
        self._outbox = outbox
        self._notes = notes
        self._register = register
        self._end = end
        self.member: Member | None = None
        self.was_unlinked = False
        self._active_session_id: str | None = None
        self._noted_at = -NOTE_SECONDS

    async def take_text(self, text: str) -> None:
        try:
            is_large = len(text) > LARGE_CHARACTERS
            await self._take(await trio.to_thread.run_sync(read_text, text) if is_large else read_text(text))
        except MessageInvalid as error:
            self.tell_error(error.code, str(error))
        except CallInvalid as error:
            self._refuse_call(error.call_id, error.failure)
        except StorageError:
            self.tell_error("unavailable", "this cannot be done right now: try again")

    def take_bytes(self, data: bytes) -> None:
        if self.member is not None:
            self._parts.terminals.pass_on(self.member, data)

    def tell_error(self, code: str, message: str) -> None:
        self._outbox.put_text(build_error(code, message, datetime.now(UTC)))

    async def _take(self, said: Said) -> None:
        match said.type:
            case "heartbeat":
                await self._take_heartbeat(said.payload)
            case "ping":
                self._outbox.put_text(PONG)
            case "pong":
                return
            case "register":
                await self._register(said.payload)
            case _ if said.type not in _NEED_MEMBER:
                raise MessageInvalid("unknownMessageType", "there is no message of this type")
            case _ if self.member is None:
                raise MessageInvalid("notRegistered", "register on this socket first")
            case _:
                await self._take_of_member(self.member, said)

    async def _take_of_member(self, member: Member, said: Said) -> None:
        parts = self._parts
        match said.type:
            case "event":
                await self._publish(member, said.payload)
            case "rpc.request":
                await self._call(member, said.payload)
            case "rpc.response":
                await parts.calls.answer(member, read_response(said.payload))
            case "event-ack":
                if (event_id := read_ack(said.payload)) is not None:
                    parts.events.note_ack(member, event_id)
            case "terminal.binary.bind":
                await parts.terminals.bind(member, read_bind(said.payload))
            case "terminal.binary.unbind":
                await parts.terminals.unbind(member, read_unbind(said.payload))

    async def _call(self, member: Member, payload: Raw) -> None:
        request = read_call(payload)
        try:
            await self._parts.calls.call(member, request)
        except StorageError:
            self._refuse_call(request.id, OFFLINE)

    def _refuse_call(self, call_id: str, failure: Failure) -> None:
        self._outbox.put_text(build_answer(build_failure(call_id, failure)))

    async def _publish(self, member: Member, payload: Raw) -> None:
        said = read_event(payload)
        effects = find_effects(said)
        if effects.hint is not None:
            await self._tell(member, NewEvent(HINT, effects.hint, *_source(member), is_kept=False))
        await self._follow(member, effects)
        event = NewEvent(
            said.event_type,
            said.payload,
            *_source(member),
            effects.is_kept,
            effects.newest_of,
            connected_at=member.held.link.connected_at,
        )
        await self._tell(member, event)
        if effects.is_visible is False:
            self._end(HIDDEN, "remote access was switched off")

    async def _tell(self, member: Member, event: NewEvent) -> None:
        """While Redis is away, those on this process hear of it, and nobody else."""
        with suppress(RedisUnavailable):
            if event_id := await self._parts.events.publish(member.user_id, event):
                member.last_event_id = event_id

    async def _follow(self, member: Member, effects: Effects) -> None:
        devices, owner = self._parts.devices, (member.user_id, member.device_id)
        if effects.project_directory is not None:
            self._notes.put("project", partial(devices.note_project, *owner, effects.project_directory))
        if (is_visible := effects.is_visible) is not None:
            self._notes.put("visibility", partial(devices.note_visibility, *owner, is_visible=is_visible))
            with suppress(RedisUnavailable):
                await self._parts.presence.set_visible(member.held, is_visible=is_visible)

    async def _take_heartbeat(self, payload: Raw) -> None:
        """A device that was unlinked is sent away, so that it registers anew, or stays away."""
        self._outbox.put_text(PONG)
        if self.was_unlinked:
            self._end(UNLINKED, "this device was unlinked: register it")
        if (member := self.member) is None:
            return
        heartbeat = read_heartbeat(payload)
        if (now := trio.current_time()) - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            self._notes.put("heartbeat", partial(self._note_heartbeat, member, heartbeat.vitals))
        session_id = heartbeat.active_session_id
        if member.is_desktop and session_id is not None and session_id != self._active_session_id:
            self._active_session_id = session_id
            await self._tell(member, NewEvent(HINT, build_hint(session_id), *_source(member), is_kept=False))

    async def _note_heartbeat(self, member: Member, vitals: Vitals) -> None:
        """A device that is not known any more, though it is connected, had to make room for others of its user."""
        noted_at = await self._parts.devices.note_heartbeat(member.user_id, member.device_id, vitals)
        if noted_at is None and self.member is member:
            await self._parts.presence.drop(member.user_id, member.device_id)
            self._end(UNLINKED, "this device is not known any more: register it")


_NEED_MEMBER = frozenset(
    {"event", "rpc.request", "rpc.response", "event-ack", "terminal.binary.bind", "terminal.binary.unbind"}
)


def _source(member: Member) -> tuple[Source, UUID]:
    return member.client_type, member.device_id
