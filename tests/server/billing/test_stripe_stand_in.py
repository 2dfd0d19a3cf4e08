"""Our side of Stripe's API against localstripe, a Stripe that nobody here wrote; what its front plays is named."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.billing.settings import read_billing_settings
from server.billing.stripe_api import StripeApi, open_stripe_api
from server.billing.stripe_objects import Card, CheckoutOrder
from server.errors import CardDeclined, StripeRefused
from server.settings import Settings
from tests.stripe_stand_in import DECLINED_CARD, Fault, StripeStandIn, open_stripe_stand_in

USER = UUID(int=2)


@dataclass(frozen=True, slots=True)
class Stage:
    stripe: StripeStandIn
    api: StripeApi

    async def make_customer(self) -> str:
        return await self.api.create_customer(USER, "ann@example.com", None, f"customer_{USER}_0")

    async def open_invoice(self, customer_id: str) -> Any:
        order = CheckoutOrder(uuid4(), USER, customer_id, gross_cents=1000, fee_cents=200, net_cents=800)
        return await self.api.finalize_invoice((await self.api.create_invoice(order)).id)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stripe_stand_in() as stripe:
        settings = read_billing_settings(Settings(stripe.settings), "https://cloche.invalid", True)
        async with open_stripe_api(settings) as api:
            yield Stage(stripe, api)


async def test_a_customer_and_its_cards_are_as_localstripe_keeps_them(stage: Stage) -> None:
    """All of it localstripe's, but for the keys that make one customer of two requests."""
    api = stage.api
    customer_id = await stage.make_customer()
    assert await stage.make_customer() == customer_id
    with pytest.raises(StripeRefused) as caught:
        await api.create_customer(USER, "other@example.com", None, f"customer_{USER}_0")
    assert caught.value.code == "idempotency_error"
    method_id = await stage.stripe.leave_card(customer_id, is_default=False)
    (method,) = await api.list_payment_methods(customer_id)
    assert (method.id, method.type, method.card) == (method_id, "card", Card("visa", "4242", 12, 2040))
    await api.set_default_payment_method(customer_id, method_id)
    customer = await api.find_customer(customer_id)
    assert customer is not None
    assert (customer.name, customer.email, customer.default_payment_method) == (
        "Ann Example",
        "ann@example.com",
        method_id,
    )
    assert customer.billing_address is not None
    assert customer.billing_address.city == "Springfield"
    await stage.stripe.delete_customer(customer_id)
    assert await api.find_customer(customer_id) is None


async def test_an_invoice_is_made_paid_and_refunded(stage: Stage) -> None:
    """The charge, the payment intent and the refund are localstripe's; lines, finalizing and tax are the front's."""
    api = stage.api
    stage.stripe.tax(19)
    customer_id = await stage.make_customer()
    await stage.stripe.leave_card(customer_id)
    invoice = await stage.open_invoice(customer_id)
    assert (invoice.status, invoice.subtotal_cents, invoice.total_cents) == ("open", 1000, 1190)
    assert (await api.finalize_invoice(invoice.id)).status == "open"
    stage.stripe.fail_next(Fault(f"/v1/invoices/{invoice.id}/pay", "lost_answer"))
    paid = await api.pay_invoice(invoice.id, "key:1")
    assert (paid.status, paid.paid_cents, paid.metadata["type"]) == ("paid", 1190, "auto_topoff")
    assert (await api.pay_invoice(invoice.id, "key:2")).status == "paid"
    assert paid.payment_intent_id is not None
    await stage.stripe.refund(paid.payment_intent_id, 90)
    payment = await api.find_payment(paid.payment_intent_id)
    assert payment is not None
    assert (payment.status, payment.received_cents, payment.refunded_cents) == ("succeeded", 1190, 90)
    assert payment.charge_id is not None
    assert await api.find_charge_payment(payment.charge_id) == payment.id
    since = datetime.now(UTC) - timedelta(hours=1)
    assert [each.id async for each in api.list_payments(since)] == [payment.id]
    assert [each.id for each in (await api.list_invoices(customer_id, 10, None)).invoices] == [invoice.id]


async def test_a_declined_invoice_stays_open_until_it_is_voided(stage: Stage) -> None:
    """It is localstripe that declines the card."""
    customer_id = await stage.make_customer()
    await stage.stripe.leave_card(customer_id, DECLINED_CARD)
    invoice = await stage.open_invoice(customer_id)
    with pytest.raises(CardDeclined) as caught:
        await stage.api.pay_invoice(invoice.id, "key:1")
    assert caught.value.code == "card_declined"
    assert (await stage.api.void_invoice(invoice.id)).status == "void"
    assert (await stage.api.void_invoice(invoice.id)).status == "void"


async def test_a_checkout_is_paid_disputed_and_won(stage: Stage) -> None:
    """The page and the dispute are the front's, the payment localstripe's."""
    api = stage.api
    customer_id = await stage.make_customer()
    await stage.stripe.leave_card(customer_id)
    order = CheckoutOrder(uuid4(), USER, customer_id, gross_cents=1000, fee_cents=200, net_cents=800)
    session = await api.create_checkout_session(order)
    assert session.url is not None
    assert (session.status, session.payment_status, session.metadata["purchase_id"]) == (
        "open",
        "unpaid",
        str(order.purchase_id),
    )
    payment_id = await stage.stripe.complete_checkout(session.id)
    done = await api.find_session(session.id)
    assert done is not None
    assert (done.status, done.payment_status, done.payment_intent_id) == ("complete", "paid", payment_id)
    assert payment_id is not None
    dispute = await stage.stripe.open_dispute(payment_id)
    for is_won, disputed_cents in ((None, 1000), (True, 0)):
        if is_won is not None:
            stage.stripe.close_dispute(dispute, is_won=is_won)
        payment = await api.find_payment(payment_id)
        assert payment is not None
        assert payment.disputed_cents == disputed_cents
