"""How a call is charged: free credits first, what comes back goes back where it was taken, and debts are remembered."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest
import trio

from proxy.ledger import Hold
from storage.bookings import Bookings
from storage.credits import BalanceTooLow, Credits
from storage.postgres import Database
from tests.storage.calls import build_hold, build_settlement, grant_free, make_user
from tests.storage.people import Query

ZERO = Decimal(0)


@pytest.fixture
def credits_(accounts: Database) -> Credits:
    return Credits(accounts)


async def make_spender(database: Database, free: str, paid: str) -> UUID:
    user_id = await make_user(database, paid)
    await grant_free(database, user_id, free)
    return user_id


async def hold(credits_: Credits, user_id: UUID, amount: str) -> Hold:
    hold = build_hold(user_id, amount)
    await credits_.hold(hold)
    return hold


async def parts(credits_: Credits, user_id: UUID) -> tuple[Decimal, Decimal]:
    """Free and paid."""
    balance = await credits_.balance(user_id)
    return balance.free_usd, balance.paid_usd


def expire(ask: Query, user_id: UUID) -> None:
    """The user's free credits, a second ago."""
    ask("UPDATE credit_balances SET free_expires_at = now() - interval '1 second' WHERE user_id = %s", user_id)


# Free first


@pytest.mark.parametrize(
    ("charge", "free", "paid"), [("0", "2", "5"), ("0.5", "1.5", "5"), ("2", "0", "5"), ("2.75", "0", "4.25")]
)
async def test_free_credits_are_charged_first(
    accounts: Database, credits_: Credits, ask: Query, charge: str, free: str, paid: str
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = await hold(credits_, user_id, "3")
    assert (await credits_.balance(user_id)).held_free_usd == 2
    await credits_.settle(build_settlement(call, charge))
    assert await parts(credits_, user_id) == (Decimal(free), Decimal(paid))


async def test_a_call_holds_the_free_credits_that_no_other_call_holds(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    first, second = await hold(credits_, user_id, "1.5"), await hold(credits_, user_id, "1.5")
    held = "SELECT free_usd FROM holds WHERE user_id = %s ORDER BY created_at"
    assert ask(held, user_id) == [(Decimal("1.5"),), (Decimal("0.5"),)]
    await credits_.settle(build_settlement(second, "1.5"))
    assert await parts(credits_, user_id) == (Decimal("1.5"), Decimal(4))
    await credits_.settle(build_settlement(first, "0"))
    assert await parts(credits_, user_id) == (Decimal("1.5"), Decimal(4))


async def test_a_charge_above_its_hold_takes_free_credits_that_nobody_holds_and_then_paid_ones(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "3", "5")
    call, other = await hold(credits_, user_id, "1"), await hold(credits_, user_id, "1.5")
    await credits_.settle(build_settlement(call, "2"))
    assert await parts(credits_, user_id) == (Decimal("1.5"), Decimal("4.5"))
    await credits_.settle(build_settlement(other, "1.5"))
    assert await parts(credits_, user_id) == (ZERO, Decimal("4.5"))


async def test_calls_that_end_at_once_share_the_free_credits_that_are_left(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    for _ in range(3):
        user_id = await make_spender(accounts, "3", "100")
        calls = [await hold(credits_, user_id, "0.25") for _ in range(8)]
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(credits_.settle, build_settlement(call, "0.5"))
        assert await parts(credits_, user_id) == (ZERO, Decimal(99))


async def test_what_is_lacking_becomes_a_debt_and_nothing_is_held_before_it_is_paid(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "1", "1")
    call = await hold(credits_, user_id, "2")
    await credits_.settle(build_settlement(call, "3"))
    assert await parts(credits_, user_id) == (ZERO, Decimal(-1))
    await grant_free(accounts, user_id, "1")
    with pytest.raises(BalanceTooLow):
        await hold(credits_, user_id, "0.000001")
    await grant_free(accounts, user_id, "0.000001")
    await hold(credits_, user_id, "0.000001")


# What comes back


@pytest.mark.parametrize(
    ("charge", "free", "paid"),
    [("3", "0", "4"), ("2.5", "0", "4.5"), ("2", "0", "5"), ("0.5", "1.5", "5"), ("0", "2", "5"), ("4", "0", "3")],
)
async def test_a_correction_goes_along_the_split_of_the_charge(
    accounts: Database, credits_: Credits, ask: Query, charge: str, free: str, paid: str
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = build_hold(user_id, "3")
    await Credits(accounts, lease_seconds=-1).hold(call)
    assert await credits_.settle_expired(build_settlement(call, "3", "cancelled"))
    assert await credits_.settle(build_settlement(call, charge))
    assert await parts(credits_, user_id) == (Decimal(free), Decimal(paid))


async def test_corrections_are_numbered(accounts: Database, credits_: Credits, ask: Query) -> None:
    call = build_hold(await make_user(accounts, "5"))
    await Credits(accounts, lease_seconds=-1).hold(call)
    for charge in ("0.1", "0.2", "0.3"):
        settlement = build_settlement(call, charge, "cancelled", provisional=True)
        assert await credits_.settle_expired(settlement) or await credits_.correct_expired(settlement)
    assert await credits_.settle(build_settlement(call, "0.4"))
    keys = ask("SELECT replace(idempotency_key, hold_id::text, '') FROM credit_ledger WHERE hold_id = %s", call.id)
    assert keys == [("charge:",), ("correction::0",), ("correction::1",), ("correction::2",)]


# Trueing up


async def test_a_provisional_charge_follows_what_the_provider_says_once(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = await hold(credits_, user_id, "3")
    await credits_.settle(build_settlement(call, "2.5", "cancelled", provisional=True))
    when = "SELECT ended_at, settled_at FROM usage JOIN holds ON request_id = id WHERE id = %s"
    ended = ask(when, call.id)
    truth = build_settlement(call, "1.25", "cancelled")
    assert await credits_.true_up(truth)
    assert not await credits_.true_up(replace(truth, charge_usd=Decimal(1)))
    assert await parts(credits_, user_id) == (Decimal("0.75"), Decimal(5))
    assert ask("SELECT cost_usd, provisional FROM usage WHERE request_id = %s", call.id) == [(Decimal("1.25"), False)]
    assert ask(when, call.id) == ended


@pytest.mark.parametrize("is_settled", [True, False])
async def test_a_charge_that_is_not_provisional_is_not_trued_up(
    accounts: Database, credits_: Credits, ask: Query, is_settled: bool
) -> None:
    call = build_hold(await make_user(accounts, "5"))
    await credits_.hold(call)
    if is_settled:
        await credits_.settle(build_settlement(call, "0.5"))
    assert not await credits_.true_up(build_settlement(call, "0.25"))


async def test_the_word_of_the_provider_is_the_last(accounts: Database, credits_: Credits, ask: Query) -> None:
    """Its owner was taken for dead, and has only counted."""
    call = build_hold(await make_user(accounts, "5"))
    await Credits(accounts, lease_seconds=-1).hold(call)
    guess = build_settlement(call, "0.1", "cancelled", provisional=True)
    await credits_.settle_expired(guess)
    assert await credits_.true_up(build_settlement(call, "0.3", "cancelled"))
    assert not await credits_.settle(replace(guess, charge_usd=Decimal("0.2")))
    assert (await credits_.balance(call.user_id)).balance_usd == Decimal("4.7")


async def test_the_id_of_an_answer_is_kept_for_asking_later(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    call = build_hold(await make_user(accounts, "5"), api_key_id=UUID(int=7))
    await credits_.hold(call)
    await credits_.settle(replace(build_settlement(call), upstream_id="gen-1"))
    kept = "SELECT upstream_id, api_key_id FROM usage WHERE request_id = %s"
    assert ask(kept, call.id) == [("gen-1", UUID(int=7))]


# Expiry


async def test_expired_free_credits_cannot_be_held(accounts: Database, credits_: Credits, ask: Query) -> None:
    user_id = await make_spender(accounts, "2", "5")
    expire(ask, user_id)
    with pytest.raises(BalanceTooLow) as caught:
        await hold(credits_, user_id, "5.000001")
    assert caught.value.available_usd == 5
    call = await hold(credits_, user_id, "5")
    await credits_.settle(build_settlement(call, "6"))
    assert await parts(credits_, user_id) == (Decimal(2), Decimal(-1))


async def test_a_running_call_may_use_the_free_credits_that_it_holds_after_their_day(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = await hold(credits_, user_id, "1.5")
    expire(ask, user_id)
    assert await Bookings(accounts).expire_free()
    assert await parts(credits_, user_id) == (Decimal("1.5"), Decimal(5))
    await credits_.settle(build_settlement(call, "1"))
    assert await Bookings(accounts).expire_free()
    assert await parts(credits_, user_id) == (ZERO, Decimal(5))


async def test_what_a_call_leaves_of_expired_credits_does_not_join_new_ones(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = await hold(credits_, user_id, "2")
    expire(ask, user_id)
    await grant_free(accounts, user_id, "10")
    await credits_.settle(build_settlement(call, "0.5"))
    assert await parts(credits_, user_id) == (Decimal(10), Decimal(5))


async def test_a_correction_does_not_bring_expired_credits_back(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = await hold(credits_, user_id, "2")
    await credits_.settle(build_settlement(call, "2", "cancelled", provisional=True))
    expire(ask, user_id)
    await grant_free(accounts, user_id, "10")
    assert await credits_.true_up(build_settlement(call, "0.5"))
    assert await parts(credits_, user_id) == (Decimal(10), Decimal(5))


async def test_expired_credits_come_back_from_one_call_again_and_again(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    user_id = await make_spender(accounts, "2", "5")
    call = build_hold(user_id, "2")
    await Credits(accounts, lease_seconds=-1).hold(call)
    expire(ask, user_id)
    await grant_free(accounts, user_id, "10")
    guess = build_settlement(call, "1.5", "cancelled", provisional=True)
    assert await credits_.settle_expired(guess)
    assert await credits_.correct_expired(replace(guess, charge_usd=Decimal(1)))
    assert await credits_.settle(build_settlement(call, "0.5"))
    assert await parts(credits_, user_id) == (Decimal(10), Decimal(5))


async def test_a_charge_above_a_hold_of_the_last_lot_takes_no_free_credits_of_this_one(
    accounts: Database, credits_: Credits, ask: Query
) -> None:
    """Else a correction could not tell them apart."""
    user_id = await make_spender(accounts, "2", "5")
    call = await hold(credits_, user_id, "2")
    expire(ask, user_id)
    await grant_free(accounts, user_id, "10")
    await credits_.settle(build_settlement(call, "3"))
    assert await parts(credits_, user_id) == (Decimal(10), Decimal(4))
