"""Money: what is decided in one statement, what is safe to repeat, and what always adds up."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from proxy.ledger import Hold
from storage.credits import Balance, BalanceTooLow, Credits, RequestRepeated, UserUnknown
from storage.journal import Progress
from storage.postgres import Database, open_database
from tests.storage.accounting import check_accounts
from tests.storage.calls import PRICE, USAGE, build_hold, build_settlement, grant, grant_free, make_user
from tests.storage.credit_model import CreditModel

Query = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(120):
        async with open_database(database_url, size=10) as database:
            yield database


@pytest.fixture
def credits_(database: Database) -> Credits:
    return Credits(database)


@pytest.fixture
def query(owner_database_url: str) -> Iterator[Query]:
    """What the tables hold, seen by the superuser."""
    with psycopg.connect(owner_database_url, autocommit=True) as connection:
        yield lambda statement, *parameters: connection.execute(statement.encode(), parameters).fetchall()


async def count_wins(attempts: Sequence[Callable[[], Awaitable[bool]]]) -> int:
    """How many of them said yes, all at once."""
    wins = []

    async def attempt(one: Callable[[], Awaitable[bool]]) -> None:
        wins.append(await one())

    async with trio.open_nursery() as nursery:
        for one in attempts:
            nursery.start_soon(attempt, one)
    return sum(wins)


async def try_hold(credits_: Credits, hold: Hold) -> bool:
    try:
        await credits_.hold(hold)
    except (BalanceTooLow, RequestRepeated):
        return False
    return True


# Holding


async def test_a_hold_takes_from_what_is_available_and_leaves_the_balance(
    database: Database, credits_: Credits, query: Query
) -> None:
    user_id = await make_user(database, "10")
    await credits_.hold(build_hold(user_id, "4.000001"))
    balance = await credits_.balance(user_id)
    assert balance == Balance(Decimal("10.000000"), Decimal("4.000001"))
    assert balance.available_usd == Decimal("5.999999")
    assert query("SELECT count(*) FROM credit_ledger WHERE kind <> 'grant'") == [(0,)]


async def test_a_hold_keeps_what_the_settlement_will_need(database: Database, credits_: Credits, query: Query) -> None:
    hold = build_hold(await make_user(database, "10"), "1", "a key")
    await credits_.hold(hold)
    row = (hold.id, hold.user_id, Decimal(1), "held", hold.model_id, "openai", "general", 12, "a key", True)
    kept = """
        SELECT id, user_id, amount_usd, state, model_id, provider_code, task_type, prompt_tokens, idempotency_key,
               price = %s::jsonb FROM holds
    """
    assert query(kept, PRICE) == [row]


async def test_fifty_holds_at_once_on_credit_for_ten_are_exactly_ten(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database, "10.999999")
    holds = [build_hold(user_id) for _ in range(50)]
    assert await count_wins([lambda hold=hold: try_hold(credits_, hold) for hold in holds]) == 10  # type: ignore[misc] # a default is the bound value
    assert await credits_.balance(user_id) == Balance(Decimal("10.999999"), Decimal(10))


async def test_the_last_cent_can_be_held(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database, "1.000001")
    assert await try_hold(credits_, build_hold(user_id, "1.000001"))
    assert not await try_hold(credits_, build_hold(user_id, "0.000001"))


async def test_a_balance_too_low_says_how_much_is_there(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database, "3")
    await credits_.hold(build_hold(user_id, "2"))
    with pytest.raises(BalanceTooLow) as caught:
        await credits_.hold(build_hold(user_id, "2"))
    assert (caught.value.required_usd, caught.value.available_usd) == (Decimal(2), Decimal(1))


async def test_somebody_without_an_account_can_hold_nothing(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database)
    with pytest.raises(BalanceTooLow):
        await credits_.hold(build_hold(user_id))
    assert await credits_.balance(user_id) == Balance(Decimal(0), Decimal(0))


async def test_holding_the_same_twice_takes_once(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    with pytest.raises(RequestRepeated):
        await credits_.hold(hold)
    assert (await credits_.balance(hold.user_id)).held_usd == 1


async def test_one_user_cannot_hold_anothers_credit(database: Database, credits_: Credits) -> None:
    rich, poor = await make_user(database, "10"), await make_user(database)
    with pytest.raises(BalanceTooLow):
        await credits_.hold(build_hold(poor))
    assert (await credits_.balance(rich)).held_usd == 0


# Idempotency keys


async def test_twenty_requests_with_one_key_at_once_are_one(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database, "100")
    holds = [build_hold(user_id, "1", "key") for _ in range(20)]
    assert await count_wins([lambda hold=hold: try_hold(credits_, hold) for hold in holds]) == 1  # type: ignore[misc] # a default is the bound value
    assert (await credits_.balance(user_id)).held_usd == 1


async def test_a_key_belongs_to_its_user(database: Database, credits_: Credits) -> None:
    for _ in range(2):
        await credits_.hold(build_hold(await make_user(database, "1"), "1", "key"))


async def test_a_completed_call_keeps_its_key(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "10"), "1", "key")
    await credits_.hold(hold)
    await credits_.settle(build_settlement(hold))
    with pytest.raises(RequestRepeated):
        await credits_.hold(build_hold(hold.user_id, "1", "key"))


@pytest.mark.parametrize("outcome", ["cancelled", "failed"])
async def test_a_call_without_an_answer_frees_its_key(
    database: Database, credits_: Credits, outcome: str
) -> None:
    hold = build_hold(await make_user(database, "10"), "1", "key")
    await credits_.hold(hold)
    await credits_.settle(build_settlement(hold, outcome=outcome))  # type: ignore[arg-type] # one of the outcomes
    await credits_.hold(build_hold(hold.user_id, "1", "key"))


async def test_a_repeated_request_and_the_end_of_the_first_do_not_lock_each_other_out(
    database: Database, credits_: Credits, query: Query
) -> None:
    """A hold takes the account, then waits for the end of the one with its key; so an end takes the account first."""
    hold = build_hold(await make_user(database, "10"), "1", "key")
    await credits_.hold(hold)
    async with trio.open_nursery() as nursery, database.as_user(hold.user_id).transaction() as connection:
        await connection.execute("UPDATE credit_balances SET held_usd = held_usd")
        nursery.start_soon(credits_.settle, build_settlement(hold, "0", "cancelled"))
        while not query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await trio.sleep(0.001)
        assert query("SELECT state FROM holds FOR UPDATE NOWAIT") == [("held",)]
    assert await try_hold(credits_, build_hold(hold.user_id, "1", "key"))


# Settling


async def test_settling_charges_releases_and_records(database: Database, credits_: Credits, query: Query) -> None:
    hold = build_hold(await make_user(database, "10"), "5")
    await credits_.hold(hold)
    assert await credits_.settle(build_settlement(hold, "0.123456", provisional=True))
    assert await credits_.balance(hold.user_id) == Balance(Decimal("9.876544"), Decimal(0))
    booked = query("SELECT kind, amount_usd, hold_id, idempotency_key FROM credit_ledger ORDER BY id DESC LIMIT 1")
    assert booked == [("charge", Decimal("-0.123456"), hold.id, f"charge:{hold.id}")]
    used = """
        SELECT outcome, provisional, cost_usd, provider_code, input_tokens, cache_read_tokens, cache_write_tokens,
               output_tokens, reasoning_tokens, cache_write_1h_tokens, input_audio_tokens, output_audio_tokens,
               output_image_tokens, searches FROM usage
    """
    assert query(used) == [("completed", True, Decimal("0.123456"), "openai", *range(10, 0, -1))]
    assert query("SELECT state, charged_usd, settled_at IS NOT NULL FROM holds") == [
        ("settled", Decimal("0.123456"), True)
    ]


async def test_the_usage_says_who_answered_and_the_hold_who_was_to(
    database: Database, credits_: Credits, query: Query
) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    assert await credits_.settle(replace(build_settlement(hold), provider_code="openrouter"))
    assert query("SELECT provider_code FROM usage") == [("openrouter",)]
    assert query("SELECT provider_code FROM holds") == [("openai",)]


async def test_settling_twice_books_one_row(database: Database, credits_: Credits, query: Query) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    settlement = build_settlement(hold)
    assert await credits_.settle(settlement)
    assert not await credits_.settle(settlement)
    assert not await credits_.settle(replace(settlement, charge_usd=Decimal(1)))
    assert query("SELECT count(*) FROM credit_ledger WHERE kind = 'charge'") == [(1,)]
    assert query("SELECT count(*), sum(cost_usd) FROM usage") == [(1, Decimal("0.25"))]


async def test_settling_ten_times_at_once_settles_once(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    settlement = build_settlement(hold)
    assert await count_wins([lambda: credits_.settle(settlement)] * 10) == 1
    assert await credits_.balance(hold.user_id) == Balance(Decimal("9.75"), Decimal(0))


async def test_a_call_that_cost_nothing_leaves_no_row_in_the_ledger(
    database: Database, credits_: Credits, query: Query
) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    assert await credits_.settle(build_settlement(hold, "0", "failed"))
    assert query("SELECT count(*) FROM credit_ledger WHERE kind <> 'grant'") == [(0,)]
    assert query("SELECT outcome, cost_usd FROM usage") == [("failed", Decimal(0))]
    assert await credits_.balance(hold.user_id) == Balance(Decimal(10), Decimal(0))


async def test_more_than_was_held_is_charged_all_the_same(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "1"), "1")
    await credits_.hold(hold)
    assert await credits_.settle(build_settlement(hold, "1.5"))
    assert await credits_.balance(hold.user_id) == Balance(Decimal("-0.5"), Decimal(0))
    assert not await try_hold(credits_, build_hold(hold.user_id, "0.000001"))


async def test_what_was_never_held_cannot_be_settled(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "10"))
    assert not await credits_.settle(build_settlement(hold))
    assert await credits_.balance(hold.user_id) == Balance(Decimal(10), Decimal(0))


async def test_a_hold_is_settled_for_its_own_user_alone(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    other = await make_user(database, "10")
    assert not await credits_.settle(replace(build_settlement(hold), user_id=other))
    assert await credits_.balance(other) == Balance(Decimal(10), Decimal(0))
    assert await credits_.balance(hold.user_id) == Balance(Decimal(10), Decimal(1))


# Leases


async def test_a_renewed_hold_is_not_expired_and_remembers_how_far_it_came(
    database: Database, credits_: Credits
) -> None:
    hold = build_hold(await make_user(database, "10"))
    await Credits(database, lease_seconds=-1).hold(hold)
    progress = Progress(hold.id, True, False, *range(1, 11))
    (expired,) = await credits_.find_expired()
    assert (expired.id, expired.user_id, expired.progress) == (hold.id, hold.user_id, Progress(hold.id))
    await credits_.renew([progress])
    assert await credits_.find_expired() == []
    await credits_.expire([replace(progress, output_tokens=6)])
    assert [one.progress for one in await credits_.find_expired()] == [replace(progress, output_tokens=6)]


async def test_renewing_nothing_and_the_unknown_is_no_error(credits_: Credits) -> None:
    await credits_.renew([])
    await credits_.expire([Progress(uuid4())])
    assert await credits_.find_expired() == []


async def test_the_longest_expired_come_first_and_no_more_than_asked_for(
    database: Database, credits_: Credits
) -> None:
    user_id = await make_user(database, "10")
    holds = [build_hold(user_id) for _ in range(3)]
    for age, hold in enumerate(holds):
        await Credits(database, lease_seconds=-1 - age * 60).hold(hold)
    assert [one.id for one in await credits_.find_expired(2)] == [holds[2].id, holds[1].id]


async def test_a_hold_that_lives_is_not_settled_as_expired(database: Database, credits_: Credits) -> None:
    hold = build_hold(await make_user(database, "10"))
    await credits_.hold(hold)
    assert not await credits_.settle_expired(build_settlement(hold))
    assert (await credits_.balance(hold.user_id)).held_usd == 1


async def test_an_expired_hold_found_by_many_is_settled_once(
    database: Database, credits_: Credits, query: Query
) -> None:
    hold = build_hold(await make_user(database, "10"))
    await Credits(database, lease_seconds=-1).hold(hold)
    settlement = build_settlement(hold, outcome="cancelled", provisional=True)
    assert await count_wins([lambda: credits_.settle_expired(settlement)] * 8) == 1
    assert query("SELECT count(*) FROM credit_ledger WHERE kind = 'charge'") == [(1,)]
    assert query("SELECT state FROM holds") == [("expired",)]


@pytest.mark.parametrize("charge", ["0.75", "0.1", "0.25"])
async def test_a_call_that_outlived_its_lease_is_corrected_by_the_difference(
    database: Database, credits_: Credits, query: Query, charge: str
) -> None:
    hold = build_hold(await make_user(database, "10"))
    await Credits(database, lease_seconds=-1).hold(hold)
    assert await credits_.settle_expired(build_settlement(hold, "0.25", "cancelled", provisional=True))
    late = replace(build_settlement(hold, charge), provider_code="openrouter", usage=replace(USAGE, searches=99))
    assert await count_wins([lambda: credits_.settle(late)] * 4) == 1
    assert await credits_.balance(hold.user_id) == Balance(10 - Decimal(charge), Decimal(0))
    used = query("SELECT outcome, provisional, cost_usd, provider_code, searches FROM usage")
    assert used == [("completed", False, Decimal(charge), "openrouter", 99)]
    corrections = query("SELECT amount_usd FROM credit_ledger WHERE kind = 'correction'")
    difference = Decimal("0.25") - Decimal(charge)
    assert corrections == ([(difference,)] if difference else [])


async def test_the_end_of_a_call_and_the_sweep_at_once_add_up(database: Database, credits_: Credits) -> None:
    """Whoever is first, the call's own word stands."""
    for _ in range(10):
        hold = build_hold(await make_user(database, "10"))
        await Credits(database, lease_seconds=-1).hold(hold)
        guess, truth = build_settlement(hold, "0.1", "cancelled"), build_settlement(hold, "0.7")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(credits_.settle_expired, guess)
            nursery.start_soon(credits_.settle, truth)
        assert await credits_.balance(hold.user_id) == Balance(Decimal("9.3"), Decimal(0))


