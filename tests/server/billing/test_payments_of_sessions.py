"""Checkout sessions as Stripe knows them, brought into the accounts: those that expired or failed, and cards that were
left. Stripe is in memory here; the accounts are real.
"""

from dataclasses import replace
from uuid import UUID

import pytest

from server.errors import StripeRefused
from tests.server.billing.payments_stage import Shop
from tests.server.billing.stripe_objects import BILLING


async def test_a_session_that_expired_ends_its_order_and_an_open_one_does_not(shop: Shop, buyer: UUID) -> None:
    order, session = await shop.check_out(buyer)
    assert await shop.payments.sync_session(session.id) == "unchanged"
    assert (await shop.find(order)).state == "open"
    shop.stripe.expire_session(session.id)
    assert await shop.payments.sync_session(session.id) == "unchanged"
    assert (await shop.find(order)).state == "expired"


async def test_a_payment_that_takes_days_and_fails_ends_its_order(shop: Shop, buyer: UUID) -> None:
    order, session = await shop.check_out(buyer)
    payment = shop.stripe.complete_session(session.id)
    shop.stripe.sessions[session.id] = replace(shop.stripe.sessions[session.id], payment_status="unpaid")
    for status, state in (("processing", "open"), ("requires_payment_method", "failed"), ("succeeded", "paid")):
        shop.stripe.add_payment(replace(payment, status=status))
        await shop.payments.sync_session(session.id)
        assert (await shop.find(order)).state == state


async def test_a_session_that_is_complete_without_a_payment_is_refused(shop: Shop, buyer: UUID) -> None:
    _, session = await shop.check_out(buyer)
    shop.stripe.sessions[session.id] = replace(session, status="complete", payment_status="no_payment_required")
    assert await shop.payments.sync_session(session.id) == "refused"


@pytest.mark.parametrize("default", [None, "pm_9"])
async def test_the_card_that_was_paid_with_becomes_the_default_if_there_is_none(
    shop: Shop, buyer: UUID, default: str | None
) -> None:
    _, session = await shop.check_out(buyer)
    shop.stripe.customers["cus_1"] = replace(shop.stripe.customers["cus_1"], default_payment_method=default)
    shop.stripe.complete_session(session.id)
    await shop.payments.sync_session(session.id)
    assert shop.stripe.customers["cus_1"].default_payment_method == (default or "pm_1")


async def test_a_card_that_cannot_be_kept_does_not_keep_credits_from_being_booked(shop: Shop, buyer: UUID) -> None:
    _, session = await shop.check_out(buyer)
    shop.stripe.add_customer("cus_1", has_card=False)
    shop.stripe.complete_session(session.id)
    shop.stripe.fail_at(len(shop.stripe.calls) + 5, StripeRefused("it pays once", "payment_method_not_available"))
    assert await shop.payments.sync_session(session.id) == "booked"
    assert shop.stripe.calls[-1] == "set_default_payment_method"
    assert shop.stripe.customers["cus_1"].default_payment_method is None


# Cards that are left


async def leave_card(shop: Shop, user_id: UUID, customer_id: str = "cus_1") -> str:
    session = await shop.stripe.create_setup_session(user_id, customer_id, "key")
    await shop.purchases.note_setup_session(user_id, session.id)
    return session.id


async def test_a_card_that_was_left_becomes_the_default_and_is_told_once(shop: Shop, buyer: UUID) -> None:
    session_id = await leave_card(shop, buyer)
    assert await shop.payments.sync_session(session_id) == "unchanged"
    assert shop.stripe.customers["cus_1"].default_payment_method == "pm_1"
    shop.stripe.complete_setup(session_id, "pm_2")
    for _ in range(2):
        assert await shop.payments.sync_session(session_id) == "unchanged"
    assert shop.stripe.customers["cus_1"].default_payment_method == "pm_2"
    assert await shop.read_audit() == [("payment_method_added", "success", "pm_2")]


async def test_the_address_of_a_card_that_was_left_becomes_the_customers(shop: Shop, buyer: UUID) -> None:
    shop.stripe.customers["cus_1"] = replace(shop.stripe.customers["cus_1"], name=None, billing_address=None)
    session_id = await leave_card(shop, buyer)
    shop.stripe.complete_setup(session_id, "pm_2")
    await shop.payments.sync_session(session_id)
    customer = shop.stripe.customers["cus_1"]
    assert (customer.name, customer.billing_address) == (BILLING.name, BILLING.address)


async def test_a_card_is_used_without_its_address_if_stripe_does_not_take_that(shop: Shop, buyer: UUID) -> None:
    session_id = await leave_card(shop, buyer)
    shop.stripe.complete_setup(session_id, "pm_2")
    shop.stripe.fail_at(len(shop.stripe.calls) + 4, StripeRefused("no such place", "customer_tax_location_invalid"))
    assert await shop.payments.sync_session(session_id) == "unchanged"
    assert shop.stripe.calls[-1] == "set_billing_details"
    assert await shop.read_audit() == [("payment_method_added", "success", "pm_2")]


async def test_an_event_that_comes_again_does_not_undo_a_later_choice(shop: Shop, buyer: UUID) -> None:
    session_id = await leave_card(shop, buyer)
    shop.stripe.complete_setup(session_id, "pm_2")
    await shop.payments.sync_session(session_id)
    await shop.stripe.set_default_payment_method("cus_1", "pm_1")
    await shop.payments.sync_session(session_id)
    assert shop.stripe.customers["cus_1"].default_payment_method == "pm_1"


async def test_a_card_of_another_customer_is_refused_and_told_once(shop: Shop, buyer: UUID) -> None:
    await shop.make_buyer("cus_2")
    session_id = await leave_card(shop, buyer, "cus_2")
    shop.stripe.complete_setup(session_id, "pm_2")
    assert await shop.payments.sync_session(session_id) == "refused"
    assert [one.default_payment_method for one in shop.stripe.customers.values()] == ["pm_1", "pm_1"]
    assert await shop.payments.sync_session(session_id) == "unchanged"
    assert await shop.read_audit() == [("purchase_refused", "refused", session_id)]


async def test_a_setup_of_another_user_or_of_nobody_changes_nothing(shop: Shop, buyer: UUID) -> None:
    session = await shop.stripe.create_setup_session(buyer, "cus_1", "key")
    shop.stripe.complete_setup(session.id, "pm_2")
    assert await shop.payments.sync_session(session.id) == "not_ours"
    await shop.purchases.note_setup_session(await shop.make_buyer("cus_2"), session.id)
    assert await shop.payments.sync_session(session.id) == "refused"
    assert [one.default_payment_method for one in shop.stripe.customers.values()] == ["pm_1", "pm_1"]
