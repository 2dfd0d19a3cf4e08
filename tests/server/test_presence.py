"""A socket's link from its beginning to its end, on a real Redis that may be stopped, and what others see of it."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import trio

import server.presence
from server.presence import HeldLink, Presence, build_announcement, is_back
from storage.accounts import Accounts
from storage.device_events import DeviceEvents
from storage.errors import RedisUnavailable
from storage.postgres import Database, open_database
from storage.presence import PresenceTable
from storage.presence_history import PresenceHistory
from storage.redis import open_redis
from tests.server.presence_house import ANN, DESK, QUICK, House, build_link, open_alive, wait_for_link
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log
from tests.storage.people import open_query
from tests.storage.redis_server import RedisServer


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0)


@pytest.fixture
async def house(redis_url: str) -> AsyncIterator[House]:
    async with open_redis(redis_url) as client:
        yield House(client, PresenceTable(client))


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that may be stopped."""
    running = RedisServer(tmp_path)
    yield running
    running.kill()


@asynccontextmanager
async def open_house(own_redis: RedisServer) -> AsyncIterator[House]:
    async with open_redis(own_redis.url) as client:
        yield House(client, PresenceTable(client))


async def test_a_device_is_linked_as_long_as_the_block_lasts(house: House, log: DeviceEventLog) -> None:
    async with house.presence.open_link(ANN, build_link()) as held:
        assert set(await house.presence.list_links(ANN)) == {DESK}
        assert held.has_entered
    assert await house.presence.list_links(ANN) == {}
    assert log.statuses() == [(DESK, "online"), (DESK, "disconnected")]
    assert house.history.devices == [(ANN, DESK)]


async def test_a_link_is_left_however_the_block_ends(house: House, log: DeviceEventLog) -> None:
    with pytest.raises(ValueError, match="a fault"):
        async with house.presence.open_link(ANN, build_link()):
            raise ValueError("a fault")
    with trio.CancelScope() as scope:
        async with house.presence.open_link(ANN, build_link()):
            scope.cancel()
            await trio.sleep_forever()
    assert log.statuses() == [(DESK, "online"), (DESK, "disconnected")] * 2
    assert house.history.devices == [(ANN, DESK)] * 2
    assert await house.presence.list_links(ANN) == {}


async def test_a_replaced_connection_hears_of_it_and_its_end_changes_nothing(
    house: House, log: DeviceEventLog
) -> None:
    older, newer = build_link(), build_link()
    async with open_alive(house, older) as (_, ending), house.presence.open_link(ANN, newer) as held:
        assert held.replaced is not None
        assert held.replaced.connection_id == older.connection_id
        with trio.fail_after(5):
            assert await ending.receive() == "replaced"
    assert log.statuses() == [(DESK, "online"), (DESK, "disconnected")]
    assert house.history.devices == [(ANN, DESK)]


async def test_the_end_of_a_replaced_connection_leaves_the_newer_one(house: House, log: DeviceEventLog) -> None:
    async with house.presence.open_link(ANN, build_link()):
        newer = await house.table.enter(ANN, build_link())
    assert (await house.presence.list_links(ANN))[DESK].connection_id == newer.link.connection_id
    assert log.statuses() == [(DESK, "online")]
    assert house.history.devices == []


async def test_a_device_that_lives_stays_linked(house: House) -> None:
    house = House(house.redis, replace(house.table, ttl_seconds=0.2))
    link = build_link()
    async with open_alive(house, link) as (_, ending):
        first = last = await wait_for_link(house, link.connection_id)
        with trio.fail_after(10):
            while last.last_seen_at < first.last_seen_at + 300:
                last = await wait_for_link(house, link.connection_id)
        assert last.connected_at == first.connected_at
        with pytest.raises(trio.WouldBlock):
            ending.receive_nowait()


