"""What calls used and cost, summed up: equal to the ledger, whatever it is grouped by."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args
from uuid import UUID, uuid4

import psycopg
import pytest

from proxy.ledger import Hold, Outcome
from storage.bookings import refund_call
from storage.credits import Credits
from storage.history import History
from storage.postgres import Database, open_database
from storage.usage import Grouping, UsageGroup, UsageReports, sum_up
from tests.storage.calls import USAGE, build_hold, build_settlement, make_user

Query = Callable[..., list[tuple[Any, ...]]]

START = datetime(2000, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)
CACHED = USAGE.cache_read_tokens + USAGE.cache_write_tokens + USAGE.cache_write_1h_tokens


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=4) as database:
        yield database


@pytest.fixture
def query(owner_database_url: str) -> Iterator[Query]:
    """What the tables hold, seen by the superuser."""
    with psycopg.connect(owner_database_url, autocommit=True) as connection:
        yield lambda statement, *parameters: connection.execute(statement.encode(), parameters).fetchall()


async def call(database: Database, hold: Hold, charge_usd: str, outcome: Outcome = "completed") -> UUID:
    await Credits(database).hold(hold)
    assert await Credits(database).settle(build_settlement(hold, charge_usd, outcome))
    return hold.id


async def group(database: Database, user_id: UUID, by: Grouping = "model") -> list[UsageGroup]:
    return await UsageReports(database).group(user_id, START, END, by)


def shift(query: Query, request_id: UUID, ended_at: datetime) -> None:
    times = "UPDATE usage SET started_at = %s, ended_at = %s WHERE request_id = %s RETURNING 1"
    query(times, ended_at - timedelta(milliseconds=1500), ended_at, request_id)


def costs(groups: list[UsageGroup]) -> list[tuple[str | None, str]]:
    return [(each.key, str(each.cost_usd.normalize())) for each in groups]


async def test_calls_of_a_model_are_summed_up_in_all_their_figures(database: Database, query: Query) -> None:
    user_id = await make_user(database, "5")
    for charge in ("0.25", "0.5"):
        shift(query, await call(database, build_hold(user_id), charge), datetime.now(UTC))
    assert await group(database, user_id) == [
        UsageGroup(
            key="openai/gpt-4.1-mini",
            cost_usd=Decimal("0.75"),
            calls=2,
            input_tokens=2 * USAGE.prompt_tokens,
            output_tokens=2 * USAGE.completion_tokens,
            cached_tokens=2 * CACHED,
            duration_ms=3000,
        )
    ]


async def test_what_cost_something_counts_however_it_ended_and_what_cost_nothing_if_it_completed(
    database: Database,
) -> None:
    user_id = await make_user(database, "9")
    await call(database, build_hold(user_id), "0.1", "cancelled")
    await call(database, build_hold(user_id), "0.2", "failed")
    await call(database, build_hold(user_id), "0", "completed")
    await call(database, build_hold(user_id), "0", "failed")
    await Credits(database).hold(build_hold(user_id))
    (only,) = await group(database, user_id)
    assert (only.calls, only.cost_usd) == (3, Decimal("0.3"))


async def test_the_sum_is_what_the_ledger_says_of_calls_whatever_it_is_grouped_by(database: Database) -> None:
    user_id, credits_ = await make_user(database, "9"), Credits(database)
    await call(database, replace(build_hold(user_id), api_key_id=uuid4(), task_type="other"), "0.1", "cancelled")
    corrected = build_hold(user_id)
    await credits_.hold(corrected)
    await credits_.settle(build_settlement(corrected, "0.4", provisional=True))
    await credits_.true_up(build_settlement(corrected, "0.300001"))
    given_back = await call(database, replace(build_hold(user_id), model_id="anthropic/other"), "0.7")
    async with database.as_operator("test").transaction() as connection:
        await refund_call(connection, given_back, actor="operator", reason="sorry")
    totals = await History(database).sum_up(user_id)
    for by in get_args(Grouping):
        assert sum_up(await group(database, user_id, by)).cost_usd == -(totals.consumed_usd + totals.refunded_usd)
    assert totals.consumed_usd + totals.refunded_usd == Decimal("-0.400001")


async def test_groups_are_models_providers_tasks_and_keys_the_dearest_first(database: Database) -> None:
    user_id, key_id = await make_user(database, "9"), uuid4()
    cheap = replace(build_hold(user_id), api_key_id=key_id)
    dear = replace(build_hold(user_id), model_id="a/b", provider_code="a", task_type="web")
    await call(database, cheap, "0.1")
    await call(database, dear, "0.2")
    assert costs(await group(database, user_id, "model")) == [("a/b", "0.2"), ("openai/gpt-4.1-mini", "0.1")]
    assert costs(await group(database, user_id, "provider")) == [("a", "0.2"), ("openai", "0.1")]
    assert costs(await group(database, user_id, "task")) == [("web", "0.2"), ("general", "0.1")]
    assert costs(await group(database, user_id, "key")) == [(None, "0.2"), (str(key_id), "0.1")]


async def test_days_are_those_of_utc_in_their_order(database: Database, query: Query) -> None:
    user_id = await make_user(database, "9")
    midnight = datetime(2025, 3, 1, tzinfo=UTC)
    shift(query, await call(database, build_hold(user_id), "0.1"), midnight)
    shift(query, await call(database, build_hold(user_id), "0.2"), midnight - timedelta(microseconds=1))
    assert costs(await group(database, user_id, "day")) == [("2025-02-28", "0.2"), ("2025-03-01", "0.1")]


async def test_both_ends_of_the_time_are_included(database: Database, query: Query) -> None:
    user_id, reports = await make_user(database, "9"), UsageReports(database)
    at, step = datetime(2025, 3, 1, 12, tzinfo=UTC), timedelta(microseconds=1)
    shift(query, await call(database, build_hold(user_id), "0.1"), at)
    assert len(await reports.group(user_id, at, at, "model")) == 1
    assert await reports.group(user_id, at + step, at + timedelta(days=1), "model") == []
    assert await reports.group(user_id, at - timedelta(days=1), at - step, "model") == []
    assert await reports.group(user_id, at + step, at - step, "model") == []


async def test_nobody_sees_what_others_have_used(database: Database) -> None:
    owner_id, other_id = await make_user(database, "9"), await make_user(database)
    await call(database, build_hold(owner_id), "0.1")
    for by in get_args(Grouping):
        assert await group(database, other_id, by) == []


def test_nothing_sums_up_to_nothing() -> None:
    assert sum_up([]) == UsageGroup(None, Decimal(0), 0, 0, 0, 0, 0)
