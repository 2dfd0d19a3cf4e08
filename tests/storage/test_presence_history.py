"""The end of presence in PostgreSQL: who is offline is marked once, and history does not grow for ever."""

from typing import LiteralString
from uuid import UUID, uuid4

import pytest
import trio

from storage.accounts import Accounts
from storage.postgres import Database
from storage.presence_history import FIRST, DeviceKey, PresenceHistory
from tests.storage.people import Query


@pytest.fixture
def history(accounts: Database) -> PresenceHistory:
    return PresenceHistory(accounts)


async def make_user(accounts: Database) -> UUID:
    return (await Accounts(accounts).make_user(f"{uuid4()}@example.com", "user")).id


def add_device(ask: Query, user_id: UUID, silent_seconds: float | None = 0, status: str = "online") -> DeviceKey:
    """Of which was heard so long ago, if ever."""
    device_id = uuid4()
    ask(
        "INSERT INTO devices (user_id, device_id, platform, registered_at, status, active_jobs, cpu_usage,"
        " last_heartbeat) VALUES (%s, %s, 'macos', now(), %s, 3, 12.5, now() - make_interval(secs => %s))",
        user_id,
        device_id,
        status,
        silent_seconds,
    )
    return (user_id, device_id)


def look(ask: Query, key: DeviceKey) -> tuple[str, int]:
    [row] = ask("SELECT status, active_jobs FROM devices WHERE user_id = %s AND device_id = %s", *key)
    return row[0], row[1]


def told(ask: Query, key: DeviceKey) -> list[tuple[str, int, float]]:
    """The rows of history of a device."""
    rows = ask(
        "SELECT status, active_jobs, cpu_usage FROM device_presence_history WHERE user_id = %s AND device_id = %s",
        *key,
    )
    return [(status, jobs, float(cpu)) for status, jobs, cpu in rows]


async def test_a_device_is_marked_once_with_a_row_of_history(
    accounts: Database, history: PresenceHistory, ask: Query
) -> None:
    key = add_device(ask, await make_user(accounts))
    assert await history.mark_offline([key]) == {key}
    assert await history.mark_offline([key]) == set()
    assert look(ask, key) == ("offline", 0)
    assert told(ask, key) == [("offline", 0, 12.5)]


async def test_others_stay_as_they_are(accounts: Database, history: PresenceHistory, ask: Query) -> None:
    ann, bob = await make_user(accounts), await make_user(accounts)
    gone, stays = add_device(ask, ann), add_device(ask, ann)
    foreign = (bob, gone[1])
    assert await history.mark_offline([gone, foreign, (bob, uuid4())]) == {gone}
    assert look(ask, stays) == ("online", 3)


async def test_who_was_heard_of_since_is_not_offline(accounts: Database, history: PresenceHistory, ask: Query) -> None:
    user_id = await make_user(accounts)
    heard, silent, never = (add_device(ask, user_id, seconds) for seconds in (50, 70, None))
    assert await history.mark_offline([heard, silent, never], 60) == {silent, never}
    assert look(ask, heard) == ("online", 3)


async def test_two_who_mark_the_same_devices_at_once_are_told_of_each_once(
    accounts: Database, history: PresenceHistory, ask: Query
) -> None:
    user_id = await make_user(accounts)
    keys = [add_device(ask, user_id) for _ in range(4)]
    answers: list[DeviceKey] = []

    async def mark(order: int) -> None:
        answers.extend(await history.mark_offline(keys[::order]))

    async with trio.open_nursery() as nursery, accounts.as_operator("hold them up").transaction() as connection:
        lock: LiteralString = "SELECT 1 FROM devices WHERE user_id = %s FOR UPDATE"
        await connection.send(connection.bind(lock, (user_id,)))
        nursery.start_soon(mark, 1)
        nursery.start_soon(mark, -1)
        with trio.fail_after(5):
            while ask("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] < 2:
                await trio.sleep(0.01)
    assert sorted(answers) == sorted(keys)


async def test_silent_devices_are_found_in_pages(accounts: Database, history: PresenceHistory, ask: Query) -> None:
    user_id = await make_user(accounts)
    silent = [add_device(ask, user_id, 130, status) for status in ("online", "away", "online")]
    add_device(ask, user_id, 110)
    add_device(ask, user_id, 500, "offline")
    found, after = [], FIRST
    while page := await history.find_silent(120, 2, after):
        assert len(page) <= 2
        found += [device.key for device in page if device.user_id == user_id]
        after = page[-1].key
    assert found == sorted(silent)


async def test_old_history_goes_in_batches(accounts: Database, history: PresenceHistory, ask: Query) -> None:
    key = add_device(ask, await make_user(accounts))
    for days in (31, 31, 31, 29):
        ask(
            "INSERT INTO device_presence_history (user_id, device_id, status, cpu_usage, active_jobs, at)"
            " VALUES (%s, %s, 'online', 1, %s, now() - make_interval(days => %s))",
            *key,
            days,
            days,
        )
    assert [await history.purge(30, limit=2) for _ in range(3)] == [2, 1, 0]
    assert told(ask, key) == [("online", 29, 1.0)]