# Granting


async def test_a_grant_is_booked_once_per_key(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database)
    grants = [lambda: credits_.grant(user_id, Decimal(5), idempotency_key="k", description="d")] * 10
    assert await count_wins(grants) == 1
    assert await credits_.balance(user_id) == Balance(Decimal(5), Decimal(0))


async def test_grants_from_everywhere_at_once_add_up(database: Database, credits_: Credits) -> None:
    user_id = await make_user(database)
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(grant, database, user_id, "0.000001")
    assert (await credits_.balance(user_id)).balance_usd == Decimal("0.000030")


async def test_nobody_unknown_is_granted_anything(credits_: Credits) -> None:
    with pytest.raises(UserUnknown):
        await credits_.grant(UUID(int=1), Decimal(1), idempotency_key="k", description="d")


# All of it


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_the_balance_is_the_sum_of_the_ledger(
    database: Database, credits_: Credits, query: Query, seed: int
) -> None:
    """A walk over all that can happen to two users' calls, beside a model that knows no SQL."""
    users = [await make_user(database) for _ in range(2)]
    model = CreditModel(users)
    draw = random.Random(seed)  # noqa: S311 # the same walk in every run
    for _ in range(200):
        await model.step(credits_, draw)
        check_accounts(query)
        for user_id in users:
            balance = await credits_.balance(user_id)
            assert (balance.balance_usd, balance.held_usd) == (model.balance(user_id), model.held(user_id))
    assert model.seen >= {"held", "too low", "repeated", "settled", "late", "expired", "nothing", "granted"}


async def test_balances_of_many_are_those_of_each(database: Database, credits_: Credits) -> None:
    users = [await make_user(database, "10"), await make_user(database)]
    await grant_free(database, users[0], "2")
    expected = {user: await credits_.balance(user) for user in users}
    assert await credits_.balances([*users, uuid4()]) == expected
