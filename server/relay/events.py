"""Events of a user's devices: numbered, kept for a day, told live in order, and replayed to who was away.

Every process with somebody of the user keeps a lane: it follows the user's channel from number to number. Where one is
missing, it is read from the history; so what a lost connection has swallowed is made good, whoever has lost it.
"""

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from secrets import token_hex
from uuid import UUID

import trio

from server.relay.channels import Channels
from server.relay.cursors import Cursors
from server.relay.event_frames import About, NewEvent, Source, build_body, read_body, read_status
from server.relay.event_rules import find_track, find_tracks, is_for_device
from server.relay.history import History
from server.relay.lanes import Happening, Lane, Seat
from server.relay.late_events import LateEvent, LateEvents
from server.relay.member import Member
from server.relay.outbox import Outbox
from server.relay.roster import Roster
from storage.errors import RedisUnavailable
from storage.event_stream import TRACKS, EventStream, Teller, read_message
from storage.presence import ClientType
from storage.redis import COMMAND_SECONDS

__all__ = ["Events", "NewEvent", "Source"]

ON_ITS_WAY_SECONDS = 0.05
"""So long an event that others have published before ours may take to come by itself."""
HEALERS = 4
"""So many lanes are brought forward at once after an outage."""
PAUSE_SECONDS = 0.3
AWAY_ANSWER_SECONDS = 0.2
"""The longest that who publishes waits for a Redis that is known to be away,"""
ASK_AGAIN_TIMES = 5
"""which is not asked again for so many times as long: a device would wait for each of its events, and so would whoever
waits for its answers.
"""
LAST_WORD_SECONDS = 2.0
UNSURE_MICROSECONDS = 60_000_000
"""How far our clock may be ahead of Redis's, where nothing else says how its events are numbered."""

logger = logging.getLogger(__name__)


