"""What a user, or one of its keys, may spend in a day or month, as holds and settlements keep it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import trio

from proxy.ledger import Hold
from storage.bookings import refund_call
from storage.credits import BalanceTooLow, Credits, SpendingLimitReached
from storage.postgres import Database
from tests.storage.calls import build_hold, build_settlement, make_user
from tests.storage.people import Query

MAKE_LIMIT = "INSERT INTO spending_limits (user_id, api_key_id, period, limit_usd) VALUES (%s, %s, %s, %s) RETURNING id"
MAKE_KEY = """
    INSERT INTO api_keys (user_id, key_hash, hint, label, scopes)
    VALUES (%s, encode(sha256(gen_random_uuid()::text::bytea), 'hex'), 'h', 'l', '{read}') RETURNING id
"""


@pytest.fixture
def credits_(accounts: Database) -> Credits:
    return Credits(accounts)


@pytest.fixture(autouse=True)
async def not_over_the_end_of_a_day() -> None:
    """In which a period may end, too."""
    now = datetime.now(UTC)
    left = now.replace(hour=23, minute=59, second=59) - now
    if left < timedelta(seconds=30):
        await trio.sleep(left.total_seconds() + 1)


def limit(ask: Query, user_id: UUID, amount: str, period: str = "day", key_id: UUID | None = None) -> UUID:
    ((limit_id,),) = ask(MAKE_LIMIT, user_id, key_id, period, Decimal(amount))
    assert isinstance(limit_id, UUID)
    return limit_id


def make_key(ask: Query, user_id: UUID) -> UUID:
    ((key_id,),) = ask(MAKE_KEY, user_id)
    assert isinstance(key_id, UUID)
    return key_id


def state_of(ask: Query, limit_id: UUID) -> list[Decimal]:
    """Held and spent."""
    ((held, spent),) = ask("SELECT held_usd, spent_usd FROM spending_limits WHERE id = %s", limit_id)
    return [held, spent]


def go_back(ask: Query, limit_id: UUID) -> None:
    """As if all this had been a period ago."""
    ask(
        """
        WITH old AS (
            UPDATE spending_limits SET period_start = period_start - ('1 ' || period)::interval WHERE id = %s
            RETURNING user_id
        ), calls AS (
            UPDATE holds SET settled_at = settled_at - interval '32 days' FROM old WHERE holds.user_id = old.user_id
        ), notices AS (
            UPDATE billing_notices SET notice_key = 'old ' || notice_key FROM old
            WHERE billing_notices.user_id = old.user_id
        )
        UPDATE usage SET ended_at = ended_at - interval '32 days' FROM old WHERE usage.user_id = old.user_id
        """,
        limit_id,
    )


async def hold(credits_: Credits, user_id: UUID, amount: str = "1", key_id: UUID | None = None) -> Hold:
    call = build_hold(user_id, amount, api_key_id=key_id)
    await credits_.hold(call)
    return call


async def spend(credits_: Credits, user_id: UUID, charge: str, key_id: UUID | None = None) -> Hold:
    call = await hold(credits_, user_id, charge, key_id)
    await credits_.settle(build_settlement(call, charge, "cancelled", provisional=True))
    return call


async def test_sixty_four_holds_at_once_under_a_limit_for_ten_are_exactly_ten(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts, "1000")
    day, month = limit(ask, user_id, "10.5"), limit(ask, user_id, "20", "month")
    held = []

    async def attempt() -> None:
        try:
            held.append(await hold(credits_, user_id))
        except SpendingLimitReached as error:
            assert "spending limit of 10.500000 USD a day" in str(error)  # noqa: PT017 - of each that fails

    async with trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(attempt)
    assert len(held) == 10
    assert state_of(ask, day) == state_of(ask, month) == [Decimal(10), Decimal(0)]
    async with trio.open_nursery() as nursery:
        for call in held:
            nursery.start_soon(credits_.settle, build_settlement(call, "0.25"))
    assert state_of(ask, day) == state_of(ask, month) == [Decimal(0), Decimal("2.5")]


async def test_a_limit_of_a_key_is_for_that_key_alone(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "100")
    key, other = make_key(ask, user_id), make_key(ask, user_id)
    of_key, of_user = limit(ask, user_id, "1", key_id=key), limit(ask, user_id, "3")
    await spend(credits_, user_id, "1", key)
    with pytest.raises(SpendingLimitReached, match="this API key's"):
        await hold(credits_, user_id, "0.5", key)
    await spend(credits_, user_id, "1", other)
    await spend(credits_, user_id, "1")
    with pytest.raises(SpendingLimitReached, match="your"):
        await hold(credits_, user_id, "0.5")
    assert state_of(ask, of_key) + state_of(ask, of_user) == [0, 1, 0, 3]


async def test_a_limit_of_one_user_is_nothing_to_others(accounts: Database, credits_: Credits, ask: Query) -> None:
    limited, free = await make_user(accounts, "100"), await make_user(accounts, "100")
    limit(ask, limited, "0")
    with pytest.raises(SpendingLimitReached):
        await hold(credits_, limited)
    await hold(credits_, free)


async def test_who_has_neither_room_nor_credits_is_told_of_the_limit(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts)
    limit_id = limit(ask, user_id, "1")
    with pytest.raises(SpendingLimitReached):
        await hold(credits_, user_id, "2")
    with pytest.raises(BalanceTooLow):
        await hold(credits_, user_id, "0.5")
    assert state_of(ask, limit_id) == [0, 0]


async def test_a_new_limit_knows_what_was_spent_and_what_is_held(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts, "100")
    key = make_key(ask, user_id)
    running = await hold(credits_, user_id, "3", key)
    await spend(credits_, user_id, "1", key)
    await spend(credits_, user_id, "2")
    of_user, of_key = limit(ask, user_id, "50"), limit(ask, user_id, "50", "month", key)
    assert state_of(ask, of_user) + state_of(ask, of_key) == [3, 3, 3, 1]
    await credits_.settle(build_settlement(running, "0.5"))
    assert state_of(ask, of_user) + state_of(ask, of_key) == [0, Decimal("3.5"), 0, Decimal("1.5")]


async def test_limits_that_are_made_while_calls_begin_and_end_miss_none(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts, "100")
    key = make_key(ask, user_id)

    async def call() -> None:
        for _ in range(8):
            await spend(credits_, user_id, "0.1", key)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(call)
        for key_id in (None, key):
            for period in ("day", "month"):
                await trio.to_thread.run_sync(limit, ask, user_id, "50", period, key_id)
    spent = ask("SELECT held_usd, spent_usd FROM spending_limits WHERE user_id = %s", user_id)
    assert spent == [(Decimal(0), Decimal("3.2"))] * 4


# Periods


async def test_a_new_period_begins_with_nothing_spent(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "100")
    limit_id = limit(ask, user_id, "1")
    await spend(credits_, user_id, "1")
    go_back(ask, limit_id)
    call = await hold(credits_, user_id, "1")
    with pytest.raises(SpendingLimitReached):
        await hold(credits_, user_id, "0.1")
    await credits_.settle(build_settlement(call, "0.75"))
    assert state_of(ask, limit_id) == [0, Decimal("0.75")]


async def test_a_call_counts_in_the_period_in_which_it_ends(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "100")
    limit_id = limit(ask, user_id, "5")
    await spend(credits_, user_id, "1")
    call = await hold(credits_, user_id, "2")
    go_back(ask, limit_id)
    await credits_.settle(build_settlement(call, "1.5"))
    assert state_of(ask, limit_id) == [0, Decimal("1.5")]


async def test_trueing_up_a_call_of_the_last_period_gives_no_room_in_this_one(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts, "100")
    limit_id = limit(ask, user_id, "5")
    first, second = await spend(credits_, user_id, "1"), await spend(credits_, user_id, "1")
    go_back(ask, limit_id)
    await credits_.true_up(build_settlement(first, "0.25"))
    await spend(credits_, user_id, "2")
    await credits_.true_up(build_settlement(second, "0.5"))
    assert state_of(ask, limit_id) == [0, 2]


async def test_a_correction_and_a_refund_of_this_period_change_what_is_spent(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts, "100")
    limit_id = limit(ask, user_id, "5")
    first, second = await spend(credits_, user_id, "1"), await spend(credits_, user_id, "2")
    await credits_.true_up(build_settlement(first, "1.5"))
    assert state_of(ask, limit_id) == [0, Decimal("3.5")]
    async with accounts.as_operator("test").transaction() as connection:
        await refund_call(connection, second.id, actor="system", reason="")
    assert state_of(ask, limit_id) == [0, Decimal("1.5")]


async def test_a_call_that_waited_while_a_period_began_does_not_begin_the_old_one_again(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    """The settlement that came to the lock first has begun the new one."""
    user_id = await make_user(accounts, "100")
    limit_id = limit(ask, user_id, "5")
    await spend(credits_, user_id, "1")
    ask("UPDATE spending_limits SET period_start = period_start + interval '1 day' WHERE id = %s", limit_id)
    await spend(credits_, user_id, "2")
    assert state_of(ask, limit_id) == [0, 1]
    assert ask("DELETE FROM spending_limits WHERE id = %s RETURNING period_start > now()", limit_id) == [(True,)]


# What a user is told


async def test_a_threshold_is_told_once_in_a_period(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "100")
    limit_id = limit(ask, user_id, "10")
    told = """
        SELECT kind, details->>'limitId', (details->>'percent')::int, details->>'limitUsd', details->>'spentUsd'
        FROM billing_notices WHERE user_id = %s ORDER BY 3
    """
    await spend(credits_, user_id, "4.999999")
    assert ask(told, user_id) == []
    await spend(credits_, user_id, "0.000001")
    await spend(credits_, user_id, "1")
    half = ("spending_threshold", str(limit_id), 50, "10.000000", "5.000000")
    assert ask(told, user_id) == [half]
    call = await hold(credits_, user_id, "4")
    await credits_.settle(build_settlement(call, "6"))
    assert [percent for _, _, percent, *_ in ask(told, user_id)] == [50, 80, 100]
    go_back(ask, limit_id)
    await spend(credits_, user_id, "5")
    await spend(credits_, user_id, "1")
    assert [percent for _, _, percent, *_ in ask(told, user_id)] == [50, 50, 80, 100]


async def test_calls_that_end_at_once_tell_a_threshold_once(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "100")
    limit(ask, user_id, "10")
    calls = [await hold(credits_, user_id) for _ in range(10)]
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(credits_.settle, build_settlement(call, "1"))
    told = "SELECT (details->>'percent')::int FROM billing_notices WHERE user_id = %s ORDER BY 1"
    assert ask(told, user_id) == [(50,), (80,), (100,)]


async def test_nothing_spent_tells_nothing(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "100")
    call = await hold(credits_, user_id)
    limit(ask, user_id, "0")
    await credits_.settle(replace(build_settlement(call, "0"), outcome="failed"))
    assert ask("SELECT kind FROM billing_notices WHERE user_id = %s", user_id) == []
