"""Letters to other processes, over Redis: in order from one process to another, each once, or known not to arrive.

Every process reads a stream of its own, `relay:<instance>`, that it makes at its start. Which processes live, a sorted
set says that each renews every two seconds, by Redis's clock.

What Redis may have done is done again: the receiver knows each letter by its sender's number for it. What is lost all
the same, as Redis was away for too long or has lost its memory, both sides hear of, as of a process that is gone.
"""

import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import trio

from server.relay.letters import Arrivals, Draft, Header, read_body, read_header
from server.relay.line import Line, Lines
from server.relay.liveness import Liveness, Tempo
from storage.errors import RedisUnavailable
from storage.redis import Redis, open_redis
from storage.redis_wire import Wire, open_wire
from storage.relay_instances import RelayInstances
from storage.relay_streams import START, Arrived, Entry, RelayStreams

MOST_BYTES = 128 * 1024 * 1024
"""So much waits to leave a process at most; more is refused."""
AWAY_SECONDS = 1.0
"""A Redis that has not answered for so long is away: until then what is sent waits for it."""
WAIT_SECONDS = 1.0
"""So long one read waits for letters."""
RETRY_SECONDS = 0.05
LOOK_AGAIN_SECONDS = 0.25
"""Who lives is asked at most so often."""
TRIM_BYTES, TRIM_ENTRIES = 4 * 1024 * 1024, 1000
"""What was read is dropped when it is so much, or when nothing comes."""
LEAVE_SECONDS = 2.0
FAREWELL_SECONDS = 1.0

logger = logging.getLogger(__name__)

NOBODY = UUID(int=0)
FAREWELL = "farewell"
"""The last letter of a process that stops."""

Body = TypeVar("Body", bound=msgspec.Struct)

Handler = Callable[["Letter", Any], Awaitable[None]]
"""Called one after the other, in the order of each sender: must not wait for a client."""
CatchUp = Callable[[UUID, int], Awaitable[None]]
"""Brings a user's events up to an id."""
HearInstance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Letter:
    """What came. `blob` is bytes as they are (a text frame, a terminal frame)."""

    sender: str
    user_id: UUID
    kind: str
    blob: bytes = field(repr=False)


class Farewell(msgspec.Struct, array_like=True):
    pass


@dataclass(frozen=True, slots=True)
class _Reader:
    decoder: msgspec.json.Decoder[Any]
    handle: Handler


