"""What Stripe says, brought into the ledger: in any order, twice, at once, cut short, and never against our own order.

Stripe is in memory here; the accounts are real.
"""

import logging
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from server.billing.payments import Outcome
from tests.server.billing.payments_stage import Shop
from tests.server.billing.stripe_objects import build_payment

# Buying


async def test_a_checkout_that_was_paid_is_booked_once_whatever_tells_of_it(shop: Shop, buyer: UUID) -> None:
    shop.stripe.tax_percent = 19
    order, payment = await shop.buy(buyer)
    purchase = await shop.find(order)
    assert purchase.stripe_session_id is not None
    outcomes = [
        await shop.payments.sync_payment(payment.id),
        await shop.payments.sync_session(purchase.stripe_session_id),
        await shop.payments.sync_payment(payment.id),
        await shop.payments.sync_session(purchase.stripe_session_id),
    ]
    assert outcomes == ["booked", "unchanged", "unchanged", "unchanged"]
    assert await shop.read_balance(buyer) == 8
    purchase = await shop.find(order)
    assert (purchase.state, purchase.total_cents, purchase.stripe_charge_id) == ("paid", 1190, payment.charge_id)
    assert await shop.read_audit() == [("credit_purchase_succeeded", "success", payment.id)]


async def test_the_session_alone_is_enough_also_if_the_payment_says_nothing_of_the_order(
    shop: Shop, buyer: UUID
) -> None:
    order, payment = await shop.buy(buyer)
    shop.stripe.add_payment(replace(payment, metadata={}))
    session_id = (await shop.find(order)).stripe_session_id or ""
    assert await shop.payments.sync_payment(payment.id) == "not_ours"
    assert await shop.payments.sync_session(session_id) == "booked"
    assert await shop.read_balance(buyer) == 8


async def test_an_order_that_never_learnt_of_its_session_is_booked_by_its_metadata(shop: Shop, buyer: UUID) -> None:
    order = await shop.order(buyer)
    session = await shop.stripe.create_checkout_session(order)
    shop.stripe.complete_session(session.id)
    assert await shop.payments.sync_session(session.id) == "booked"


async def test_twenty_who_hear_of_it_at_once_book_once(shop: Shop, buyer: UUID) -> None:
    order, payment = await shop.buy(buyer)
    session_id = (await shop.find(order)).stripe_session_id or ""
    outcomes: list[Outcome] = []

    async def hear(number: int) -> None:
        if number % 2:
            outcomes.append(await shop.payments.sync_payment(payment.id))
        else:
            outcomes.append(await shop.payments.sync_session(session_id))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(hear, number)
    assert outcomes.count("booked") == 1
    assert outcomes.count("unchanged") == 19
    assert await shop.read_balance(buyer) == 8


async def test_an_order_that_was_given_up_is_booked_when_the_money_comes(shop: Shop, buyer: UUID) -> None:
    order, payment = await shop.buy(buyer)
    await shop.purchases.end(order.purchase_id, "expired", "")
    assert await shop.payments.sync_payment(payment.id) == "booked"


@pytest.mark.parametrize("status", ["processing", "requires_action", "requires_payment_method", "canceled"])
async def test_what_was_not_paid_is_not_booked_and_stays_open(shop: Shop, buyer: UUID, status: str) -> None:
    order = await shop.order(buyer)
    shop.pay(order, status=status, received_cents=0)
    assert await shop.payments.sync_payment("pi_1") == "unchanged"
    assert (await shop.find(order)).state == "open"


# Going back


async def test_whatever_the_order_of_the_events_credits_are_what_stripe_says_in_the_end(shop: Shop) -> None:
    """Paid 10.00 with 1.90 tax, a refund of a quarter, a dispute of the rest that is won; each event told twice."""
    changes = {"paid": (0, 0), "refunded": (297, 0), "disputed": (297, 893), "won": (297, 0)}
    shop.stripe.tax_percent = 19
    for number, order_of_events in enumerate(permutations(changes)):
        buyer = await shop.make_buyer(f"cus_{number}")
        _, payment = await shop.buy(buyer)
        for name in order_of_events:
            refunded, disputed = changes[name]
            shop.stripe.change_payment(payment.id, refunded_cents=refunded, disputed_cents=disputed)
            await shop.payments.sync_payment(payment.id)
            assert await shop.payments.sync_payment(payment.id) == "unchanged"
            gone = (Decimal(8) * min(refunded + disputed, 1190) / 1190).quantize(Decimal("0.000001"))
            assert await shop.read_balance(buyer) == 8 - gone


async def test_a_payment_that_went_back_before_we_heard_of_it_is_booked_and_taken_back(shop: Shop, buyer: UUID) -> None:
    order, payment = await shop.buy(buyer)
    shop.stripe.change_payment(payment.id, refunded_cents=1000)
    assert await shop.payments.sync_payment(payment.id) == "booked"
    assert shop.stripe.count("find_payment") == 1
    assert await shop.read_balance(buyer) == 0
    assert (await shop.find(order)).taken_back_usd == 8
    actions = [action for action, *_ in await shop.read_audit()]
    assert actions == ["credit_purchase_succeeded", "credit_purchase_returned"]


async def test_a_lost_dispute_stays_lost_and_a_won_one_gives_back(shop: Shop, buyer: UUID) -> None:
    _, payment = await shop.buy(buyer)
    await shop.payments.sync_payment(payment.id)
    for disputed, balance in ((1000, 0), (1000, 0), (0, 8), (1000, 0)):
        shop.stripe.change_payment(payment.id, disputed_cents=disputed)
        await shop.payments.sync_payment(payment.id)
        assert await shop.read_balance(buyer) == balance


