"""Spending limits: set by their user, counted from the first moment, and kept by holds and settlements."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from proxy.ledger import Hold
from storage.api_keys import NewKey, make_api_key, revoke_api_key
from storage.bookings import refund_call
from storage.credits import Credits, SpendingLimitReached, UserUnknown
from storage.postgres import Database, open_database
from storage.spending_limits import (
    ApiKeyUnknown,
    NewLimit,
    Period,
    SpendingLimit,
    SpendingLimits,
    remove_spending_limit,
    set_spending_limit,
)
from tests.storage.calls import build_hold, build_settlement, make_user

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=8) as database:
        yield database


@pytest.fixture
def query(owner_database_url: str) -> Iterator[Query]:
    """What the tables hold, seen by the superuser."""
    with psycopg.connect(owner_database_url, autocommit=True) as connection:
        yield lambda statement, *parameters: connection.execute(statement.encode(), parameters).fetchall()


async def put(
    database: Database,
    user_id: UUID,
    limit_usd: str = "5",
    period: Period = "day",
    key_id: UUID | None = None,
    percents: list[int] | None = None,
) -> SpendingLimit:
    async with database.as_operator("test").transaction() as connection:
        return await set_spending_limit(connection, user_id, NewLimit(key_id, period, Decimal(limit_usd), percents))


async def remove(database: Database, user_id: UUID, limit_id: UUID) -> SpendingLimit | None:
    async with database.as_operator("test").transaction() as connection:
        return await remove_spending_limit(connection, user_id, limit_id)


async def make_key(database: Database, user_id: UUID, expires_at: datetime | None = None) -> UUID:
    new = NewKey(uuid4(), user_id, uuid4().hex * 2, "012345", "laptop", ("read", "write"), expires_at)
    async with database.as_operator("test").transaction() as connection:
        return (await make_api_key(connection, new)).id


async def run_call(database: Database, hold: Hold, charge_usd: str) -> None:
    assert await Credits(database).settle(build_settlement(hold, charge_usd))


async def begin_call(database: Database, user_id: UUID, held_usd: str = "1", key_id: UUID | None = None) -> Hold:
    hold = replace(build_hold(user_id, held_usd), api_key_id=key_id)
    await Credits(database).hold(hold)
    return hold


async def find(database: Database, user_id: UUID) -> SpendingLimit:
    (limit,) = await SpendingLimits(database).list(user_id)
    return limit


def count(limit: SpendingLimit) -> tuple[Decimal | int, Decimal | int]:
    """Spent and held, in US dollars."""
    return limit.spent_usd, limit.held_usd


async def test_a_new_limit_has_all_that_there_is_to_know(database: Database) -> None:
    user_id = await make_user(database)
    made = await put(database, user_id, "7.5", "month", percents=[10, 90])
    now = datetime.now(UTC)
    assert (made.limit_usd, made.period, made.api_key_id) == (Decimal("7.5"), "month", None)
    assert list(made.alert_percents) == [10, 90]
    assert count(made) == (0, 0)
    assert (made.left_usd, made.percent) == (Decimal("7.5"), Decimal(0))
    assert made.period_start == now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert made.resets_at == (made.period_start + timedelta(days=31)).replace(day=1)
    assert await SpendingLimits(database).list(user_id) == [made]


async def test_a_day_ends_at_midnight_of_utc(database: Database) -> None:
    made = await put(database, await make_user(database))
    assert made.resets_at - made.period_start == timedelta(days=1)
    assert (made.period_start.hour, made.period_start.utcoffset()) == (0, timedelta(0))
    assert list(made.alert_percents) == [50, 80, 100]


async def test_a_limit_that_is_there_is_replaced_and_keeps_what_was_counted(database: Database) -> None:
    user_id = await make_user(database, "10")
    first = await put(database, user_id, "5", percents=[20])
    await run_call(database, await begin_call(database, user_id), "0.25")
    await begin_call(database, user_id, "2")
    second = await put(database, user_id, "6")
    assert (second.id, second.limit_usd, list(second.alert_percents)) == (first.id, Decimal(6), [20])
    assert count(second) == (Decimal("0.25"), 2)
    assert second.updated_at > first.updated_at
    assert list((await put(database, user_id, "6", percents=[])).alert_percents) == []


async def test_what_was_spent_and_is_held_before_the_limit_counts(database: Database) -> None:
    user_id = await make_user(database, "10")
    key_id = await make_key(database, user_id)
    await run_call(database, await begin_call(database, user_id), "0.25")
    await run_call(database, await begin_call(database, user_id, key_id=key_id), "0.5")
    running = await begin_call(database, user_id, "2", key_id)
    await begin_call(database, user_id, "3")
    assert count(await put(database, user_id)) == (Decimal("0.75"), 5)
    assert count(await put(database, user_id, key_id=key_id)) == (Decimal("0.5"), 2)
    await run_call(database, running, "1.5")
    assert [count(limit) for limit in await SpendingLimits(database).list(user_id)] == [
        (Decimal("2.25"), 3),
        (Decimal("2"), 0),
    ]


async def test_what_was_given_back_is_not_spent_whenever_the_limit_was_set(database: Database) -> None:
    user_id = await make_user(database, "10")
    hold = await begin_call(database, user_id)
    await run_call(database, hold, "0.25")
    before = await put(database, user_id, period="day")
    async with database.as_operator("test").transaction() as connection:
        assert await refund_call(connection, hold.id, actor="operator", reason="test")
    assert before.spent_usd == Decimal("0.25")
    assert (await find(database, user_id)).spent_usd == 0
    assert (await put(database, user_id, period="month")).spent_usd == 0


async def test_what_ended_in_an_earlier_period_is_not_counted(database: Database, query: Query) -> None:
    user_id = await make_user(database, "10")
    await run_call(database, await begin_call(database, user_id), "0.25")
    query("UPDATE usage SET ended_at = date_trunc('day', now(), 'UTC') - interval '1 microsecond' RETURNING 1")
    assert (await put(database, user_id)).spent_usd == 0


async def test_a_period_that_is_over_is_told_as_the_new_one(database: Database, query: Query) -> None:
    user_id = await make_user(database, "10")
    made = await put(database, user_id)
    await run_call(database, await begin_call(database, user_id), "0.25")
    query("UPDATE spending_limits SET period_start = period_start - interval '3 days' RETURNING 1")
    found = await find(database, user_id)
    assert (found.spent_usd, found.period_start, found.resets_at) == (Decimal(0), made.period_start, made.resets_at)


async def test_a_limit_below_what_was_spent_leaves_nothing(database: Database) -> None:
    user_id = await make_user(database, "10")
    await run_call(database, await begin_call(database, user_id), "0.9")
    limit = await put(database, user_id, "0.5")
    assert (limit.left_usd, limit.percent) == (Decimal(0), Decimal(180))
    with pytest.raises(SpendingLimitReached):
        await begin_call(database, user_id, "0.000001")


async def test_a_limit_of_nothing_is_spent_wholly(database: Database) -> None:
    user_id = await make_user(database, "10")
    assert (await put(database, user_id, "0")).percent == 100
    with pytest.raises(SpendingLimitReached):
        await begin_call(database, user_id)


async def test_a_keys_limit_stops_that_key_alone(database: Database) -> None:
    user_id = await make_user(database, "10")
    key_id, other_key_id = await make_key(database, user_id), await make_key(database, user_id)
    await put(database, user_id, "0.5", key_id=key_id)
    with pytest.raises(SpendingLimitReached, match="this API key's"):
        await begin_call(database, user_id, key_id=key_id)
    await begin_call(database, user_id, key_id=other_key_id)
    await begin_call(database, user_id)
    assert count(await find(database, user_id)) == (0, 0)


async def test_a_limit_is_for_live_keys_of_the_user_alone(database: Database) -> None:
    user_id, other_id = await make_user(database), await make_user(database)
    revoked, ended = await make_key(database, user_id), await make_key(database, user_id, datetime.now(UTC))
    async with database.as_operator("test").transaction() as connection:
        await revoke_api_key(connection, user_id, revoked)
    for key_id in (await make_key(database, other_id), revoked, ended, uuid4()):
        with pytest.raises(ApiKeyUnknown):
            await put(database, user_id, key_id=key_id)
    assert await SpendingLimits(database).list(user_id) == []
    assert await SpendingLimits(database).list(other_id) == []


async def test_a_keys_limit_ends_with_the_key(database: Database, query: Query) -> None:
    user_id = await make_user(database, "10")
    key_id = await make_key(database, user_id)
    await put(database, user_id, key_id=key_id)
    running = await begin_call(database, user_id, key_id=key_id)
    async with database.as_operator("test").transaction() as connection:
        await revoke_api_key(connection, user_id, key_id)
    assert await SpendingLimits(database).list(user_id) == []
    await put(database, user_id)
    assert query("SELECT api_key_id FROM spending_limits") == [(None,)]
    await run_call(database, running, "0.5")
    assert count(await find(database, user_id)) == (Decimal("0.5"), 0)


async def test_nobody_sees_or_removes_what_others_have_set(database: Database) -> None:
    owner_id, other_id = await make_user(database), await make_user(database)
    limit = await put(database, owner_id)
    assert await SpendingLimits(database).list(other_id) == []
    assert await remove(database, other_id, limit.id) is None
    assert await SpendingLimits(database).list(owner_id) == [limit]


async def test_a_removed_limit_stops_nobody(database: Database) -> None:
    user_id = await make_user(database, "10")
    limit = await put(database, user_id, "0.5")
    running = await begin_call(database, user_id, "0.4")
    removed = await remove(database, user_id, limit.id)
    assert removed is not None
    assert (removed.id, removed.held_usd) == (limit.id, Decimal("0.4"))
    assert await remove(database, user_id, limit.id) is None
    await begin_call(database, user_id, "1")
    await run_call(database, running, "0.4")


async def test_no_limit_is_set_for_who_is_gone(database: Database) -> None:
    with pytest.raises(UserUnknown):
        await put(database, uuid4())


async def wait_blocked(query: Query) -> None:
    """Until somebody waits for a row."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with trio.fail_after(10):
        while not query(waiting):
            await trio.sleep(0.01)


