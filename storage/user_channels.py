"""What concerns a user, as Redis tells it at once to every process that listens: pub/sub over one connection.

https://redis.io/docs/latest/develop/pubsub/: what is told while nobody listens is lost. So whoever is subscribed anew
hears that something may have been missed. The client's own pub/sub is not used: it connects again without a word, and
what has come waits in a queue without an end. Of its connection we use what is public, and count the bytes.
"""

import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

import trio
from coredis.connection import BaseConnection
from coredis.exceptions import RedisError

from storage.device_events import events_channel
from storage.errors import RedisUnavailable
from storage.redis import Redis, open_redis, redis_deadline

PING_SECONDS = 2.0
"""A connection that is silent is asked so often whether it lives."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 0.5
CONFIRM_SECONDS = 1.0
"""Nobody waits longer to be subscribed. Who is later hears of it as after a lost connection."""
MOST_BYTES = 64 * 1024 * 1024
"""More may not wait to be heard: then the connection is given up, and whoever listens reads what it needs."""
SUBSCRIBED_AT_ONCE = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """`message` is None where this user's messages may have been missed: it is subscribed anew, from now on."""

    user_id: UUID
    message: bytes | None = field(repr=False)


@dataclass(eq=False, slots=True)
class _Line:
    """A connection that listens. `asked`: the channels that it is to hear, `confirmed`: those that it does. `awaited`:
    who waits for a channel to be confirmed, in the order of asking.
    """

    connection: BaseConnection
    pushes: AsyncGenerator[Sequence[Any], None]
    asked: set[bytes] = field(default_factory=set)
    confirmed: set[bytes] = field(default_factory=set)
    awaited: dict[bytes, deque[trio.Event]] = field(default_factory=dict)
    heard_bytes: int = 0

    def ask(self, channels: Sequence[bytes]) -> trio.Event:
        """To be told on them. The event is that of the last."""
        self.connection.send_command(b"SUBSCRIBE", *channels)
        self.asked.update(channels)
        for channel in channels:
            self.awaited.setdefault(channel, deque()).append(trio.Event())
        return self.awaited[channels[-1]][-1]

    def drop(self, channel: bytes) -> None:
        self.asked.discard(channel)
        self.confirmed.discard(channel)
        if self.connection.usable:
            self.connection.send_command(b"UNSUBSCRIBE", channel)

    def confirm(self, channel: bytes) -> None:
        """Of a channel that was dropped meanwhile, and asked for again, the last confirmation counts."""
        waiting = self.awaited[channel]
        waiting.popleft().set()
        if not waiting:
            del self.awaited[channel]
            if channel in self.asked:
                self.confirmed.add(channel)

    @property
    def is_overrun(self) -> bool:
        """What we count is less than what came; the rest is found out when too much seems to wait."""
        statistics = self.connection.statistics
        if statistics.bytes_read - self.heard_bytes <= MOST_BYTES:
            return False
        if self.connection.reusable:  # nothing waits
            self.heard_bytes = statistics.bytes_read
        return self.heard_bytes < statistics.bytes_read

    def end(self) -> None:
        for waiting in self.awaited.values():
            for event in waiting:
                event.set()