async def test_a_device_that_is_silent_ends_at_its_deadline(house: House, log: DeviceEventLog) -> None:
    rhythm = replace(QUICK, silence_seconds=0.1)
    async with house.presence.open_link(ANN, build_link(), rhythm) as held:
        began = trio.current_time()
        with trio.fail_after(5):
            assert await house.presence.keep_alive(held) == "silent"
        assert trio.current_time() - began >= 0.09
    assert log.statuses() == [(DESK, "online"), (DESK, "disconnected")]


async def test_a_device_that_was_unlinked_hears_of_it(house: House, log: DeviceEventLog) -> None:
    async with open_alive(house, build_link()) as (_, ending):
        await house.presence.drop(ANN, DESK)
        with trio.fail_after(5):
            assert await ending.receive() == "dropped"
        assert await house.presence.list_links(ANN) == {}
    assert log.statuses() == [(DESK, "online"), (DESK, "offline")]
    assert house.history.devices == []


async def test_a_link_that_was_swept_away_comes_back(house: House, log: DeviceEventLog) -> None:
    """This process had no word with Redis for longer than a link holds, and its device lives."""
    link = build_link()
    async with open_alive(house, link) as (held, _):
        fleeting = replace(house.table, ttl_seconds=0.001)
        with trio.fail_after(5):
            while not (await house.table.expire(10)).gone:
                await fleeting.enter(ANN, held.link)
        await wait_for_link(house, link.connection_id)
    assert log.statuses()[-3:] == [(DESK, "offline"), (DESK, "online"), (DESK, "disconnected")]


async def test_visibility_is_changed_and_kept(house: House, log: DeviceEventLog) -> None:
    async with open_alive(house, build_link(is_visible=False)) as (held, _):
        await house.presence.set_visible(held, is_visible=True)
        assert (await house.presence.list_links(ANN))[DESK].is_visible
        await house.redis.flushall()
        assert (await wait_for_link(house, held.link.connection_id)).is_visible
    assert log.statuses() == [(DESK, "online"), (DESK, "online"), (DESK, "disconnected")]


async def test_an_event_is_told_to_the_user(house: House, log: DeviceEventLog) -> None:
    await house.presence.tell(ANN, "device-unlinked", {"deviceId": str(DESK)})
    assert log.read() == [(ANN, "device-unlinked", {"deviceId": str(DESK)})]


async def test_a_connection_outlives_a_redis_that_is_killed_and_comes_back_empty(own_redis: RedisServer) -> None:
    async with open_house(own_redis) as house:
        link = build_link()
        async with open_alive(house, link) as (_, ending):
            own_redis.kill()
            with trio.fail_after(10):
                while await house.presence.list_links(ANN):
                    await trio.sleep(0.01)
            own_redis.start()
            with open_device_event_log(own_redis.url) as log:
                await wait_for_link(house, link.connection_id)
                assert log.statuses() in ([], [(DESK, "online")])  # it may have been told before anybody listened
            with pytest.raises(trio.WouldBlock):
                ending.receive_nowait()
        assert house.history.devices == [(ANN, DESK)]