class Events:
    """One per process; made after the roster, which has to hear of changed links first. Registers what it listens to
    when it is made: before any loop runs.
    """

    def __init__(self, stream: EventStream, channels: Channels, roster: Roster) -> None:
        self._stream = stream
        self._channels = channels
        self._roster = roster
        self._history = History(stream)
        self._cursors = Cursors(stream)
        self._late = LateEvents()
        self._lanes: dict[UUID, Lane] = {}
        self._origin = token_hex(6)
        self._numbers = count(1)
        self._is_away = False
        self._ask_again_at = -math.inf
        self._torn: dict[UUID, None] = {}
        self._has_torn = trio.Event()
        channels.hear("event", self._hear_event)
        channels.hear("status", self._hear_status)
        channels.hear("links", self._hear_links)
        channels.hear_lost(self._hear_lost)

    async def publish(self, user_id: UUID, event: NewEvent) -> int:
        """Its id; 0 if it has none. It has none either, and nobody hears of it, if it is a desktop's that is not the
        primary one, or if a newer connection of its device has told one. Members of this process have been given it
        when this returns. Raises RedisUnavailable; then members of this process have been given it nevertheless,
        without an id, and others are as soon as Redis is back, if it is to be kept.
        """
        if await self._is_muted(user_id, event):
            return 0
        token = f"{self._origin}.{next(self._numbers)}"
        body = build_body(event, token, datetime.now(UTC))
        if event.is_kept:
            return await self._append(user_id, event, token, body)
        if (lane := self._lanes.get(user_id)) is not None:
            lane.tell(*read_body(body))
        with self._short_deadline():
            await self._stream.tell(user_id, body, token)
        return 0

    async def find_last(self, user_id: UUID) -> int | None:
        """The number of the user's last event, to be joined with: for who is to hear of everything from now on, however
        long it takes until it joins. None while Redis is away.
        """
        try:
            with self._short_deadline():
                return await self._stream.find_last(user_id)
        except RedisUnavailable:
            return None

    @asynccontextmanager
    async def join(self, member: Member, last_event_id: int | None, *, is_resumed: bool) -> AsyncIterator[None]:
        """What was missed is in the member's outbox when the block begins, and what happens from then on follows, until
        it ends. `last_event_id` is what the device says it has seen last. While Redis is away the block begins
        nevertheless, and what was missed comes as soon as Redis is back.
        """
        seat = Seat(
            outbox=member.outbox,
            takes=partial(_is_for_member, member.client_type, member.device_id),
            tracks=find_tracks(member.client_type),
            device_id=member.device_id,
            is_desktop=member.is_desktop,
        )
        async with self._sit(member.user_id, seat) as lane:
            try:
                await self._seat(member, lane, seat, last_event_id, is_resumed=is_resumed)
                yield
            finally:
                with trio.move_on_after(LAST_WORD_SECONDS, shield=True):
                    await self._leave(member)

    @asynccontextmanager
    async def watch(
        self, user_id: UUID, outbox: Outbox, last_event_id: int | None, wants: Callable[[str], bool]
    ) -> AsyncIterator[None]:
        """For `/ws/events`: everything of the types that it wants. No replay without `last_event_id`. Raises
        RedisUnavailable at its start only.
        """
        seat = Seat(outbox, partial(_is_wanted, wants), TRACKS)
        async with self._sit(user_id, seat) as lane:
            if lane.tail is None:
                await self._history.heal(user_id, lane)
            seat.cursor = lane.tail if last_event_id is None else last_event_id
            await self._history.replay(user_id, lane, seat)
            yield

    def note_ack(self, member: Member, event_id: int) -> None:
        """The device has seen everything up to here. Written down now and then."""
        lane = self._lanes.get(member.user_id)
        if lane is not None and 0 < event_id <= lane.highest:
            self._cursors.note(member.user_id, member.device_id, event_id)

    async def catch_up(self, user_id: UUID, event_id: int) -> None:
        """Members of this process have been given all events of the user up to this id when it returns; while Redis is
        away, those that could be had.
        """
        lane = self._lanes.get(user_id)
        if lane is None or lane.has(event_id):
            return
        if self._channels.hears(user_id):
            with trio.move_on_after(ON_ITS_WAY_SECONDS):
                await lane.wait_for(event_id)
                return
        try:
            await self._history.heal(user_id, lane)
        except RedisUnavailable:
            self._note_torn(user_id)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return (self._cursors.keep_noting, *[self._keep_healing] * HEALERS)

    async def _append(self, user_id: UUID, event: NewEvent, token: str, body: bytes) -> int:
        lane = self._lanes.get(user_id)
        floor = time.time_ns() // 1000 - UNSURE_MICROSECONDS if lane is None else lane.highest
        late = LateEvent(find_track(event), body, token, event.newest_of or "", floor)
        try:
            await self._append_late(user_id)
            return await self._append_now(user_id, late, _find_teller(event))
        except RedisUnavailable:
            if (lane := self._lanes.get(user_id)) is not None:
                lane.tell_early(*read_body(body))
            self._late.add(user_id, late)
            self._note_torn(user_id)
            raise

    async def _append_now(self, user_id: UUID, event: LateEvent, teller: Teller | None = None) -> int:
        """0 if a newer connection of its device has told one: nobody hears of it. An event that had to wait is told all
        the same: its device thinks that it was.
        """
        lane = self._lanes.get(user_id)
        floor = 0 if lane is None else lane.highest
        with self._short_deadline():
            appended = await self._stream.append(
                user_id,
                event.track,
                event.body,
                event.token,
                newest_of=event.newest_of,
                floor=floor,
                teller=teller,
            )
        if not appended.id:
            return 0
        if (lane := self._lanes.get(user_id)) is not None:
            happening = Happening(appended.id, *read_body(event.body))
            if not lane.arrive(appended.previous, happening):
                await self.catch_up(user_id, appended.id)
        return appended.id

    async def _append_late(self, user_id: UUID) -> None:
        """What has waited for Redis goes first. Raises RedisUnavailable; then the rest goes on waiting."""
        if (line := self._late.find(user_id)) is None:
            return
        async with line.turn:
            if not line.events:
                return
            with self._short_deadline():
                known = await self._history.find_tokens(user_id, line.events[0].floor)
            while line.events:
                if line.events[0].token not in known:
                    await self._append_now(user_id, line.events[0])
                self._late.drop_first(user_id)

    @contextmanager
    def _short_deadline(self) -> Iterator[None]:
        """Raises RedisUnavailable, at once where Redis is known to be away and has kept somebody waiting."""
        asked_at = trio.current_time()
        if self._is_away and asked_at < self._ask_again_at:
            raise RedisUnavailable("an event was not kept, for Redis is away")
        try:
            with trio.fail_after(AWAY_ANSWER_SECONDS if self._is_away else COMMAND_SECONDS):
                yield
        except (RedisUnavailable, trio.TooSlowError) as error:
            waited_seconds = min(trio.current_time() - asked_at, AWAY_ANSWER_SECONDS)
            self._is_away, self._ask_again_at = True, trio.current_time() + ASK_AGAIN_TIMES * waited_seconds
            raise RedisUnavailable("an event was not kept, for Redis did not answer") from error
        self._is_away = False

    async def _is_muted(self, user_id: UUID, event: NewEvent) -> bool:
        """A device whose link is not known yet has just come, and is not."""
        if event.source != "desktop" or event.source_device_id is None:
            return False
        primary = await self._roster.find_primary(user_id)
        if primary is None or primary.device_id == event.source_device_id:
            return False
        return await self._roster.find(user_id, event.source_device_id) is not None

    @asynccontextmanager
    async def _sit(self, user_id: UUID, seat: Seat) -> AsyncIterator[Lane]:
        async with self._channels.keep(user_id):
            lane = self._lanes.setdefault(user_id, Lane())
            lane.seats[seat] = None
            try:
                yield lane
            finally:
                del lane.seats[seat]
                if not lane.seats:
                    del self._lanes[user_id]

    async def _seat(
        self, member: Member, lane: Lane, seat: Seat, last_event_id: int | None, *, is_resumed: bool
    ) -> None:
        user_id = member.user_id
        seat.cursor = None if last_event_id is None else max(0, last_event_id)
        if seat.is_desktop:
            self._roster.note_changed(user_id)  # its own link is new, and perhaps not heard of yet
            await self._refresh_primary(user_id, lane)
        try:
            if lane.tail is None:
                await self._history.heal(user_id, lane)
            if last_event_id is None and not is_resumed:
                seat.cursor = lane.tail
            seen = seat.cursor  # what it is about to be told it has not seen yet: it may be cut off before
            await self._history.replay(user_id, lane, seat)
        except RedisUnavailable:
            seat.is_stranded = True
            if last_event_id is None and not is_resumed:
                seat.cursor = seat.cursor or time.time_ns() // 1000  # as Redis would number an event now
            self._note_torn(user_id)
            return
        if seen is not None and seen <= lane.highest:
            self._cursors.note(user_id, member.device_id, seen)

    async def _leave(self, member: Member) -> None:
        """What it has told goes before what it tells elsewhere."""
        with suppress(RedisUnavailable):
            await self._append_late(member.user_id)
        await self._cursors.write(member.user_id)

    async def _refresh_primary(self, user_id: UUID, lane: Lane) -> None:
        primary = await self._roster.find_primary(user_id)
        lane.primary_id = None if primary is None else primary.device_id

    async def _hear_event(self, user_id: UUID, said: bytes) -> None:
        if (lane := self._lanes.get(user_id)) is None:
            return
        message = read_message(said)
        if message.id and lane.has(message.id):
            return
        body: bytes | None = message.body
        if message.token:
            if not message.id and self._is_ours(message.token):
                return
            body = await self._fetch_large(user_id, message.token)
        if body is None:
            self._note_torn(user_id)
            return
        about, head = read_body(body)
        if message.id:
            if not lane.arrive(message.previous, Happening(message.id, about, head)):
                self._note_torn(user_id)
        elif not self._is_ours(about.token):
            lane.tell(about, head)

    async def _fetch_large(self, user_id: UUID, token: str) -> bytes | None:
        """None if it cannot be had any more, or now: then whoever misses it is told so out of the history."""
        try:
            return await self._stream.fetch_large(user_id, token)
        except RedisUnavailable:
            return None

    async def _hear_status(self, user_id: UUID, said: bytes) -> None:
        if (lane := self._lanes.get(user_id)) is not None:
            lane.tell(*read_status(said, datetime.now(UTC)))

    async def _hear_links(self, user_id: UUID, _: bytes) -> None:
        lane = self._lanes.get(user_id)
        if lane is not None and lane.has_desktops:
            await self._refresh_primary(user_id, lane)

    async def _hear_lost(self, user_id: UUID) -> None:
        if user_id in self._lanes:
            self._note_torn(user_id)

    def _is_ours(self, token: str) -> bool:
        return token.startswith(self._origin)

    def _note_torn(self, user_id: UUID) -> None:
        self._torn[user_id] = None
        self._has_torn.set()

    async def _keep_healing(self) -> None:
        """Never returns."""
        while True:
            while not self._torn:
                if self._has_torn.is_set():
                    self._has_torn = trio.Event()
                await self._has_torn.wait()
            user_id = next(iter(self._torn))
            del self._torn[user_id]
            await self._try_to_heal(user_id)

    async def _try_to_heal(self, user_id: UUID) -> None:
        try:
            if (lane := self._lanes.get(user_id)) is not None:
                await self._refresh_primary(user_id, lane)
                await self._history.heal(user_id, lane)
            else:
                await self._stream.find_last(user_id)
            self._is_away = False  # it has answered within the long deadline
            await self._append_late(user_id)
        except RedisUnavailable:
            self._note_torn(user_id)
            await trio.sleep(PAUSE_SECONDS)
        except Exception:  # the edge of a task that serves everybody
            logger.exception("what a user's devices have missed could not be brought to them")


def _find_teller(event: NewEvent) -> Teller | None:
    device_id = event.source_device_id
    return None if device_id is None or not event.connected_at else Teller(device_id, event.connected_at)


def _is_for_member(client_type: ClientType, device_id: UUID, about: About, primary_id: UUID | None) -> bool:
    return is_for_device(about, client_type, device_id, primary_id)


def _is_wanted(wants: Callable[[str], bool], about: About, _: UUID | None) -> bool:
    return wants(about.event_type)
