"""The history of credits: every row of the ledger in its place, with what the balance was then."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from storage.accounts import Accounts
from storage.bookings import Bookings, adjust, refund_call
from storage.credits import Credits
from storage.history import Entry, History, Page, build_pattern, find_booked
from storage.postgres import Database, open_database
from storage.purchases import MICRO_USD
from tests.storage.calls import USAGE, build_hold, build_settlement, grant, make_user

GIVEN = Decimal(2)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=4) as database:
        yield database


async def call(database: Database, user_id: UUID, charge_usd: str = "0.25") -> UUID:
    hold = build_hold(user_id, "1")
    await Credits(database).hold(hold)
    assert await Credits(database).settle(build_settlement(hold, charge_usd))
    return hold.id


async def give_bonus(database: Database, user_id: UUID) -> None:
    ends = datetime.now(UTC) + timedelta(days=1)
    key = f"bonus:{user_id}"
    assert await Bookings(database).grant_free(user_id, GIVEN, ends, idempotency_key=key, description="welcome")


async def buy(database: Database, user_id: UUID) -> None:
    """As a purchase is booked, without Stripe: 10 dollars, of which 2 are the fee."""
    purchase_id = uuid4()
    await database.as_operator("test").fetch(
        "INSERT INTO purchases (id, user_id, kind, state, gross_cents, fee_cents, net_cents, stripe_charge_id)"
        " VALUES (%s, %s, 'checkout', 'paid', 1000, 200, 800, 'ch_1')",
        [purchase_id, user_id],
    )
    await book(database, user_id, "purchase", "8", purchase_id, "credit purchase")


async def book(
    database: Database,
    user_id: UUID,
    kind: str,
    amount_usd: str,
    purchase_id: UUID | None = None,
    description: str = "",
) -> None:
    await database.as_operator("test").fetch(
        "INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, purchase_id, description)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        [user_id, kind, amount_usd, str(uuid4()), purchase_id, description],
    )


async def adjust_by(database: Database, user_id: UUID, amount_usd: str, key: str = "k") -> None:
    async with database.as_operator("test").transaction() as connection:
        await adjust(
            connection, user_id, Decimal(amount_usd), actor="operator", reason="a gift", idempotency_key=key
        )


async def list_all(database: Database, user_id: UUID, search: str = "") -> Page:
    return await History(database).list(user_id, limit=100, search=search)


def show(entry: Entry) -> tuple[str, str, str]:
    """Kind, amount and the balance after it."""
    return entry.kind, str(entry.amount_usd.normalize()), str(entry.balance_usd.normalize())


async def test_every_kind_of_row_is_told_with_the_balance_after_it_the_newest_first(database: Database) -> None:
    user_id = await make_user(database, "1")
    await give_bonus(database, user_id)
    await buy(database, user_id)
    request_id = await call(database, user_id)
    async with database.as_operator("test").transaction() as connection:
        await refund_call(connection, request_id, actor="operator", reason="sorry")
    await adjust_by(database, user_id, "-0.5")
    await book(database, user_id, "dispute", "-8")
    await book(database, user_id, "purchase_refund", "-1")
    await book(database, user_id, "expiry", "-0.5")
    page = await list_all(database, user_id)
    assert [show(entry) for entry in page.entries] == [
        ("expiry", "-0.5", "1"),
        ("purchase_refund", "-1", "1.5"),
        ("dispute", "-8", "2.5"),
        ("adjustment", "-0.5", "10.5"),
        ("refund", "0.25", "11"),
        ("charge", "-0.25", "10.75"),
        ("purchase", "8", "11"),
        ("signup_bonus", "2", "3"),
        ("grant", "1", "1"),
    ]
    assert page.total == 9
    balance = await Credits(database).balance(user_id)
    assert page.entries[0].balance_usd == balance.balance_usd


async def test_a_charge_has_its_model_its_tokens_and_its_free_part(database: Database) -> None:
    user_id = await make_user(database)
    await give_bonus(database, user_id)
    request_id = await call(database, user_id)
    charge = (await list_all(database, user_id)).entries[0]
    assert (charge.hold_id, charge.model_id, charge.free_usd) == (request_id, "openai/gpt-4.1-mini", Decimal("-0.25"))
    assert (charge.input_tokens, charge.output_tokens) == (USAGE.prompt_tokens, USAGE.completion_tokens)
    assert charge.cache_write_tokens == USAGE.cache_write_tokens + USAGE.cache_write_1h_tokens
    assert charge.cache_read_tokens == USAGE.cache_read_tokens
    assert (charge.gross_usd, charge.fee_usd, charge.stripe_charge_id) == (None, None, None)


async def test_the_tokens_of_a_call_stand_on_its_first_row_alone(database: Database) -> None:
    """Also where that is a correction, for nothing was charged at first."""
    user_id, credits_ = await make_user(database, "5"), Credits(database)
    for first in ("0.25", "0"):
        hold = build_hold(user_id, "1")
        await credits_.hold(hold)
        await credits_.settle(build_settlement(hold, first, provisional=True))
        await credits_.true_up(build_settlement(hold, "0.5"))
    corrected_nothing, corrected, charged, _ = (await list_all(database, user_id)).entries
    assert [entry.kind for entry in (corrected_nothing, corrected, charged)] == ["correction", "correction", "charge"]
    assert [entry.input_tokens for entry in (corrected_nothing, corrected, charged)] == [
        USAGE.prompt_tokens,
        None,
        USAGE.prompt_tokens,
    ]
    assert corrected.model_id == "openai/gpt-4.1-mini"


async def test_a_purchase_has_what_was_paid_for_it(database: Database) -> None:
    user_id = await make_user(database)
    await buy(database, user_id)
    (purchase,) = (await list_all(database, user_id)).entries
    assert (purchase.gross_usd, purchase.fee_usd, purchase.stripe_charge_id) == (Decimal(10), Decimal(2), "ch_1")
    assert (purchase.hold_id, purchase.model_id, purchase.input_tokens) == (None, None, None)


async def test_pages_join_without_a_gap_and_say_how_many_there_are(database: Database) -> None:
    user_id = await make_user(database)
    for number in range(7):
        await book(database, user_id, "adjustment", f"{number + 1}", description=f"gift {number}")
    whole = await list_all(database, user_id)
    pages = [await History(database).list(user_id, limit=3, offset=offset) for offset in (0, 3, 6, 7)]
    assert [len(page.entries) for page in pages] == [3, 3, 1, 0]
    assert {page.total for page in pages} == {7}
    assert [entry for page in pages for entry in page.entries] == list(whole.entries)
    assert [entry.balance_usd for entry in whole.entries] == [28, 21, 15, 10, 6, 3, 1]


async def test_a_search_finds_parts_of_descriptions_in_any_case_and_keeps_the_balances(database: Database) -> None:
    user_id = await make_user(database)
    for description in ("A Gift", "100% off", "100 percent", "gift_2", "giftX2", "back\\slash"):
        await book(database, user_id, "adjustment", "1", description=description)

    async def find(search: str) -> list[tuple[str, int]]:
        page = await list_all(database, user_id, search)
        assert page.total == len(page.entries)
        return [(entry.description, int(entry.balance_usd)) for entry in page.entries]

    assert await find("GIFT") == [("giftX2", 5), ("gift_2", 4), ("A Gift", 1)]
    assert await find("0%") == [("100% off", 2)]
    assert await find("t_2") == [("gift_2", 4)]
    assert await find("\\") == [("back\\slash", 6)]
    assert await find("'; --") == []


async def test_nobody_sees_what_others_have_booked(database: Database) -> None:
    owner_id, other_id = await make_user(database, "5"), await make_user(database)
    await call(database, owner_id)
    assert await list_all(database, other_id) == Page([], 0)
    assert (await History(database).sum_up(other_id)).rows == 0
    assert (await list_all(database, owner_id)).total == 2


async def test_the_totals_add_up_to_the_balance(database: Database) -> None:
    user_id = await make_user(database, "1")
    await give_bonus(database, user_id)
    await buy(database, user_id)
    await call(database, user_id, "0.000001")
    for kind, amount in (("refund", "0.5"), ("dispute", "-2"), ("expiry", "-0.25"), ("adjustment", "4")):
        await book(database, user_id, kind, amount)
    totals = await History(database).sum_up(user_id)
    assert totals.rows == 8
    assert (totals.purchased_usd, totals.refunded_usd, totals.returned_usd) == tuple(map(Decimal, ("8", "0.5", "-2")))
    assert (totals.consumed_usd, totals.given_usd, totals.expired_usd) == (-MICRO_USD, Decimal(7), Decimal("-0.25"))
    parts = (totals.purchased_usd, totals.refunded_usd, totals.returned_usd, totals.consumed_usd, totals.given_usd)
    assert totals.balance_usd == sum(parts) + totals.expired_usd
    assert totals.balance_usd == (await Credits(database).balance(user_id)).balance_usd


async def test_an_account_begins_with_its_first_row_and_was_changed_by_its_last(database: Database) -> None:
    history, user = History(database), await Accounts(database).make_user("ann@example.com")
    empty = await history.find_dates(user.id)
    assert empty is not None
    assert (empty.free_granted_at, empty.created_at) == (None, empty.updated_at)
    await grant(database, user.id, "1")
    await give_bonus(database, user.id)
    await grant(database, user.id, "1")
    dates = await history.find_dates(user.id)
    last, bonus, first = (await list_all(database, user.id)).entries
    assert dates is not None
    assert (dates.free_granted_at, dates.created_at, dates.updated_at) == (
        bonus.created_at,
        first.created_at,
        last.created_at,
    )
    assert await history.find_dates(uuid4()) is None


async def test_who_books_with_a_key_learns_whether_it_was_booked_before(database: Database) -> None:
    user_id = await make_user(database)
    for is_new in (True, False):
        async with database.as_operator("test").transaction() as connection:
            await adjust(connection, user_id, Decimal(1), actor="operator", reason="gift", idempotency_key="once")
            booked = await find_booked(connection, "once")
            assert booked is not None
            assert (booked.amount_usd, booked.is_new) == (Decimal(1), is_new)
            assert await find_booked(connection, "never") is None


@pytest.mark.parametrize(
    ("search", "pattern"), [("", None), ("Gift", "%Gift%"), ("50%_\\", "%50\\%\\_\\\\%"), ("ä'", "%ä'%")]
)
def test_wildcards_of_a_search_stand_for_themselves(search: str, pattern: str | None) -> None:
    assert build_pattern(search) == pattern