async def test_a_call_that_begins_while_a_limit_is_set_is_counted_once(database: Database, query: Query) -> None:
    """Its hold waits for the balance, and began before anybody could see the limit."""
    user_id = await make_user(database, "10")
    hold = build_hold(user_id, "2")
    async with trio.open_nursery() as nursery, database.as_operator("test").transaction() as connection:
        await set_spending_limit(connection, user_id, NewLimit(None, "day", Decimal(5)))
        nursery.start_soon(Credits(database).hold, hold)
        await wait_blocked(query)
    assert count(await find(database, user_id)) == (0, 2)
    await run_call(database, hold, "0.5")
    assert count(await find(database, user_id)) == (Decimal("0.5"), 0)


async def test_a_call_that_ends_while_a_limit_is_set_is_counted_once(database: Database, query: Query) -> None:
    user_id = await make_user(database, "10")
    hold = await begin_call(database, user_id, "2")
    async with trio.open_nursery() as nursery, database.as_operator("test").transaction() as connection:
        made = await set_spending_limit(connection, user_id, NewLimit(None, "day", Decimal(5)))
        assert count(made) == (0, 2)
        nursery.start_soon(run_call, database, hold, "0.5")
        await wait_blocked(query)
    assert count(await find(database, user_id)) == (Decimal("0.5"), 0)


async def test_limits_set_and_removed_among_running_calls_count_each_of_them_once(database: Database) -> None:
    """Nobody waits for anybody in a circle, and at the end nothing is held and all is counted."""
    user_id = await make_user(database, "100")
    key_id = await make_key(database, user_id)

    async def call() -> None:
        for _ in range(12):
            await run_call(database, await begin_call(database, user_id, "0.1", key_id), "0.01")

    async def set_and_remove() -> None:
        for _ in range(6):
            await put(database, user_id, "90")
            await remove(database, user_id, (await put(database, user_id, "90", key_id=key_id)).id)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
                nursery.start_soon(set_and_remove)
    await put(database, user_id, "90", key_id=key_id)
    counts = [count(limit) for limit in await SpendingLimits(database).list(user_id)]
    assert counts == [(Decimal("0.36"), 0)] * 2
