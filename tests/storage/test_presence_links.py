"""That a link has changed is told to every process; and links whose process is gone, and is perhaps back."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
import trio

from storage.presence import Link, PresenceTable
from storage.redis import Redis
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log

ANN = uuid4()
DESK = uuid4()


@pytest.fixture
def table(client: Redis) -> PresenceTable:
    return PresenceTable(client)


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


def build_link() -> Link:
    return Link(DESK, uuid4(), "here:1", "desktop", "Studio", is_visible=True)


def count_changes(log: DeviceEventLog) -> int:
    """Since the last time."""
    log.read()
    changes = len(log.changed)
    log.changed.clear()
    return changes


async def test_a_link_keeps_when_its_device_registered_anew(table: PresenceTable) -> None:
    await table.enter(ANN, replace(build_link(), fresh_at=1_234_567_890_123))
    assert (await table.list(ANN))[DESK].fresh_at == 1_234_567_890_123


async def test_every_change_of_a_link_is_told_and_nothing_else(table: PresenceTable, log: DeviceEventLog) -> None:
    link = (await table.enter(ANN, build_link())).link
    assert count_changes(log) == 1
    await table.touch(ANN, link)
    await table.resume(ANN, link, 1)
    await table.set_visible(ANN, DESK, link.connection_id, is_visible=True)
    assert count_changes(log) == 0
    await table.resume(ANN, replace(link, device_name="New name"), 1)
    assert count_changes(log) == 1
    await table.set_visible(ANN, DESK, link.connection_id, is_visible=False)
    assert count_changes(log) == 1
    await table.enter(ANN, build_link())
    assert count_changes(log) == 1
    await table.leave(ANN, DESK, link.connection_id)
    assert count_changes(log) == 0
    await table.drop(ANN, DESK)
    await table.drop(ANN, DESK)
    assert count_changes(log) == 1
    last = (await table.enter(ANN, build_link())).link
    await table.leave(ANN, DESK, last.connection_id)
    assert count_changes(log) == 2


async def test_the_end_of_a_link_that_has_expired_is_told_as_a_change(client: Redis, log: DeviceEventLog) -> None:
    fleeting = PresenceTable(client, ttl_seconds=0.001)
    await fleeting.enter(ANN, build_link())
    await trio.sleep(0.003)
    count_changes(log)
    await fleeting.expire(10)
    assert count_changes(log) == 1


async def test_a_link_whose_process_is_gone_ends_once(table: PresenceTable, log: DeviceEventLog) -> None:
    link = (await table.enter(ANN, build_link())).link
    log.read()
    assert [await table.abandon(ANN, DESK, link.connection_id) for _ in range(3)] == [True, False, False]
    assert await table.list(ANN) == {}
    gone = {"deviceId": str(DESK), "status": "disconnected", "reason": "ws_closed"}
    assert log.read() == [(ANN, "device-status", gone)]


async def test_a_process_that_was_thought_gone_resumes_its_links(table: PresenceTable, log: DeviceEventLog) -> None:
    link = (await table.enter(ANN, build_link())).link
    await table.abandon(ANN, DESK, link.connection_id)
    assert await table.touch(ANN, link) == "lost"
    assert (await table.resume(ANN, link, 1)).standing == "kept"
    assert (await table.list(ANN))[DESK].connection_id == link.connection_id
    assert log.statuses() == [(DESK, "online"), (DESK, "disconnected"), (DESK, "online")]


async def test_only_the_connection_of_that_process_is_given_up(table: PresenceTable, log: DeviceEventLog) -> None:
    older = (await table.enter(ANN, build_link())).link
    newer = (await table.enter(ANN, build_link())).link
    assert not await table.abandon(ANN, DESK, older.connection_id)
    assert (await table.list(ANN))[DESK].connection_id == newer.connection_id
    assert log.statuses() == [(DESK, "online")]