class Bridge:
    """One per process. `instance` is its name: new at every start."""

    def __init__(
        self,
        redis: Redis,
        sending: Wire,
        reading: Wire,
        catch_up: CatchUp,
        *,
        tempo: Tempo | None = None,
        instance: str | None = None,
    ) -> None:
        self.instance = instance or secrets.token_hex(8)
        self._tempo = tempo or Tempo()
        self._instances = RelayInstances(redis, self._tempo.expiry_seconds)
        self._streams, self._inbox = RelayStreams(sending), RelayStreams(reading)
        self._catch_up = catch_up
        self._liveness = Liveness(self.instance, self._tempo)
        self._readers: dict[str, _Reader] = {}
        self._lost: list[HearInstance] = []
        self._gone: list[HearInstance] = []
        self._written_off: list[Callable[[], None]] = []
        self._lines = Lines(self.instance)
        self._senders: trio.Nursery | None = None
        self._arrivals = Arrivals()
        self._position = START
        self._read_at = self._census_at = -math.inf
        self._must_read_anew = False
        self._unanswered_since: float | None = None
        self._look = trio.Event()

    def handle(self, kind: str, body_type: type[Body], handler: Callable[[Letter, Body], Awaitable[None]]) -> None:
        """Before the loops run. One handler for each kind."""
        if kind in self._readers:
            raise ValueError(f"letters of the kind {kind} have a handler")
        self._readers[kind] = _Reader(msgspec.json.Decoder(body_type), handler)

    def hear_lost(self, listener: HearInstance) -> None:
        """Called with each instance that is gone, once; also for one that letters cannot reach, and for one whose
        letters, or ours to it, may have been lost. Must not wait.
        """
        self._lost.append(listener)

    def hear_gone(self, listener: HearInstance) -> None:
        """Called with each instance that is gone, once, before `hear_lost`. Must not wait."""
        self._gone.append(listener)

    def hear_written_off(self, listener: Callable[[], None]) -> None:
        """Called when the others think, or have thought, that this process is gone. Must not wait."""
        self._written_off.append(listener)

    def is_alive(self, instance: str) -> bool:
        """As of two seconds ago. True for this one, and for all while Redis is away."""
        if not self._liveness.knows(instance):
            self._look.set()
        return self._liveness.is_alive(instance)

    async def find_others(self) -> Collection[str]:
        """Who else lives, as Redis says now. Raises RedisUnavailable."""
        await self._note_census()
        return self._liveness.others

    def find_last_sign(self, instance: str) -> float:
        """When one that is gone was last known to live, by Trio's clock; now, for one that is not gone."""
        return self._liveness.find_last_sign(instance)

    @property
    def is_away(self) -> bool:
        """Redis does not answer."""
        since = self._unanswered_since
        return since is not None and trio.current_time() - since >= AWAY_SECONDS

    def send(
        self, instance: str, user_id: UUID, kind: str, body: msgspec.Struct, blob: bytes = b"", *, after_event: int = 0
    ) -> bool:
        """Never waits: letters leave in order, in the background. False if the instance is known to be gone, or Redis
        to be away, or if far too much waits. With `after_event` the receiver brings that user's events up to that id
        before it handles this.
        """
        if self.is_away or not self.is_alive(instance) or self._lines.waiting_bytes + len(blob) > MOST_BYTES:
            return False
        line = self._lines.open(instance)
        line.put(Draft(user_id, kind, body, blob, after_event))
        self._start_sending(line)
        return True

    async def wait_room(self, instance: str) -> None:
        """For who sends large letters: until not too much waits to leave."""
        if (line := self._lines.find(instance)) is not None:
            await line.wait_room()

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return self._keep_looking, self._keep_sending, self._keep_reading

    async def join(self) -> None:
        """Called once, before the others may hear of us. Raises RedisUnavailable."""
        await self._streams.keep(self.instance)
        await self._note_census()

    async def leave(self) -> None:
        """What waits is sent, if that is done soon; then we are gone, and the others are told so. For the end, when no
        loop runs.
        """
        with trio.move_on_after(FAREWELL_SECONDS), suppress(RedisUnavailable):
            await self._instances.leave(self.instance)
            for instance in self._liveness.others:
                self.send(instance, NOBODY, FAREWELL, Farewell())
            for line in self._lines:
                while line and await self._streams.add(line.instance, batch := line.peek()) == "added":
                    line.note_left(batch)
        with suppress(RedisUnavailable):
            await self._streams.remove(self.instance)

    async def _keep_looking(self) -> None:
        while True:
            pause, asked_at = self._tempo.renew_seconds, trio.current_time()
            try:
                await self._look_around()
            except RedisUnavailable as error:
                self._note_unanswered(error, asked_at)
                pause /= 4
            await trio.sleep(min(pause, LOOK_AGAIN_SECONDS))
            with trio.move_on_after(max(0, pause - LOOK_AGAIN_SECONDS)):
                await self._look.wait()
            self._look = trio.Event()

    async def _look_around(self) -> None:
        """Others, and our own stream. Raises RedisUnavailable."""
        was_written_off = await self._note_census()
        is_made_anew = await self._streams.keep(self.instance)
        if is_made_anew and not was_written_off:
            self._note_written_off()

    async def _note_census(self) -> bool:
        """Whether the others have written us off."""
        asked_at = trio.current_time()
        verdict = self._liveness.note(await self._instances.renew(self.instance), asked_at)
        self._census_at = max(self._census_at, asked_at)
        self._note_answered()
        for instance in verdict.gone:
            logger.warning("a process is gone", extra={"instance": instance})
            self._note_gone(instance)
        if verdict.was_written_off:
            self._note_written_off()
        return verdict.was_written_off

    def _note_gone(self, instance: str) -> None:
        if (line := self._lines.find(instance)) is not None:
            line.drop()
            self._lines.forget(line)
        _tell(self._gone, instance)
        self._tell_lost(instance)

    def _note_written_off(self) -> None:
        """Whoever thinks that we are gone sends us nothing, and Redis may have lost what was on its way."""
        logger.warning("other processes may think that this one is gone: what it shared with them is taken for lost")
        self._must_read_anew = True
        for instance in self._liveness.others:
            self._tell_lost(instance)
        _tell(self._written_off)

    def _tell_lost(self, instance: str) -> None:
        _tell(self._lost, instance)

    async def _keep_sending(self) -> None:
        async with trio.open_nursery() as nursery:
            self._senders = nursery
            try:
                for line in self._lines:
                    self._start_sending(line)
                await trio.sleep_forever()
            finally:
                self._senders = None

    def _start_sending(self, line: Line) -> None:
        if self._senders is not None and not line.is_busy:
            line.is_busy = True
            self._senders.start_soon(self._send_all, line)

    async def _send_all(self, line: Line) -> None:
        line.is_busy = True
        try:
            while line:
                await self._send_some(line)
        finally:
            line.is_busy = False
            if self._liveness.is_gone(line.instance):
                self._lines.forget(line)

    async def _send_some(self, line: Line) -> None:
        """A letter that was refused or whose fate is unknown stays where it is, with all that wait behind it."""
        entries, asked_at, is_first_try = line.peek(), trio.current_time(), self._unanswered_since is None
        try:
            outcome = await self._streams.add(line.instance, entries)
        except RedisUnavailable as error:
            self._note_unanswered(error, asked_at)
            if not is_first_try:
                await self._pause_or_give_up(line)
            return
        self._note_answered()
        if outcome == "added":
            line.note_left(entries)
            return
        if outcome == "missing":
            self._look.set()
        await self._pause_or_give_up(line)

    async def _pause_or_give_up(self, line: Line) -> None:
        if line.age_seconds > self._tempo.undeliverable_seconds:
            logger.warning("letters to another process were given up", extra={"instance": line.instance})
            line.drop()
            self._tell_lost(line.instance)
        await trio.sleep(RETRY_SECONDS)

    async def _keep_reading(self) -> None:
        unread_bytes = unread_entries = 0
        while True:
            if self._must_read_anew:
                self._position, self._must_read_anew = START, False
                unread_bytes = unread_entries = 0
            try:
                arrived = await self._inbox.read(self.instance, self._position, WAIT_SECONDS)
                self._read_at = trio.current_time()
                for one in arrived:
                    await self._receive(one)
                unread_bytes += sum(one.entry.size_bytes for one in arrived)
                unread_entries += len(arrived)
                if unread_bytes > TRIM_BYTES or unread_entries > TRIM_ENTRIES or (unread_entries and not arrived):
                    await self._streams.trim(self.instance, self._position, unread_bytes)
                    unread_bytes = unread_entries = 0
            except RedisUnavailable:
                self._look.set()  # whether Redis is away, or it was only this connection
                await trio.sleep(RETRY_SECONDS)

    async def _receive(self, arrived: Arrived) -> None:
        self._position = arrived.position
        try:
            await self._read(arrived.entry)
        except Exception:  # the edge of the letter: the next one is for somebody else
            logger.exception("a letter of another process was not handled")

    async def _read(self, entry: Entry) -> None:
        header = read_header(entry)
        if self._liveness.is_gone(header.sender) and self._census_at < self._read_at:
            await self._look_for(header.sender)
        is_missing = self._arrivals.is_missing(header)
        received = self._arrivals.add(header, entry.blob)
        if is_missing:
            logger.warning("letters of another process are missing", extra={"instance": header.sender})
            self._tell_lost(header.sender)
        if received is not None:
            await self._handle(received.header, received.blob)

    async def _look_for(self, sender: str) -> None:
        """One that was gone has written: it is back, or wrote this before it went. Who is back is to be answered."""
        with suppress(RedisUnavailable):
            await self._note_census()
        if self._liveness.is_alive(sender):
            logger.info("a process that was gone is back", extra={"instance": sender})

    async def _handle(self, header: Header, blob: bytes) -> None:
        if header.kind == FAREWELL:
            if self._liveness.note_farewell(header.sender):
                logger.info("a process has left", extra={"instance": header.sender})
                self._note_gone(header.sender)
            return
        reader = self._readers.get(header.kind)
        if reader is None:
            logger.warning("a letter of a kind that nobody reads has come", extra={"kind": header.kind})
            return
        body = read_body(header, reader.decoder)
        if header.after_event:
            await self._bring_events(header)
        await reader.handle(Letter(header.sender, header.user_id, header.kind, blob), body)

    async def _bring_events(self, header: Header) -> None:
        """Without Redis an event may be overtaken by a response: better than a response that never comes."""
        with suppress(RedisUnavailable):
            await self._catch_up(header.user_id, header.after_event)

    def _note_answered(self) -> None:
        if self.is_away:
            logger.info("letters to other processes leave again")
        self._unanswered_since = None

    def _note_unanswered(self, error: RedisUnavailable, asked_at: float) -> None:
        if self._unanswered_since is None:
            self._unanswered_since = asked_at
            logger.warning("letters to other processes do not leave for now: %s", error)


def _tell(listeners: Iterable[Callable[..., None]], *what: str) -> None:
    for listener in listeners:
        try:
            listener(*what)
        except Exception:  # the edge of the listener's work: the next one is to hear of it all the same
            logger.exception("what became of a process was not taken in")


@asynccontextmanager
async def open_bridge(
    redis_url: str, catch_up: CatchUp, tempo: Tempo | None = None, instance: str | None = None
) -> AsyncIterator[Bridge]:
    """Its connections are its own. The loops run in the block; when it ends, the process is gone for the others. Raises
    RedisUnavailable.
    """
    async with open_redis(redis_url) as redis, open_wire(redis) as sending, open_wire(redis) as reading:
        bridge = Bridge(redis, sending, reading, catch_up, tempo=tempo, instance=instance)
        await bridge.join()
        try:
            yield bridge
        finally:
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await bridge.leave()
