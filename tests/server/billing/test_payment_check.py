"""Stripe against our books: what is missing on either side, what differs, and what is repaired."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest

from server.billing.payment_check import PaymentCheck
from server.billing.report import PaymentProblem, StripeFindings
from server.billing.stripe_api import CheckoutOrder, Payment
from storage.reconciliation import Reconciliations
from tests.server.billing.payments_stage import GROSS, Shop

DAYS = 30
HOUR = 3600


@pytest.fixture
def check(shop: Shop) -> PaymentCheck:
    return PaymentCheck(shop.stripe, shop.purchases, shop.payments, Reconciliations(shop.database))


def date(shop: Shop, payment: Payment, seconds_ago: float = HOUR) -> Payment:
    """Made so long ago."""
    created = int(datetime.now(UTC).timestamp() - seconds_ago)
    return shop.stripe.add_payment(replace(shop.stripe.payments[payment.id], created=created))


async def buy(shop: Shop, *, books: bool = True) -> tuple[UUID, CheckoutOrder, Payment]:
    """A purchase of an hour ago; perhaps its event never came."""
    user_id = await shop.make_buyer(f"cus_{uuid4().hex}")
    order, payment = await shop.buy(user_id)
    if books:
        assert await shop.payments.sync_payment(payment.id) == "booked"
    return user_id, order, date(shop, payment)


def assert_one(found: StripeFindings, payment: Payment, *words: str, repaired: bool = False) -> None:
    [problem] = found.problems
    assert (problem.reference, problem.is_repaired) == (payment.id, repaired)
    assert all(word in problem.text for word in words), problem.text


async def test_books_that_fit_are_clean(shop: Shop, check: PaymentCheck) -> None:
    for _ in range(3):
        await buy(shop)
    shop.stripe.calls.clear()
    assert await check.run(DAYS, repair=True) == StripeFindings(3, 0, [])
    assert shop.stripe.calls == ["list_payments"], "what fits costs one list"


async def test_a_payment_whose_event_never_came_is_found_and_repaired(shop: Shop, check: PaymentCheck) -> None:
    user_id, order, payment = await buy(shop, books=False)
    assert_one(await check.run(DAYS, repair=False), payment, str(order.purchase_id), "not booked")
    assert await shop.read_balance(user_id) == 0
    assert_one(await check.run(DAYS, repair=True), payment, "not booked", repaired=True)
    assert await shop.read_balance(user_id) == 8
    assert (await check.run(DAYS, repair=True)).problems == []


async def test_the_payment_of_an_invoice_is_found_by_its_invoice(shop: Shop, check: PaymentCheck) -> None:
    user_id = await shop.make_buyer()
    _, invoice = await shop.invoice(user_id)
    paid = await shop.stripe.pay_invoice(invoice.id, "key")
    assert paid.payment_intent_id is not None
    payment = date(shop, shop.stripe.payments[paid.payment_intent_id])
    assert payment.metadata == {}
    assert_one(await check.run(DAYS, repair=True), payment, "not booked", repaired=True)
    assert await shop.read_balance(user_id) == 8


@pytest.mark.parametrize(("refunded", "disputed"), [(500, 0), (0, 250), (300, 200)])
async def test_refunds_and_disputes_that_we_were_not_told_of_are_taken_back(
    shop: Shop, check: PaymentCheck, refunded: int, disputed: int
) -> None:
    user_id, _, payment = await buy(shop)
    shop.stripe.change_payment(payment.id, refunded_cents=refunded, disputed_cents=disputed)
    assert_one(await check.run(DAYS, repair=False), payment, "Stripe says", "refunded" if refunded else "disputed")
    assert await shop.read_balance(user_id) == 8
    assert_one(await check.run(DAYS, repair=True), payment, repaired=True)
    assert await shop.read_balance(user_id) == 8 - Decimal(refunded + disputed) * 8 / 1000


async def test_a_payment_of_just_now_may_not_be_booked_yet(shop: Shop, check: PaymentCheck) -> None:
    _, _, payment = await buy(shop, books=False)
    date(shop, payment, 60)
    assert (await check.run(DAYS, repair=True)).problems == []
    assert shop.stripe.count("find_payment") == 0


async def test_a_purchase_that_stripe_does_not_know_is_found(shop: Shop, check: PaymentCheck) -> None:
    _, order, payment = await buy(shop)
    del shop.stripe.payments[payment.id]
    assert_one(await check.run(DAYS, repair=True), payment, str(order.purchase_id), "knows of no such payment")


async def test_a_purchase_whose_payment_began_before_these_days_is_looked_up(shop: Shop, check: PaymentCheck) -> None:
    _, _, payment = await buy(shop)
    date(shop, payment, 40 * 24 * HOUR)
    assert (await check.run(DAYS, repair=False)).problems == []
    shop.stripe.change_payment(payment.id, refunded_cents=GROSS)
    assert_one(await check.run(DAYS, repair=False), payment, "refunded")


async def test_what_others_sell_with_the_same_account_is_not_ours(shop: Shop, check: PaymentCheck) -> None:
    _, _, payment = await buy(shop, books=False)
    shop.stripe.add_payment(replace(payment, metadata={"shop": "flowers"}))
    shop.stripe.add_payment(replace(payment, id="pi_9", metadata={}, invoice_id="in_unknown"))
    shop.stripe.add_payment(replace(payment, id="pi_8", status="requires_action"))
    assert await check.run(DAYS, repair=True) == StripeFindings(0, 0, [])


async def test_payments_of_users_who_are_gone_are_told_apart(
    shop: Shop, check: PaymentCheck, owner_database_url: str
) -> None:
    user_id, _, payment = await buy(shop)
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("DELETE FROM users WHERE id = %s", [user_id])
    assert await check.run(DAYS, repair=True) == StripeFindings(0, 1, [])
    assert payment.status == "succeeded"


async def test_a_payment_for_an_order_that_we_have_not_is_found(
    shop: Shop, check: PaymentCheck, owner_database_url: str
) -> None:
    _, order, payment = await buy(shop, books=False)
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("DELETE FROM purchases")
    assert_one(await check.run(DAYS, repair=True), payment, str(order.purchase_id), "not in our books")


async def test_what_contradicts_our_order_is_not_repaired(shop: Shop, check: PaymentCheck) -> None:
    user_id, _, payment = await buy(shop, books=False)
    shop.stripe.add_payment(replace(payment, received_cents=GROSS - 1))
    assert_one(await check.run(DAYS, repair=True), payment, "not booked")
    assert await shop.read_balance(user_id) == 0


async def test_what_a_server_books_while_we_look_is_no_difference(shop: Shop, check: PaymentCheck) -> None:
    """The orders were read before Stripe was asked, and the event comes in between."""
    _, _, payment = await buy(shop, books=False)

    async def book(name: str) -> None:
        if name == "list_payments":
            shop.stripe.before_call = None
            await shop.payments.sync_payment(payment.id)

    shop.stripe.before_call = book
    assert (await check.run(DAYS, repair=False)).problems == []


def test_a_problem_is_open_until_somebody_says_otherwise() -> None:
    assert not PaymentProblem("pi_1", "it is missing").is_repaired
