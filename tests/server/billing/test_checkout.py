"""Buying on Stripe's page: what the order says, who may ask how it went, and when it is told to be paid."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest
import trio

from server.auth.callers import Caller
from server.billing.checkout import STALE_HOURS, CheckoutStatus
from server.billing.terms import PurchaseRefused
from server.errors import NotFound, PaymentMethodRequired, StripeNotConfigured, StripeRefused, StripeUnavailable
from tests.server.billing.checkout_stage import Shop, open_shop
from tests.storage.people import open_query

EMAIL = "ann@example.com"
TEN = Decimal(10)


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def cancel_at(shop: Shop, name: str, who: Caller) -> None:
    """The client leaves while Stripe is asked for this."""
    with trio.CancelScope() as scope:

        async def leave(called: str) -> None:
            if called == name:
                scope.cancel()

        shop.stripe.before_call = leave
        await shop.checkout.start_purchase(who, TEN)
    shop.stripe.before_call = None


# Buying


async def test_what_is_sold_is_what_the_terms_say(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, Decimal("10.00"))
    order = await shop.checkout.purchases.find_of_user(who.user_id, page.id)
    assert order is not None
    assert (order.state, order.kind, order.currency) == ("open", "checkout", "usd")
    assert (order.gross_cents, order.fee_cents, order.net_cents) == (1000, 200, 800)
    assert order.stripe_customer_id == f"cus_{who.user_id.hex}" == page.customer_id
    session = shop.stripe.sessions[page.id]
    assert (session.subtotal_cents, session.metadata["purchase_id"]) == (1000, str(order.id))
    assert session.client_reference_id == str(who.user_id)
    assert page.url == session.url


async def test_what_is_not_sold_is_refused_before_anybody_is_asked(shop: Shop) -> None:
    who = await shop.make_user()
    with pytest.raises(PurchaseRefused):
        await shop.checkout.start_purchase(who, Decimal("2.99"))
    assert (shop.stripe.calls, await shop.states()) == ([], [])


async def test_who_has_no_card_yet_sets_one_up_first(shop: Shop) -> None:
    who = await shop.make_user(is_ready=False)
    with pytest.raises(PaymentMethodRequired):
        await shop.checkout.start_purchase(who, TEN)
    assert await shop.states() == []


async def test_where_nothing_is_sold_that_is_what_is_told(shop: Shop) -> None:
    shop.stripe.settings = replace(shop.stripe.settings, secret_key=None)
    with pytest.raises(StripeNotConfigured):
        await shop.checkout.start_purchase(await shop.make_user(is_ready=False), TEN)
    assert (shop.stripe.calls, await shop.states()) == ([], [])


async def test_a_repetition_is_another_order(shop: Shop) -> None:
    who = await shop.make_user()
    pages = [await shop.checkout.start_purchase(who, TEN) for _ in range(2)]
    assert len({page.id for page in pages}) == len(await shop.states()) == 2


async def test_whoever_leaves_while_the_page_is_made_owes_nothing_and_can_buy_again(shop: Shop) -> None:
    who = await shop.make_user()
    await cancel_at(shop, "create_checkout_session", who)
    assert await shop.states() == [("open", None)]
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.complete_session(page.id)
    await shop.checkout.find_status(who.user_id, page.id)
    assert await shop.balance(who) == 8


async def test_a_page_whose_id_was_never_noted_is_booked_all_the_same_if_somebody_pays(
    shop: Shop, owner_database_url: str
) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    with open_query(owner_database_url) as query:
        query("UPDATE purchases SET stripe_session_id = NULL, stripe_customer_id = NULL RETURNING id")
    payment = shop.stripe.complete_session(page.id)
    assert await shop.checkout.payments.sync_payment(payment.id) == "booked"
    assert await shop.balance(who) == 8


# How it went


async def test_an_open_page_is_open_and_unpaid(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    assert await shop.checkout.find_status(who.user_id, page.id) == CheckoutStatus("open", "unpaid", EMAIL)


async def test_it_is_told_to_be_paid_once_the_credits_are_there(shop: Shop) -> None:
    """No event has come: who asks has them booked."""
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.complete_session(page.id)
    for _ in range(2):
        assert await shop.checkout.find_status(who.user_id, page.id) == CheckoutStatus("complete", "paid", EMAIL)
        assert await shop.balance(who) == 8


async def test_while_it_cannot_be_booked_it_is_processing(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.complete_session(page.id)

    async def fail_payments(name: str) -> None:
        if name == "find_payment":
            raise StripeUnavailable("it does not answer")

    shop.stripe.before_call = fail_payments
    assert await shop.checkout.find_status(who.user_id, page.id) == CheckoutStatus("complete", "processing", EMAIL)
    assert await shop.balance(who) == 0
    shop.stripe.before_call = None
    assert (await shop.checkout.find_status(who.user_id, page.id)).payment_status == "paid"


async def test_a_payment_that_contradicts_the_order_is_never_told_to_be_paid(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    payment = shop.stripe.complete_session(page.id)
    shop.stripe.add_payment(replace(payment, received_cents=999))
    assert (await shop.checkout.find_status(who.user_id, page.id)).payment_status == "processing"
    assert await shop.balance(who) == 0


async def test_a_page_that_sells_and_needs_no_payment_is_not_believed(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    session = shop.stripe.sessions[page.id]
    shop.stripe.sessions[page.id] = replace(session, status="complete", payment_status="no_payment_required")
    assert (await shop.checkout.find_status(who.user_id, page.id)).payment_status == "processing"


async def test_many_who_ask_at_once_book_once(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.complete_session(page.id)
    told: list[CheckoutStatus] = []

    async def ask() -> None:
        told.append(await shop.checkout.find_status(who.user_id, page.id))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask)
    assert told == [CheckoutStatus("complete", "paid", EMAIL)] * 8
    assert await shop.balance(who) == 8


async def test_a_page_that_expired_is_expired(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.expire_session(page.id)
    assert await shop.checkout.find_status(who.user_id, page.id) == CheckoutStatus("expired", "unpaid", EMAIL)


async def test_somebody_elses_page_is_not_there_and_stripe_is_not_asked(shop: Shop) -> None:
    ann, bob = await shop.make_user(), await shop.make_user()
    pages = [await shop.checkout.start_purchase(ann, TEN), await shop.checkout.start_setup(ann)]
    before = len(shop.stripe.calls)
    for page in pages:
        with pytest.raises(NotFound):
            await shop.checkout.find_status(bob.user_id, page.id)
    assert len(shop.stripe.calls) == before


async def test_what_is_no_page_of_ours_is_not_there(shop: Shop) -> None:
    who = await shop.make_user()
    for session_id in ("cs_unknown", "pi_1", "", "cs_", "cs_1/../pi_2", "cs_1\x00", "cs_" + "a" * 300):
        with pytest.raises(NotFound):
            await shop.checkout.find_status(who.user_id, session_id)
    assert shop.stripe.calls == []


async def test_a_page_that_stripe_has_lost_is_not_there(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.sessions.clear()
    with pytest.raises(NotFound):
        await shop.checkout.find_status(who.user_id, page.id)


# Leaving a card


async def test_a_card_that_was_left_can_be_paid_with_at_once(shop: Shop) -> None:
    who = await shop.make_user(is_ready=False)
    page = await shop.checkout.start_setup(who)
    assert (await shop.checkout.find_status(who.user_id, page.id)).status == "open"
    setup = shop.stripe.complete_setup(page.id)
    found = await shop.checkout.find_status(who.user_id, page.id)
    assert (found.status, found.payment_status) == ("complete", "no_payment_required")
    assert shop.stripe.customers[setup.customer_id or ""].default_payment_method == "pm_1"


async def test_asking_again_does_not_bring_an_old_card_back(shop: Shop) -> None:
    who = await shop.make_user(is_ready=False)
    page = await shop.checkout.start_setup(who)
    customer_id = shop.stripe.complete_setup(page.id).customer_id or ""
    await shop.checkout.find_status(who.user_id, page.id)
    await shop.stripe.set_default_payment_method(customer_id, "pm_2")
    await shop.checkout.find_status(who.user_id, page.id)
    assert shop.stripe.customers[customer_id].default_payment_method == "pm_2"


async def test_a_second_page_for_a_card_is_another_one(shop: Shop) -> None:
    who = await shop.make_user(is_ready=False)
    first, second = [await shop.checkout.start_setup(who) for _ in range(2)]
    assert first.id != second.id
    assert first.customer_id == second.customer_id


# What nobody paid


async def make_old(owner_database_url: str, hours: float) -> None:
    with open_query(owner_database_url) as query:
        query("UPDATE purchases SET created_at = now() - make_interval(secs => %s) RETURNING id", hours * 3600)


async def test_orders_that_nobody_paid_are_ended_and_one_that_was_paid_is_booked(
    shop: Shop, owner_database_url: str
) -> None:
    who = await shop.make_user()
    pages = [await shop.checkout.start_purchase(who, TEN) for _ in range(3)]
    shop.stripe.expire_session(pages[0].id)
    shop.stripe.complete_session(pages[1].id)
    await make_old(owner_database_url, STALE_HOURS + 1)
    assert await shop.checkout.sweep_open(10) == 2
    assert sorted(await shop.states(), key=str) == [("expired", "nobody paid in time"), ("open", None), ("paid", None)]
    assert await shop.balance(who) == 8


async def test_an_order_without_a_page_is_ended(shop: Shop, owner_database_url: str) -> None:
    await cancel_at(shop, "create_checkout_session", await shop.make_user())
    await make_old(owner_database_url, STALE_HOURS + 1)
    assert await shop.checkout.sweep_open(10) == 1
    assert await shop.states() == [("expired", "its page was never shown")]


async def test_what_stripe_does_not_know_or_contradicts_is_ended(shop: Shop, owner_database_url: str) -> None:
    who = await shop.make_user()
    pages = [await shop.checkout.start_purchase(who, TEN) for _ in range(2)]
    del shop.stripe.sessions[pages[0].id]
    payment = shop.stripe.complete_session(pages[1].id)
    shop.stripe.add_payment(replace(payment, currency="eur"))
    await make_old(owner_database_url, STALE_HOURS + 1)
    assert await shop.checkout.sweep_open(10) == 2
    expected = [("expired", "Stripe knows no such page"), ("failed", "Stripe contradicts it")]
    assert sorted(await shop.states()) == expected
    assert await shop.balance(who) == 0


async def test_young_orders_are_left_alone(shop: Shop, owner_database_url: str) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.expire_session(page.id)
    await make_old(owner_database_url, 24)
    assert await shop.checkout.sweep_open(10) == 0
    assert await shop.states() == [("open", None)]


async def test_one_order_that_stripe_will_not_tell_about_keeps_no_other_waiting(
    shop: Shop, owner_database_url: str
) -> None:
    who = await shop.make_user()
    pages = [await shop.checkout.start_purchase(who, TEN) for _ in range(2)]
    for page in pages:
        shop.stripe.expire_session(page.id)
    await make_old(owner_database_url, STALE_HOURS + 1)
    shop.stripe.fail_next(StripeRefused("no", "some_code"))
    assert await shop.checkout.sweep_open(10) == 1
    assert sorted(state for state, _ in await shop.states()) == ["expired", "open"]