async def test_an_answer_that_is_older_than_what_was_booked_does_not_undo_it(shop: Shop, buyer: UUID) -> None:
    _, payment = await shop.buy(buyer)
    await shop.payments.sync_payment(payment.id)
    await refund_in_two_steps(shop, payment.id)
    assert await shop.read_balance(buyer) == 0


async def test_an_answer_from_before_the_first_booking_does_not_undo_a_refund(shop: Shop, buyer: UUID) -> None:
    _, payment = await shop.buy(buyer)
    await refund_in_two_steps(shop, payment.id)
    assert await shop.read_balance(buyer) == 0


async def refund_in_two_steps(shop: Shop, payment_id: str) -> None:
    """One has read a refund of 1.00 and stands still; another one books the whole that came after it."""
    shop.stripe.change_payment(payment_id, refunded_cents=100)
    has_read, may_go_on = trio.Event(), trio.Event()

    async def stand_still(name: str) -> None:
        shop.stripe.after_call = None
        has_read.set()
        await may_go_on.wait()

    shop.stripe.after_call = stand_still
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.payments.sync_payment, payment_id)
        await has_read.wait()
        shop.stripe.change_payment(payment_id, refunded_cents=1000)
        assert await shop.payments.sync_payment(payment_id) == "booked"
        may_go_on.set()


async def test_twenty_who_hear_of_a_refund_at_once_take_back_once(shop: Shop, buyer: UUID) -> None:
    _, payment = await shop.buy(buyer)
    shop.stripe.change_payment(payment.id, refunded_cents=250)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(shop.payments.sync_payment, payment.id)
    assert await shop.read_balance(buyer) == 6
    assert len(await shop.read_audit()) == 2


async def test_a_refund_is_taken_back_after_the_customer_was_deleted(shop: Shop, buyer: UUID) -> None:
    _, payment = await shop.buy(buyer)
    await shop.payments.sync_payment(payment.id)
    await shop.customers.forget("cus_1")
    shop.stripe.add_payment(replace(payment, customer_id=None, refunded_cents=1000))
    assert await shop.payments.sync_payment(payment.id) == "booked"
    assert await shop.read_balance(buyer) == 0


# Contradictions


@pytest.mark.parametrize(
    "changes",
    [
        {"received_cents": 999},
        {"currency": "eur"},
        {"customer_id": "cus_2"},
        {"customer_id": None},
    ],
)
async def test_a_payment_that_contradicts_the_order_is_refused_and_told_once(
    shop: Shop, buyer: UUID, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    order = await shop.order(buyer)
    shop.pay(order, **changes)
    for _ in range(2):  # an event, and later the reconciliation
        assert await shop.payments.sync_payment("pi_1") == "refused"
    assert await shop.read_balance(buyer) == 0
    assert (await shop.find(order)).state == "open"
    assert await shop.read_audit() == [("purchase_refused", "refused", "pi_1")]
    assert [record.levelno for record in caplog.records if record.name == "server.billing.payments"] == [logging.ERROR]


async def test_somebody_else_does_not_pay_for_an_order_with_a_session_of_its_own(shop: Shop, buyer: UUID) -> None:
    order, session = await shop.check_out(buyer)
    shop.stripe.complete_session(session.id)
    shop.stripe.sessions[session.id] = replace(shop.stripe.sessions[session.id], client_reference_id=str(uuid4()))
    assert await shop.payments.sync_session(session.id) == "refused"
    assert (await shop.find(order)).state == "open"


async def test_a_second_payment_for_an_order_is_refused(shop: Shop, buyer: UUID) -> None:
    order = await shop.order(buyer)
    shop.pay(order, "pi_1")
    shop.pay(order, "pi_2")
    outcomes: list[Outcome] = []

    async def sync(payment_id: str) -> None:
        outcomes.append(await shop.payments.sync_payment(payment_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync, "pi_1")
        nursery.start_soon(sync, "pi_2")
    assert outcomes.count("booked") == 1
    assert [await shop.payments.sync_payment(id_) for id_ in ("pi_1", "pi_2")].count("refused") == 1
    assert await shop.read_balance(buyer) == 8


async def test_a_charge_that_was_booked_for_another_order_is_refused(shop: Shop, buyer: UUID) -> None:
    first, second = await shop.order(buyer), await shop.order(buyer)
    shop.pay(first, "pi_1")
    shop.pay(second, "pi_2", charge_id="ch_1")
    assert await shop.payments.sync_payment("pi_1") == "booked"
    assert await shop.payments.sync_payment("pi_2") == "refused"
    assert await shop.read_balance(buyer) == 8


async def test_payments_of_others_are_not_ours(shop: Shop) -> None:
    shop.stripe.add_payment(build_payment())
    assert await shop.payments.sync_payment("pi_1") == "not_ours"
    assert await shop.payments.sync_payment("pi_2") == "not_ours"
    assert await shop.payments.sync_invoice("in_1") == "not_ours"
    assert await shop.payments.sync_session("cs_1") == "not_ours"
    assert await shop.read_audit() == []


async def test_what_somebody_paid_who_is_gone_is_not_booked_and_told(
    shop: Shop, buyer: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    _, payment = await shop.buy(buyer)
    await shop.database.as_operator("test").fetch("DELETE FROM users WHERE id = %s", [buyer])
    assert await shop.payments.sync_payment(payment.id) == "not_ours"
    assert "may have been deleted" in caplog.text
