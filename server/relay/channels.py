"""What concerns a user, told at once to every process that has a socket of theirs: a Redis channel for each user.

One connection carries all subscriptions. Whatever a lost connection has swallowed is made good by whoever listens:
after it is back, every kept user is told as `lost`.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from storage.user_channels import Told, UserChannels, open_user_channels

Hear = Callable[[UUID, bytes], Awaitable[None]]
"""A message of the kind, without its kind. Called one after the other in the order of the channel: must not wait for a
client; what it needs of Redis it may ask."""
HearLost = Callable[[UUID], Awaitable[None]]

logger = logging.getLogger(__name__)


class Channels:
    """A message is `<kind> <bytes>`: `event …` (events.py), `status …` (a device-status, or another event without an
    id), `links` (the roster is to be read anew), `ended …` (a sign-in, a key or an account has ended), and others.
    """

    def __init__(self, user_channels: UserChannels) -> None:
        self._user_channels = user_channels
        self._kept: Counter[UUID] = Counter()
        self._listeners: defaultdict[bytes, list[Hear]] = defaultdict(list)
        self._lost_listeners: list[HearLost] = []

    def hear(self, kind: str, listener: Hear) -> None:
        """Before the loops run. Several may hear one kind, each in the order in which they came."""
        self._listeners[kind.encode()].append(listener)

    def hear_lost(self, listener: HearLost) -> None:
        """Messages of this user may have been missed."""
        self._lost_listeners.append(listener)

    @asynccontextmanager
    async def keep(self, user_id: UUID) -> AsyncIterator[None]:
        """Subscribed, and confirmed to be, for as long as somebody is in the block. While Redis is away it begins
        nevertheless, and the user is told as lost when it is subscribed.
        """
        self._kept[user_id] += 1
        try:
            await self._user_channels.subscribe(user_id)
            yield
        finally:
            self._leave(user_id)

    def hears(self, user_id: UUID) -> bool:
        """False while there is no connection: what is told of the user now is missed."""
        return self._user_channels.is_subscribed(user_id)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return (self._listen, self._user_channels.keep_alive)

    def _leave(self, user_id: UUID) -> None:
        self._kept[user_id] -= 1
        if not self._kept[user_id]:
            del self._kept[user_id]
            self._user_channels.unsubscribe(user_id)

    async def _listen(self) -> None:
        """Never returns."""
        while True:
            await self._pass_on(await self._user_channels.wait_told())

    async def _pass_on(self, told: Told) -> None:
        if told.message is None:
            for lost_listener in self._lost_listeners:
                await _run(lost_listener(told.user_id))
            return
        kind, _, said = told.message.partition(b" ")
        for listener in self._listeners.get(kind, ()):
            await _run(listener(told.user_id, said))


@asynccontextmanager
async def open_channels(redis_url: str) -> AsyncIterator[Channels]:
    """Raises RedisUnavailable, saying what to check, if Redis does not answer now."""
    async with open_user_channels(redis_url) as user_channels:
        yield Channels(user_channels)


async def _run(heard: Awaitable[None]) -> None:
    try:
        await heard
    except Exception:  # the edge of the listener's work: what it missed does not concern others
        logger.exception("a message of a user's channel was not taken in")
