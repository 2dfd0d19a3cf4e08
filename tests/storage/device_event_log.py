"""What the devices of all users are told, as one would hear it that listens from the beginning."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import redis
from redis.client import PubSub

Event = tuple[UUID, str, dict[str, Any]]
"""A user, the type of the event, its payload."""


@dataclass(frozen=True, slots=True)
class DeviceEventLog:
    client: "redis.Redis"
    listener: PubSub
    changed: list[UUID] = field(default_factory=list)
    """Whose links have changed, each time that it was told."""

    def read(self) -> list[Event]:
        """All that was told since the last reading, in order, but that links have changed: that is in `changed`."""
        mark = f"mark:{uuid4()}"
        self.client.publish(mark, b"")
        events: list[Event] = []
        while (message := self.listener.get_message(timeout=5)) is None or message["channel"].decode() != mark:
            assert message is not None, "Redis is silent"
            if message["type"] == "pmessage" and message["pattern"] == b"*:device-events":
                kind, _, said = message["data"].partition(b" ")
                if kind == b"links":
                    self.changed.append(_read_user(message["channel"]))
                else:
                    assert kind == b"status"
                    told = json.loads(said)
                    assert set(told) == {"eventType", "payload"}
                    events.append((_read_user(message["channel"]), told["eventType"], told["payload"]))
        return events

    def statuses(self) -> list[tuple[UUID, str]]:
        """Of the events that tell a device's status: the device and what it is."""
        told = [payload for _, event_type, payload in self.read() if event_type == "device-status"]
        return [(UUID(payload["deviceId"]), payload["status"]) for payload in told]


@contextmanager
def open_device_event_log(redis_url: str) -> Iterator[DeviceEventLog]:
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as listener:
        listener.psubscribe("*:device-events", "mark:*")
        log = DeviceEventLog(client, listener)
        log.read()
        yield log


def _read_user(channel: bytes) -> UUID:
    return UUID(channel.decode().partition("}")[0].removeprefix("{"))
