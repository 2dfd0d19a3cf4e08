"""What a user's devices are told, on a real Redis."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from storage.device_events import DeviceEvents
from storage.redis import open_redis
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


async def test_an_event_is_told_on_its_users_channel_with_type_and_payload(redis_url: str, log: DeviceEventLog) -> None:
    ann, bob, device_id = uuid4(), uuid4(), str(uuid4())
    async with open_redis(redis_url) as client:
        events = DeviceEvents(client)
        await events.publish(ann, "device-unlinked", {"deviceId": device_id})
        await events.publish(bob, "anything", {"quote": 'a " and a \\'})
    assert log.read() == [
        (ann, "device-unlinked", {"deviceId": device_id}),
        (bob, "anything", {"quote": 'a " and a \\'}),
    ]


async def test_an_event_that_nobody_hears_is_no_fault(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await DeviceEvents(client).publish(uuid4(), "device-unlinked", {})
