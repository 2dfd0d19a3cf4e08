"""Connections that break and come again, in an order that nobody would choose."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing

import server.presence
from server.presence import Presence
from server.presence_pulse import Rhythm
from storage.accounts import Accounts
from storage.device_events import DeviceEvents
from storage.devices import Devices, Registration
from storage.postgres import open_database
from storage.presence import PresenceTable
from storage.presence_history import PresenceHistory
from storage.redis import open_redis
from tests.server.presence_house import ANN, DESK, QUICK, House, build_link, open_alive, wait_for_link
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log
from tests.storage.people import open_query
from tests.storage.redis_server import RedisServer

DESKTOP = Registration(DESK, "Studio", "desktop", "linux", None, "1", None, None, None, True, {})


@pytest.fixture
async def house(redis_url: str) -> AsyncIterator[House]:
    async with open_redis(redis_url) as client:
        yield House(client, PresenceTable(client))


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that may be stopped."""
    running = RedisServer(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


async def test_nobody_hears_of_a_device_that_is_back_within_the_grace(house: House, log: DeviceEventLog) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link_for_a_moment, house.presence, ANN, 0.3)
        await log_has(log, "online")
        async with house.presence.open_link(ANN, build_link()) as held:
            with trio.fail_after(5):
                while nursery.child_tasks:  # the first connection has not left yet
                    await trio.sleep(0.01)
            assert (await house.presence.list_links(ANN))[DESK].connection_id == held.link.connection_id
            held.grace_seconds = 0
    assert log.statuses() == [(DESK, "disconnected")]
    assert house.history.devices == [(ANN, DESK)]


async def link_for_a_moment(presence: Presence, user_id: UUID = ANN, grace_seconds: float | None = None) -> None:
    async with presence.open_link(user_id, build_link()) as held:
        if grace_seconds is not None:
            held.grace_seconds = grace_seconds


async def log_has(log: DeviceEventLog, status: str) -> None:
    with trio.fail_after(5):
        while (DESK, status) not in log.statuses():
            await trio.sleep(0.01)


async def test_a_device_that_is_not_back_within_the_grace_is_told_of_then(house: House, log: DeviceEventLog) -> None:
    began = trio.current_time()
    await link_for_a_moment(house.presence, grace_seconds=0.2)
    assert trio.current_time() - began >= 0.2
    assert log.statuses() == [(DESK, "online"), (DESK, "disconnected")]


def test_the_grace_is_what_clients_expect() -> None:
    assert 3 <= server.presence.GRACE_SECONDS <= 5


async def test_a_connection_that_was_replaced_ends_at_once(house: House) -> None:
    async with open_alive(house, build_link()) as (held, ending):
        await house.table.enter(ANN, build_link())
        with trio.fail_after(5):
            assert await ending.receive() == "replaced"
        began = trio.current_time()
        assert held.grace_seconds > 1
    assert trio.current_time() - began < 1


async def test_a_device_that_registers_within_the_grace_stays_online_in_postgresql(
    house: House, database_url: str, owner_database_url: str
) -> None:
    async with open_database(database_url, size=2) as database:
        ann = (await Accounts(database).make_user("ann@example.com")).id
        devices, history = Devices(database), PresenceHistory(database)
        await devices.register(ann, DESKTOP)
        presence = Presence(house.table, DeviceEvents(house.redis), history, house.notify)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link_for_a_moment, presence, ann, 1)
            await trio.sleep(0.3)
            await devices.register(ann, DESKTOP)
        with open_query(owner_database_url) as query:
            assert query("SELECT status FROM devices") == [("online",)]
            await link_for_a_moment(presence, ann, 0.01)
            assert query("SELECT status FROM devices") == [("offline",)]


async def test_a_connection_that_enters_late_does_not_end_a_newer_one(own_redis: RedisServer) -> None:
    """Redis was away when the device connected, and connected anew; what is left of the first connection lives on."""
    async with open_redis(own_redis.url) as client:
        house = House(client, PresenceTable(client))
        own_redis.kill()
        async with house.presence.open_link(ANN, build_link(), Rhythm(retry_seconds=0.5)) as old:
            old.grace_seconds = 0
            await trio.sleep(0.01)
            async with open_alive(house, build_link()) as (new, ending):
                own_redis.start()
                await wait_for_link(house, new.link.connection_id)
                with trio.fail_after(15):
                    assert await house.presence.keep_alive(old) == "replaced"
                await trio.sleep(5 * QUICK.refresh_seconds)
                with pytest.raises(trio.WouldBlock):
                    ending.receive_nowait()
                new.grace_seconds = 0


async def test_a_device_that_hides_while_its_link_is_entered_late_stays_hidden(own_redis: RedisServer) -> None:
    async with open_redis(own_redis.url) as client:
        house = House(client, PresenceTable(client))
        own_redis.kill()
        async with house.presence.open_link(ANN, build_link(), QUICK) as held, trio.open_nursery() as nursery:
            held.grace_seconds = 0
            own_redis.start()
            own_redis.hang()
            nursery.start_soon(house.presence.keep_alive, held)
            await trio.sleep(3 * QUICK.retry_seconds)  # it is being entered
            nursery.start_soon(partial(house.presence.set_visible, held, is_visible=False))
            await trio.testing.wait_all_tasks_blocked(0.01)
            own_redis.go_on()
            assert not (await wait_for_link(house, held.link.connection_id)).is_visible
            assert held.has_entered
            assert not held.link.is_visible
            nursery.cancel_scope.cancel()
