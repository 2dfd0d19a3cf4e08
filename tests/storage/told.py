"""What is told on the channels of users, as it is told, for tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

Told = list[tuple[str, str]]
"""Channels and messages."""


@contextmanager
def open_told(redis_url: str) -> Iterator[Callable[[int], Told]]:
    """Gives the next so many messages, of all users."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, client.pubsub() as listener:
        listener.psubscribe("*:device-events")
        assert listener.get_message(timeout=5) is not None

        def take(count: int) -> Told:
            found = [listener.get_message(timeout=5) for _ in range(count)]
            assert None not in found, "less was told"
            return [(message["channel"], message["data"]) for message in found if message]

        yield take