async def test_a_connection_that_begins_while_redis_is_away_is_linked_when_it_is_back(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_house(own_redis) as house:
        own_redis.kill()
        link = build_link()
        async with open_alive(house, link) as (_, ending):
            await trio.sleep(0.1)
            assert await house.presence.list_links(ANN) == {}
            own_redis.start()
            await wait_for_link(house, link.connection_id)
            with pytest.raises(trio.WouldBlock):
                ending.receive_nowait()
        assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["server.presence"]


async def test_nobody_is_marked_offline_while_redis_is_away(own_redis: RedisServer) -> None:
    async with open_house(own_redis) as house:
        async with house.presence.open_link(ANN, build_link()):
            own_redis.kill()
        assert house.history.devices == []
        await house.presence.drop(ANN, DESK)
        await house.presence.tell(ANN, "device-unlinked", {})
        assert await house.presence.list_links(ANN) == {}
        with pytest.raises(RedisUnavailable):
            await house.presence.set_visible(held_by_nobody(), is_visible=True)


def held_by_nobody() -> HeldLink:
    return HeldLink(ANN, build_link(), None, 0)  # type: ignore[arg-type] # nothing beats


async def test_requests_do_not_wait_long_for_a_redis_that_is_known_to_hang(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.presence, "COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(server.presence, "AWAY_ANSWER_SECONDS", 0.01)
    async with open_house(own_redis) as house:
        own_redis.hang()
        assert await house.presence.list_links(ANN) == {}
        began = trio.current_time()
        assert await house.presence.list_links(ANN) == {}
        assert trio.current_time() - began < 0.45
        own_redis.go_on()
        async with house.presence.open_link(ANN, build_link()):
            assert set(await house.presence.list_links(ANN)) == {DESK}


async def test_a_connection_ends_in_time_though_redis_hangs(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.presence, "LEAVE_SECONDS", 0.1)
    async with open_house(own_redis) as house:
        with trio.fail_after(2):
            async with house.presence.open_link(ANN, build_link()):
                own_redis.hang()
        own_redis.go_on()


async def test_a_connection_ends_though_postgresql_is_away(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.history.is_away = True
    async with house.presence.open_link(ANN, build_link()):
        pass
    assert "a device that has left was not marked as offline" in caplog.messages


async def come_back(house: House) -> None:
    """A desktop that was away for a minute and more, as Redis tells it."""
    async with house.presence.open_link(ANN, build_link(), replace(QUICK, silence_seconds=0.05)) as held:
        held.is_back = is_back(held.link, 61)
        await house.presence.keep_alive(held)


async def test_phones_are_told_silently_and_once_that_a_desktop_is_back(house: House) -> None:
    other = House(house.redis, house.table)
    for process in (house, other, house):
        await come_back(process)
    assert other.pushed == []
    [(user_id, notification)] = house.pushed
    assert user_id == ANN
    assert notification.is_silent
    assert notification.deliver_within_seconds == 600


async def test_a_connection_goes_on_though_phones_cannot_be_told(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.is_push_away = True
    await come_back(house)
    assert "phones were not told that a desktop is back" in caplog.messages


async def test_a_desktop_that_was_never_there_is_not_back(house: House) -> None:
    async with house.presence.open_link(ANN, build_link()) as held:
        assert held.away_seconds is None
        assert not held.is_back


def test_who_is_back_is_a_desktop_that_was_away_for_a_minute_and_can_be_reached() -> None:
    desk = build_link()
    assert is_back(desk, 60.1)
    assert not is_back(desk, 60)
    assert not is_back(desk, None)
    assert not is_back(replace(desk, client_type="mobile"), 3600)
    assert not is_back(replace(desk, is_visible=False), 3600)


def test_the_announcement_says_what_phones_read() -> None:
    notification = build_announcement(datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert notification.kind == "desktop_online"
    assert notification.custom_data == {"type": "desktop_online", "timestamp": "2026-02-03T04:05:06.000000Z"}
    assert (notification.title, notification.body) == ("", "")


async def test_a_device_that_leaves_is_offline_in_postgresql(
    house: House, database_url: str, owner_database_url: str
) -> None:
    async with open_database(database_url, size=2) as database:
        user_id = await make_user_with_device(database)
        presence = Presence(house.table, DeviceEvents(house.redis), PresenceHistory(database), house.notify)
        async with presence.open_link(user_id, build_link()):
            pass
    with open_query(owner_database_url) as query:
        assert query("SELECT status FROM devices") == [("offline",)]
        assert query("SELECT status FROM device_presence_history") == [("offline",)]


async def make_user_with_device(database: Database) -> UUID:
    user_id = (await Accounts(database).make_user("ann@example.com", "user")).id
    await database.as_user(user_id).fetch(
        "INSERT INTO devices (user_id, device_id, status) VALUES (%s, %s, 'online') RETURNING 1", (user_id, DESK)
    )
    return user_id
