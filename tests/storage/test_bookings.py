"""What is booked besides calls: free credits and their end, adjustments, and calls given back."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import trio

from storage.bookings import AdjustmentRefused, Bookings, Refunded, adjust, refund_call
from storage.credits import Balance, BalanceTooLow, Credits, UserUnknown
from storage.postgres import Database
from tests.storage.calls import build_hold, build_settlement, grant_free, make_user
from tests.storage.people import Query

ZERO = Decimal(0)


@pytest.fixture
def credits_(accounts: Database) -> Credits:
    return Credits(accounts)


@pytest.fixture
def bookings(accounts: Database) -> Bookings:
    return Bookings(accounts)


async def make_spender(database: Database, free: str, paid: str) -> UUID:
    user_id = await make_user(database, paid)
    await grant_free(database, user_id, free)
    return user_id


async def parts(credits_: Credits, user_id: UUID) -> tuple[Decimal | int, Decimal | int]:
    """Free and paid."""
    balance = await credits_.balance(user_id)
    return balance.free_usd, balance.paid_usd


def expire(ask: Query, user_id: UUID) -> None:
    ask("UPDATE credit_balances SET free_expires_at = now() - interval '1 second' WHERE user_id = %s", user_id)


async def count_wins(attempt: Callable[[], Awaitable[object]], attempts: int = 8) -> int:
    """How many of them, all at once, said that they did something."""
    wins = []

    async def run() -> None:
        wins.append(bool(await attempt()))

    async with trio.open_nursery() as nursery:
        for _ in range(attempts):
            nursery.start_soon(run)
    return sum(wins)


# Free credits


async def test_free_credits_are_part_of_the_balance_until_they_expire(
    bookings: Bookings, accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id, ends_at = await make_user(accounts, "5"), datetime.now(UTC) + timedelta(days=1)
    await bookings.grant_free(user_id, Decimal(2), ends_at, idempotency_key=str(uuid4()), description="")
    balance = await credits_.balance(user_id)
    assert balance == Balance(Decimal(7), ZERO, Decimal(2), ZERO, ends_at)
    assert [balance.available_usd, balance.paid_usd] == [Decimal(7), Decimal(5)]
    expire(ask, user_id)
    balance = await credits_.balance(user_id)
    assert [balance.expired_usd, balance.available_usd] == [Decimal(2), Decimal(5)]


async def test_free_credits_are_given_once_per_key(
    bookings: Bookings, accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id, key = await make_user(accounts), str(uuid4())

    async def give() -> bool:
        return await bookings.grant_free(user_id, Decimal(2), None, idempotency_key=key, description="")

    assert await count_wins(give) == 1
    assert (await credits_.balance(user_id)).free_usd == 2


async def test_credits_given_while_others_live_live_as_long_as_the_longest(
    bookings: Bookings, accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts)
    for days in (5, 10, 3):
        await grant_free(accounts, user_id, "1", days=days)
    ends_at = (await credits_.balance(user_id)).free_expires_at
    assert ends_at is not None
    assert 9.9 < (ends_at - datetime.now(UTC)) / timedelta(days=1) < 10.1
    await bookings.grant_free(user_id, Decimal(1), None, idempotency_key=str(uuid4()), description="")
    await grant_free(accounts, user_id, "1")
    assert (await credits_.balance(user_id)).free_expires_at is None


async def test_expired_credits_do_not_live_on_with_new_ones(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    expire(ask, user_id)
    await grant_free(accounts, user_id, "3")
    assert await parts(credits_, user_id) == (3, 5)
    booked = "SELECT kind, amount_usd, free_usd FROM credit_ledger WHERE user_id = %s AND kind = 'expiry'"
    assert ask(booked, user_id) == [("expiry", Decimal(-2), Decimal(-2))]


async def test_nobody_unknown_is_given_anything(bookings: Bookings) -> None:
    with pytest.raises(UserUnknown):
        await bookings.grant_free(UUID(int=1), Decimal(1), None, idempotency_key=str(uuid4()), description="")


async def test_the_end_of_credits_is_booked_once_however_many_look(
    bookings: Bookings, accounts: Database, credits_: Credits, ask: Query
) -> None:
    expired = [await make_spender(accounts, "2", "5") for _ in range(7)]
    living = await make_spender(accounts, "2", "5")
    for user_id in expired:
        expire(ask, user_id)

    async def look() -> None:
        while await bookings.expire_free(limit=2):
            pass

    await count_wins(look)
    await look()
    assert [await parts(credits_, user_id) for user_id in expired] == [(0, 5)] * 7
    assert await parts(credits_, living) == (2, 5)


async def test_a_look_takes_no_more_than_it_was_asked_to(bookings: Bookings, accounts: Database, ask: Query) -> None:
    while await bookings.expire_free():
        pass
    for _ in range(3):
        expire(ask, await make_spender(accounts, "2", "5"))
    assert [await bookings.expire_free(limit=2) for _ in range(3)] == [2, 1, 0]


async def test_a_hold_and_the_end_of_its_credits_at_once_add_up(
    bookings: Bookings, accounts: Database, credits_: Credits, ask: Query
) -> None:
    """Whoever is first: what is held stays until its call ends."""
    for _ in range(5):
        user_id = await make_spender(accounts, "2", "5")
        ask("UPDATE credit_balances SET free_expires_at = clock_timestamp() WHERE user_id = %s", user_id)
        call = build_hold(user_id, "3")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bookings.expire_free)
            nursery.start_soon(credits_.hold, call)
        await credits_.settle(build_settlement(call, "3"))
        while await bookings.expire_free():
            pass
        assert await parts(credits_, user_id) == (0, 2)


# Adjustments


async def adjust_by(accounts: Database, user_id: UUID, amount: str, key: str | None = None) -> Decimal:
    async with accounts.as_operator("test").transaction() as connection:
        return await adjust(
            connection, user_id, Decimal(amount), actor="user:x", reason="a test", idempotency_key=key or str(uuid4())
        )


async def test_what_an_admin_gives_is_paid_credits_with_actor_and_reason(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts)
    assert await adjust_by(accounts, user_id, "1.5") == Decimal("1.5")
    assert await parts(credits_, user_id) == (0, Decimal("1.5"))
    booked = "SELECT kind, actor, description FROM credit_ledger WHERE user_id = %s"
    assert ask(booked, user_id) == [("adjustment", "user:x", "a test")]


@pytest.mark.parametrize(
    ("amount", "free", "paid"), [("-5", 2, 0), ("-1", 2, 4), ("-6", 1, 0), ("-7", 0, 0), ("0", 2, 5)]
)
async def test_what_an_admin_takes_is_paid_credits_first(
    accounts: Database, credits_: Credits, ask: Query, amount: str, free: int, paid: int
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    assert await adjust_by(accounts, user_id, amount) == free + paid
    assert await parts(credits_, user_id) == (free, paid)


async def test_what_is_held_or_expired_cannot_be_taken(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_spender(accounts, "2", "5")
    await credits_.hold(build_hold(user_id, "1"))
    with pytest.raises(AdjustmentRefused, match=r"6\.000000 USD are available"):
        await adjust_by(accounts, user_id, "-6.000001")
    expire(ask, user_id)
    with pytest.raises(AdjustmentRefused):
        await adjust_by(accounts, user_id, "-5.000001")
    assert await adjust_by(accounts, user_id, "-5") == 2


async def test_a_debt_can_be_paid_and_not_be_made(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "1")
    call = build_hold(user_id)
    await credits_.hold(call)
    await credits_.settle(build_settlement(call, "3"))
    await grant_free(accounts, user_id, "3")
    with pytest.raises(AdjustmentRefused):
        await adjust_by(accounts, user_id, "-1.000001")
    assert await adjust_by(accounts, user_id, "-1") == 0
    assert await parts(credits_, user_id) == (2, -2)
    assert await adjust_by(accounts, user_id, "2") == 2


async def test_an_adjustment_is_booked_once_per_key(accounts: Database, ask: Query) -> None:
    user_id, key = await make_user(accounts, "5"), str(uuid4())
    assert [await adjust_by(accounts, user_id, "-3", key) for _ in range(3)] == [2] * 3


async def test_adjustments_at_once_take_no_more_than_there_is(accounts: Database, ask: Query) -> None:
    user_id = await make_user(accounts, "5")

    async def take() -> bool:
        try:
            await adjust_by(accounts, user_id, "-2")
        except AdjustmentRefused:
            return False
        return True

    assert await count_wins(take) == 2


async def test_nobody_unknown_is_adjusted(accounts: Database) -> None:
    with pytest.raises(UserUnknown):
        await adjust_by(accounts, UUID(int=1), "1")


# Calls given back


async def refund(accounts: Database, request_id: UUID) -> Refunded | None:
    async with accounts.as_operator("test").transaction() as connection:
        return await refund_call(connection, request_id, actor="user:x", reason="a test")


async def refund_and_break(accounts: Database, request_id: UUID) -> None:
    async with accounts.as_operator("test").transaction() as connection:
        assert await refund_call(connection, request_id, actor="user:x", reason="a test")
        raise RuntimeError


async def make_call(credits_: Credits, user_id: UUID, charge: str) -> UUID:
    call = build_hold(user_id, "3")
    await credits_.hold(call)
    await credits_.settle(build_settlement(call, charge, "cancelled", provisional=True))
    return call.id


async def test_a_call_is_given_back_once_and_as_it_was_taken(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call_id = await make_call(credits_, user_id, "2.5")
    assert await parts(credits_, user_id) == (0, Decimal("4.5"))

    async def give_back() -> Refunded | None:
        return await refund(accounts, call_id)

    assert await count_wins(give_back) == 1
    assert await parts(credits_, user_id) == (2, 5)


async def test_who_gives_back_is_told_how_much_and_to_whom(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call_id = await make_call(credits_, user_id, "2.5")
    assert await refund(accounts, call_id) == Refunded(user_id, Decimal("2.5"), Decimal(2))
    booked = "SELECT actor, description, hold_id FROM credit_ledger WHERE user_id = %s AND kind = 'refund'"
    assert ask(booked, user_id) == [("user:x", "a test", call_id)]


async def test_what_was_given_back_is_corrected_no_more(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "5")
    call = build_hold(user_id, "3")
    await Credits(accounts, lease_seconds=-1).hold(call)
    await credits_.settle_expired(build_settlement(call, "1", "cancelled", provisional=True))
    assert await refund(accounts, call.id)
    assert not await credits_.true_up(build_settlement(call, "2"))
    assert not await credits_.settle(build_settlement(call, "2"))
    assert await parts(credits_, user_id) == (0, 5)


async def test_there_is_nothing_to_give_back_of_what_runs_or_was_free_or_unknown(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_user(accounts, "5")
    running = build_hold(user_id)
    await credits_.hold(running)
    free = await make_call(credits_, user_id, "0")
    assert [await refund(accounts, call_id) for call_id in (running.id, free, uuid4())] == [None] * 3


async def test_expired_credits_that_are_given_back_have_expired(
    bookings: Bookings, accounts: Database, credits_: Credits, ask: Query
) -> None:
    """Also if there are new ones by then."""
    user_id = await make_spender(accounts, "2", "5")
    first, second = await make_call(credits_, user_id, "0.5"), await make_call(credits_, user_id, "1.5")
    expire(ask, user_id)
    assert await refund(accounts, first)
    with pytest.raises(BalanceTooLow):
        await credits_.hold(build_hold(user_id, "5.000001"))
    await grant_free(accounts, user_id, "10")
    assert await refund(accounts, second)
    assert await parts(credits_, user_id) == (10, 5)


async def test_a_transaction_that_breaks_gives_nothing_back(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_user(accounts, "5")
    call_id = await make_call(credits_, user_id, "1")
    with pytest.raises(RuntimeError):
        await refund_and_break(accounts, call_id)
    assert await parts(credits_, user_id) == (0, 4)
    assert await refund(accounts, call_id)
