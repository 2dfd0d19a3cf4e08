"""Purchases: an order before anything else, credits booked once whatever happens, and taken back in proportion."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import LiteralString
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from storage.audit import AuditEntry, AuditLog
from storage.credits import Credits, UserUnknown
from storage.errors import StorageError
from storage.postgres import Database, open_database
from storage.purchases import (
    Paid,
    PaymentUsedTwice,
    Purchase,
    PurchaseChanged,
    Purchases,
    SetupSession,
    TopOffUnderWay,
    compute_taken_back_usd,
)
from tests.storage.calls import make_user
from tests.storage.people import ENTRY, Query, wait_until_somebody_waits

CENTS = (1000, 200, 800)
PAID = Paid(1190, "pi_1", "ch_1")
DELETION: tuple[LiteralString, ...] = (
    "SELECT FROM credit_balances WHERE user_id = %s FOR UPDATE",
    "SELECT FROM users WHERE id = %s FOR UPDATE",
    "DELETE FROM users WHERE id = %s",
)
"""As storage/sign_ins.py does it."""
LEDGER = "SELECT kind, amount_usd, free_usd, idempotency_key FROM credit_ledger ORDER BY id"


def build_entry(purchase: Purchase) -> AuditEntry:
    return AuditEntry("test", "success", "system", purchase.user_id, details={"bookings": purchase.bookings})


@pytest.fixture
async def purchases(database_url: str) -> AsyncIterator[Purchases]:
    async with open_database(database_url, size=8) as database:
        yield Purchases(database, AuditLog(database, "eu", "only-for-tests-0123456789abcdef-0123456789"))


@pytest.fixture
def database(purchases: Purchases) -> Database:
    return purchases.database


@pytest.fixture
async def user_id(database: Database) -> UUID:
    return await make_user(database)


@pytest.fixture
async def order(purchases: Purchases, user_id: UUID) -> Purchase:
    return await purchases.open(uuid4(), user_id, "checkout", CENTS)


async def find(purchases: Purchases, order: Purchase) -> Purchase:
    found = await purchases.find(order.id)
    assert found is not None
    return found


async def read_balance(purchases: Purchases, user_id: UUID) -> Decimal:
    balance = await Credits(purchases.database).balance(user_id)
    assert balance.free_usd == 0
    return balance.balance_usd


async def take_back(purchases: Purchases, order: Purchase, refunded: int, disputed: int = 0) -> Decimal:
    return await purchases.set_returned(order.id, refunded, disputed, build_entry)


# Orders


async def test_an_order_is_opened_once(purchases: Purchases, user_id: UUID) -> None:
    id_ = uuid4()
    order = await purchases.open(id_, user_id, "checkout", CENTS)
    assert (order.id, order.user_id, order.kind, order.state) == (id_, user_id, "checkout", "open")
    assert (order.gross_cents, order.fee_cents, order.net_cents) == CENTS
    assert (order.currency, order.total_cents, order.paid_at, order.bookings) == ("usd", None, None, 0)
    assert await purchases.open(id_, user_id, "checkout", (500, 100, 400)) == order
    assert await purchases.find(id_) == order


async def test_nobody_orders_for_a_user_that_is_not_there(purchases: Purchases) -> None:
    with pytest.raises(UserUnknown):
        await purchases.open(uuid4(), uuid4(), "checkout", CENTS)


async def test_a_user_has_one_open_top_off_whoever_opens_it_at_once(purchases: Purchases, user_id: UUID) -> None:
    opened: list[Purchase] = []
    refused: list[TopOffUnderWay] = []

    async def try_to_open() -> None:
        try:
            opened.append(await purchases.open(uuid4(), user_id, "top_off", CENTS))
        except TopOffUnderWay as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(try_to_open)
    assert (len(opened), len(refused)) == (1, 15)
    assert await purchases.open(opened[0].id, user_id, "top_off", CENTS) == opened[0]
    await purchases.open(uuid4(), user_id, "checkout", CENTS)
    await purchases.end(opened[0].id, "failed", "declined")
    await purchases.open(uuid4(), user_id, "top_off", CENTS)


async def test_an_order_is_found_by_whatever_stripe_calls_it(purchases: Purchases, order: Purchase) -> None:
    await purchases.note_session(order.id, "cs_1", "cus_1")
    await purchases.note_invoice(order.id, "in_1", "cus_1")
    await purchases.book(order.id, PAID, build_entry)
    for reference in ("cs_1", "in_1", "pi_1", "ch_1"):
        found = await purchases.find_by_reference(reference)
        assert found is not None
        assert (found.id, found.stripe_customer_id) == (order.id, "cus_1")
    assert await purchases.find_by_reference("cs_2") is None


async def test_the_first_session_of_an_order_stays(purchases: Purchases, order: Purchase) -> None:
    await purchases.note_session(order.id, "cs_1", "cus_1")
    await purchases.note_session(order.id, "cs_2", "cus_2")
    found = await find(purchases, order)
    assert (found.stripe_session_id, found.stripe_customer_id) == ("cs_1", "cus_1")


async def test_a_session_is_found_by_its_own_user_alone(purchases: Purchases, order: Purchase) -> None:
    await purchases.note_session(order.id, "cs_1", "cus_1")
    assert await purchases.find_of_user(order.user_id, "cs_1") == await purchases.find(order.id)
    assert await purchases.find_of_user(await make_user(purchases.database), "cs_1") is None
    assert await purchases.find_of_user(order.user_id, "cs_2") is None


async def test_open_orders_are_found_by_age(purchases: Purchases, user_id: UUID, query: Query) -> None:
    now = datetime.now(UTC)
    orders = [await purchases.open(uuid4(), user_id, "checkout", CENTS) for _ in range(4)]
    top_off = await purchases.open(uuid4(), user_id, "top_off", CENTS)
    for hours, one in enumerate([*orders, top_off]):
        query("UPDATE purchases SET created_at = now() - make_interval(hours => %s) WHERE id = %s", hours, one.id)
    await purchases.end(orders[2].id, "expired", "")
    found = await purchases.find_open("checkout", now - timedelta(minutes=30), 10)
    assert [one.id for one in found] == [orders[3].id, orders[1].id]
    assert len(await purchases.find_open("checkout", now - timedelta(minutes=30), 1)) == 1


async def test_an_order_that_comes_to_nothing_ends_once(purchases: Purchases, order: Purchase) -> None:
    assert await purchases.end(order.id, "failed", "declined")
    assert not await purchases.end(order.id, "expired", "too late")
    found = await find(purchases, order)
    assert (found.state, found.failure) == ("failed", "declined")


# Booking


async def test_what_was_paid_is_booked_once_without_fee_and_tax(
    purchases: Purchases, order: Purchase, query: Query
) -> None:
    assert await purchases.book(order.id, PAID, build_entry)
    assert not await purchases.book(order.id, PAID, build_entry)
    assert await read_balance(purchases, order.user_id) == 8
    assert query(LEDGER) == [("purchase", 8, 0, f"purchase:{order.id}")]
    found = await find(purchases, order)
    assert (found.state, found.total_cents, found.bookings) == ("paid", 1190, 1)
    assert (found.stripe_payment_intent_id, found.stripe_charge_id) == ("pi_1", "ch_1")
    assert found.paid_at is not None


async def test_of_many_who_book_at_once_one_does(purchases: Purchases, order: Purchase) -> None:
    booked: list[bool] = []

    async def book() -> None:
        booked.append(await purchases.book(order.id, PAID, build_entry))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(book)
    assert sorted(booked) == [False] * 19 + [True]
    assert await read_balance(purchases, order.user_id) == 8


@pytest.mark.parametrize("state", ["failed", "expired"])
async def test_an_order_that_was_given_up_is_booked_when_the_money_comes(
    purchases: Purchases, order: Purchase, state: str
) -> None:
    await purchases.end(order.id, "failed" if state == "failed" else "expired", "given up")
    assert await purchases.book(order.id, PAID, build_entry)
    found = await find(purchases, order)
    assert (found.state, found.failure) == ("paid", None)
    assert not await purchases.end(order.id, "expired", "")


async def test_a_payment_pays_for_one_order(purchases: Purchases, order: Purchase) -> None:
    other = await purchases.open(uuid4(), order.user_id, "checkout", CENTS)
    await purchases.book(order.id, PAID, build_entry)
    for paid in (Paid(1190, "pi_1", "ch_2"), Paid(1190, "pi_2", "ch_1")):
        with pytest.raises(PaymentUsedTwice):
            await purchases.book(other.id, paid, build_entry)
    assert await read_balance(purchases, order.user_id) == 8
    assert (await find(purchases, other)).state == "open"


async def test_an_order_that_is_not_there_is_not_booked(purchases: Purchases, query: Query) -> None:
    assert not await purchases.book(uuid4(), PAID, build_entry)
    assert await purchases.set_returned(uuid4(), 1, 1, build_entry) == 0
    assert query("SELECT 1 FROM credit_ledger UNION ALL SELECT 1 FROM audit_log") == []


async def test_booking_and_its_row_in_the_audit_log_are_one(
    purchases: Purchases, order: Purchase, query: Query
) -> None:
    def refuse(purchase: Purchase) -> AuditEntry:
        raise StorageError("the log is full")

    with pytest.raises(StorageError, match="full"):
        await purchases.book(order.id, PAID, refuse)
    assert (await find(purchases, order)) == order
    await purchases.book(order.id, PAID, build_entry)
    with pytest.raises(StorageError, match="full"):
        await purchases.set_returned(order.id, 100, 0, refuse)
    assert await read_balance(purchases, order.user_id) == 8
    await take_back(purchases, order, 100)
    assert query("SELECT details FROM audit_log ORDER BY sequence") == [({"bookings": 1},), ({"bookings": 2},)]


@pytest.mark.parametrize(("credits_usd", "locks_before"), [("0", 2), ("5", 1), ("5", 2)])
async def test_a_booking_that_meets_the_deletion_of_the_account_waits_for_it(
    purchases: Purchases, query: Query, credits_usd: str, locks_before: int
) -> None:
    """With a balance and without one, whichever lock the deletion has by then: nobody dies of a deadlock."""
    user_id = await make_user(purchases.database, credits_usd)
    order = await purchases.open(uuid4(), user_id, "checkout", CENTS)
    booked: list[bool] = []

    async def book() -> None:
        booked.append(await purchases.book(order.id, PAID, build_entry))

    async with trio.open_nursery() as nursery, purchases.database.as_operator("test").transaction() as connection:
        for number, statement in enumerate(DELETION):
            if number == locks_before:
                nursery.start_soon(book)
                await wait_until_somebody_waits(query)
            await connection.send(connection.bind(statement, [user_id]))
    assert booked == [False]
    assert query("SELECT 1 FROM purchases UNION ALL SELECT 1 FROM credit_ledger") == []


# Taking back


async def test_credits_go_in_proportion_to_what_went_back(purchases: Purchases, order: Purchase, query: Query) -> None:
    await purchases.book(order.id, PAID, build_entry)
    assert await take_back(purchases, order, 595) == -4
    assert await take_back(purchases, order, 595) == 0
    assert await take_back(purchases, order, 1190) == -4
    assert await read_balance(purchases, order.user_id) == 0
    assert query(LEDGER)[1:] == [
        ("purchase_refund", -4, 0, f"purchase:{order.id}:1"),
        ("purchase_refund", -4, 0, f"purchase:{order.id}:2"),
    ]


async def test_a_dispute_takes_all_and_gives_back_when_it_is_won(
    purchases: Purchases, order: Purchase, query: Query
) -> None:
    await purchases.book(order.id, PAID, build_entry)
    assert await take_back(purchases, order, 0, 1190) == -8
    assert await take_back(purchases, order, 0, 0) == 8
    assert await read_balance(purchases, order.user_id) == 8
    assert [row[0] for row in query(LEDGER)] == ["purchase", "dispute", "dispute"]


async def test_refund_and_dispute_together_never_take_more_than_was_given(
    purchases: Purchases, order: Purchase, query: Query
) -> None:
    await purchases.book(order.id, PAID, build_entry)
    assert await take_back(purchases, order, 1190, 0) == -8
    assert await take_back(purchases, order, 1190, 1190) == 0
    found = await find(purchases, order)
    assert (found.refunded_cents, found.disputed_cents) == (1190, 1190)
    assert found.taken_back_usd == 8
    assert len(query(LEDGER)) == 2


async def test_credits_that_were_spent_become_a_debt_when_they_are_taken_back(
    purchases: Purchases, order: Purchase, query: Query
) -> None:
    await purchases.book(order.id, PAID, build_entry)
    query(
        "INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key) VALUES (%s, 'charge', -7, 'x')",
        order.user_id,
    )
    await take_back(purchases, order, 1190)
    assert await read_balance(purchases, order.user_id) == -7


async def test_of_an_order_that_was_not_paid_nothing_goes_back(purchases: Purchases, order: Purchase) -> None:
    assert await take_back(purchases, order, 500) == 0
    assert await find(purchases, order) == order


async def test_a_word_older_than_what_was_booked_is_not_booked(purchases: Purchases, order: Purchase) -> None:
    await purchases.book(order.id, PAID, build_entry)
    await purchases.set_returned(order.id, 595, 0, build_entry, seen_bookings=1)
    with pytest.raises(PurchaseChanged):
        await purchases.set_returned(order.id, 0, 0, build_entry, seen_bookings=1)
    assert await purchases.set_returned(order.id, 595, 0, build_entry, seen_bookings=1) == 0
    assert await purchases.set_returned(order.id, 0, 0, build_entry, seen_bookings=2) == 4


async def test_of_many_who_take_back_at_once_one_does(purchases: Purchases, order: Purchase) -> None:
    await purchases.book(order.id, PAID, build_entry)
    differences: list[Decimal] = []

    async def note() -> None:
        differences.append(await take_back(purchases, order, 119))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(note)
    assert sorted(differences) == [Decimal("-0.8")] + [Decimal(0)] * 19
    assert await read_balance(purchases, order.user_id) == Decimal("7.2")


@given(st.integers(1, 100_000), st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 150_000))
def test_what_is_taken_back_is_the_exact_share_and_never_more_than_all(
    net_cents: int, fee_cents: int, tax_cents: int, returned_cents: int
) -> None:
    total_cents = net_cents + fee_cents + tax_cents
    taken_usd = compute_taken_back_usd(net_cents, total_cents, returned_cents)
    share = Fraction(net_cents, 100) * min(Fraction(1), Fraction(returned_cents, total_cents))
    micro = Decimal(round(share * 1_000_000))  # Python rounds fractions half to even
    assert taken_usd == (micro / 1_000_000).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
    assert 0 <= taken_usd <= Decimal(net_cents) / 100


def test_a_share_is_rounded_half_to_even() -> None:
    """A cent of credits, and 20000 cents paid: half a millionth for each cent."""
    assert [compute_taken_back_usd(1, 20_000, cents) for cents in (1, 3, 5)] == [
        Decimal("0.000000"),
        Decimal("0.000002"),
        Decimal("0.000002"),
    ]


# Cards that are left


async def test_a_setup_session_belongs_to_one_user_and_ends_once(
    purchases: Purchases, user_id: UUID, query: Query
) -> None:
    other = await make_user(purchases.database)
    await purchases.note_setup_session(user_id, "cs_1")
    await purchases.note_setup_session(other, "cs_1")
    assert await purchases.owns_setup_session(user_id, "cs_1")
    assert not await purchases.owns_setup_session(other, "cs_1")
    assert await purchases.find_setup_session("cs_2") is None
    assert await purchases.find_setup_session("cs_1") == SetupSession(user_id, has_ended=False)
    assert not await purchases.end_setup_session(other, "cs_1", ENTRY)
    assert await purchases.end_setup_session(user_id, "cs_1", ENTRY)
    assert not await purchases.end_setup_session(user_id, "cs_1", ENTRY)
    assert await purchases.find_setup_session("cs_1") == SetupSession(user_id, has_ended=True)
    assert query("SELECT count(*) FROM audit_log") == [(1,)]


async def test_a_setup_session_of_a_user_who_is_no_more_is_not_noted(purchases: Purchases) -> None:
    with pytest.raises(UserUnknown):
        await purchases.note_setup_session(uuid4(), "cs_1")
