"""What is told on one user's channel, as one would hear it that listens from the beginning."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import redis
from redis.client import PubSub

from storage.device_events import events_channel


@dataclass(frozen=True, slots=True)
class ToldMessages:
    client: "redis.Redis"
    listener: PubSub
    channel: str

    def read(self, kind: str) -> list[bytes]:
        """Those of the kind, without it, that came since the last reading."""
        mark = f"mark {uuid4()}".encode()
        self.client.publish(self.channel, mark)
        said: list[bytes] = []
        while (message := self.listener.get_message(timeout=5)) is None or message["data"] != mark:
            assert message is not None, "Redis is silent"
            if message["type"] == "message" and message["data"].startswith(kind.encode() + b" "):
                said.append(message["data"].partition(b" ")[2])
        return said


@contextmanager
def open_told_messages(redis_url: str, user_id: UUID) -> Iterator[ToldMessages]:
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as listener:
        channel = events_channel(user_id)
        listener.subscribe(channel)
        told = ToldMessages(client, listener, channel)
        told.read("")
        yield told
