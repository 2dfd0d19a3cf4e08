"""Devices that are gone without a word, as two processes with real stores find them."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

import server.presence_sweep
from server.presence_sweep import PresenceSweep
from storage.errors import RedisUnavailable
from storage.postgres import Database, open_database
from storage.presence import Link, PresenceTable
from storage.presence_history import PresenceHistory
from storage.redis import open_redis
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log
from tests.storage.people import Query
from tests.storage.redis_server import RedisServer


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=4) as database:
        yield database


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


@asynccontextmanager
async def open_sweep(redis_url: str, database: Database, ttl_seconds: float = 0.001) -> AsyncIterator[PresenceSweep]:
    """As a process of its own has it."""
    async with open_redis(redis_url) as client:
        yield PresenceSweep(PresenceTable(client, ttl_seconds), PresenceHistory(database))


def add_user(query: Query) -> UUID:
    user_id = uuid4()
    query("INSERT INTO users (id, email) VALUES (%s, %s)", user_id, f"{user_id}@example.com")
    return user_id


def add_device(query: Query, user_id: UUID, silent_seconds: float = 300) -> UUID:
    device_id = uuid4()
    query(
        "INSERT INTO devices (user_id, device_id, platform, registered_at, status, active_jobs, last_heartbeat)"
        " VALUES (%s, %s, 'linux', now(), 'online', 2, now() - make_interval(secs => %s))",
        user_id,
        device_id,
        silent_seconds,
    )
    return device_id


def build_link(device_id: UUID) -> Link:
    return Link(device_id, uuid4(), "here:1", "desktop", "Studio", is_visible=True)


def statuses(query: Query) -> Counter[tuple[str, int]]:
    return Counter((status, jobs) for status, jobs in query("SELECT status, active_jobs FROM devices"))


async def sweep_together(sweeps: Sequence[PresenceSweep]) -> None:
    async with trio.open_nursery() as nursery:
        for sweep in sweeps:
            nursery.start_soon(sweep.sweep)


async def test_two_hundred_devices_whose_connections_were_killed_are_told_once_each(
    redis_url: str, database: Database, query: Query, log: DeviceEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.presence_sweep, "BATCH", 30)
    devices = [add_device(query, user_id) for user_id in [add_user(query) for _ in range(20)] for _ in range(10)]
    owners = {device_id: user_id for user_id, device_id in query("SELECT user_id, device_id FROM devices")}
    async with open_sweep(redis_url, database) as one, open_sweep(redis_url, database) as other:
        for device_id in devices:
            await one.table.enter(owners[device_id], build_link(device_id))
        await trio.sleep(0.003)
        await sweep_together([one, other])
        await sweep_together([one, other])
        told = log.statuses()
    assert Counter(told) == Counter([(device_id, status) for device_id in devices for status in ("online", "offline")])
    assert statuses(query) == {("offline", 0): 200}
    assert query("SELECT count(*), count(DISTINCT device_id) FROM device_presence_history") == [(200, 200)]


async def test_a_device_that_is_silent_and_has_no_link_is_offline(
    redis_url: str, database: Database, query: Query, log: DeviceEventLog
) -> None:
    user_id = add_user(query)
    silent, _ = add_device(query, user_id, 121), add_device(query, user_id, 90)
    async with open_sweep(redis_url, database) as one, open_sweep(redis_url, database) as other:
        await one.sweep()
        assert log.read() == []  # Redis may have forgotten links that live
        await trio.sleep(0.003)
        await sweep_together([one, other])
        await sweep_together([one, other])
    assert log.read() == [(user_id, "device-status", {"deviceId": str(silent), "status": "offline"})]
    assert statuses(query) == {("offline", 0): 1, ("online", 2): 1}
    assert query("SELECT device_id, status FROM device_presence_history") == [(silent, "offline")]


async def test_a_linked_device_is_not_offline_however_silent_it_is(
    redis_url: str, database: Database, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.presence_sweep, "BATCH", 2)
    user_id = add_user(query)
    devices = sorted(add_device(query, user_id) for _ in range(5))
    async with open_sweep(redis_url, database, 30) as sweep:
        for device_id in devices[:4]:
            await sweep.table.enter(user_id, build_link(device_id))
        await sweep.mark_silent()
    assert query("SELECT device_id FROM devices WHERE status = 'offline'") == [(devices[4],)]


async def test_a_device_that_was_heard_of_over_http_since_its_link_expired_stays(
    redis_url: str, database: Database, query: Query
) -> None:
    user_id = add_user(query)
    device_id = add_device(query, user_id, 10)
    async with open_sweep(redis_url, database) as sweep:
        await sweep.table.enter(user_id, build_link(device_id))
        await trio.sleep(0.003)
        await sweep.sweep()
    assert statuses(query) == {("online", 2): 1}


async def test_nobody_is_offline_while_redis_is_away(database: Database, query: Query, tmp_path: Path) -> None:
    own_redis = RedisServer(tmp_path)
    user_id = add_user(query)
    add_device(query, user_id)
    async with open_sweep(own_redis.url, database) as sweep:
        await sweep.table.is_settled()
        await trio.sleep(0.003)
        own_redis.kill()
        with pytest.raises(RedisUnavailable):
            await sweep.sweep()
    assert statuses(query) == {("online", 2): 1}


async def test_sweeps_go_on_when_redis_was_away(
    database: Database,
    query: Query,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(server.presence_sweep, "PERIOD_SECONDS", 0.01)
    own_redis = RedisServer(tmp_path)
    add_device(query, add_user(query))
    async with open_sweep(own_redis.url, database) as sweep, trio.open_nursery() as nursery:
        own_redis.kill()
        nursery.start_soon(sweep.keep_sweeping)
        with trio.fail_after(10):
            while "devices that are gone were not looked for" not in caplog.text:
                await trio.sleep(0.01)
            own_redis.start()
            while statuses(query) != {("offline", 0): 1}:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    own_redis.kill()


async def test_old_history_goes(
    redis_url: str, database: Database, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.presence_sweep, "PURGE_PERIOD_SECONDS", 0.01)
    user_id = add_user(query)
    device_id = add_device(query, user_id)
    query(
        "INSERT INTO device_presence_history (user_id, device_id, status, at)"
        " SELECT %s, %s, 'online', now() - make_interval(days => days) FROM generate_series(29, 32) AS days",
        user_id,
        device_id,
    )
    async with open_sweep(redis_url, database) as sweep, trio.open_nursery() as nursery:
        nursery.start_soon(sweep.keep_purged)
        with trio.fail_after(10):
            while query("SELECT count(*) FROM device_presence_history") != [(1,)]:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