class UserChannels:
    """One per process. `wait_told` and `keep_alive` each run in one task. `redis` has no other user: a connection that
    listens can do nothing else.
    """

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._users: dict[bytes, UUID] = {}
        self._late: set[bytes] = set()
        """Channels whose users are to hear of it when they are subscribed."""
        self._line: _Line | None = None
        self._failures = 0

    async def subscribe(self, user_id: UUID) -> bool:
        """True once Redis says so. False if it does not answer: `wait_told` tells of the user when it is subscribed
        after all. Safe to repeat.
        """
        channel = events_channel(user_id).encode()
        self._users[channel] = user_id
        if self._line is not None and channel not in self._line.confirmed:
            await _wait_confirmed(self._line, channel)
        if self._line is not None and channel in self._line.confirmed:
            return True
        if channel in self._users:
            self._late.add(channel)
        return False

    def is_subscribed(self, user_id: UUID) -> bool:
        return self._line is not None and events_channel(user_id).encode() in self._line.confirmed

    def unsubscribe(self, user_id: UUID) -> None:
        channel = events_channel(user_id).encode()
        self._users.pop(channel, None)
        self._late.discard(channel)
        if self._line is not None:
            self._line.drop(channel)

    async def wait_told(self) -> Told:
        """The next thing to hear. An outage is logged, once, and outwaited. Cancelling it gives the connection up."""
        while True:
            if self._line is None:
                await self._try_to_connect()
            elif (told := await self._hear(self._line)) is not None:
                return told

    async def keep_alive(self) -> None:
        """Never returns. Finds connections that are dead and do not know it."""
        while True:
            await trio.sleep(PING_SECONDS)
            if self._line is not None:
                connection = self._line.connection
                try:
                    with redis_deadline():
                        await connection.create_request(b"PING")
                except RedisUnavailable:
                    connection.invalidate()

    def close_nowait(self) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            line.connection.invalidate()
            self._pool.release(line.connection)
            line.end()
        self._late.update(self._users)

    async def _hear(self, line: _Line) -> Told | None:
        is_heard = False
        try:
            told = self._read(line, await anext(line.pushes))
            if line.is_overrun:
                raise RedisUnavailable("more was told than could be heard")
            is_heard = True
            return told
        except (RedisError, RedisUnavailable) as error:
            self._note_lost(error)
            return None
        finally:
            if not is_heard:
                self.close_nowait()

    def _read(self, line: _Line, push: Sequence[Any]) -> Told | None:
        kind, channel, value = push
        if kind == b"message":
            line.heard_bytes += len(value) + len(channel)
            user_id = self._users.get(channel)
            return None if user_id is None else Told(user_id, value)
        if kind == b"subscribe":
            line.confirm(channel)
            if channel in self._late and channel in line.confirmed:
                self._late.discard(channel)
                return Told(self._users[channel], None)
        return None

    async def _try_to_connect(self) -> None:
        await trio.sleep(self._find_pause())
        try:
            with redis_deadline():
                connection = await self._pool.get_connection()
            self._line = _Line(connection, connection.push_messages)
            self._late.update(self._users)
            for channels in _split(self._users):
                self._line.ask(channels)
        except (RedisUnavailable, RedisError) as error:
            self.close_nowait()
            self._note_lost(error)
            return
        self._note_listening()

    def _find_pause(self) -> float:
        """Between two tries: twice as long each time, and not the same for all who lost the same Redis."""
        if not self._failures:
            return 0
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311 - not for secrets

    def _note_lost(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            extra = {"reason": str(error)}
            logger.warning("nothing listens to Redis for now: devices hear of things later", extra=extra)

    def _note_listening(self) -> None:
        if self._failures:
            logger.info("listening to Redis again")
        self._failures = 0


@asynccontextmanager
async def open_user_channels(redis_url: str) -> AsyncIterator[UserChannels]:
    """Raises RedisUnavailable, saying what to check, if Redis does not answer now."""
    async with open_redis(redis_url) as redis:
        channels = UserChannels(redis)
        try:
            yield channels
        finally:
            channels.close_nowait()


async def _wait_confirmed(line: _Line, channel: bytes) -> None:
    """Or for the connection to end, or too long."""
    if channel in line.asked:
        event = line.awaited[channel][-1]
    elif line.connection.usable:
        event = line.ask([channel])
    else:
        return
    with trio.move_on_after(CONFIRM_SECONDS):
        await event.wait()


def _split(channels: dict[bytes, UUID]) -> Iterator[Sequence[bytes]]:
    left = iter(tuple(channels))
    while chunk := tuple(islice(left, SUBSCRIBED_AT_ONCE)):
        yield chunk
