"""Invoices of top-offs as Stripe knows them, brought into the ledger. Stripe is in memory here; the accounts are
real.
"""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from server.billing.stripe_objects import InvoiceStatus
from tests.server.billing.payments_stage import Shop


async def test_an_invoice_that_was_paid_is_booked_once_without_fee_and_tax(shop: Shop, buyer: UUID) -> None:
    shop.stripe.tax_percent = 19
    order, invoice = await shop.invoice(buyer)
    assert await shop.payments.sync_invoice(invoice.id) == "unchanged"
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    assert paid.payment_intent_id is not None
    assert await shop.payments.sync_invoice(invoice.id) == "booked"
    assert await shop.payments.sync_invoice(invoice.id) == "unchanged"
    assert await shop.payments.sync_payment(paid.payment_intent_id) == "unchanged"
    assert await shop.read_balance(buyer) == 8
    purchase = await shop.find(order)
    assert (purchase.state, purchase.total_cents) == ("paid", 1190)
    assert purchase.stripe_payment_intent_id == paid.payment_intent_id


async def test_the_payment_of_an_invoice_is_enough(shop: Shop, buyer: UUID) -> None:
    _, invoice = await shop.invoice(buyer)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    assert await shop.payments.sync_payment(paid.payment_intent_id or "") == "booked"
    assert await shop.payments.sync_invoice(invoice.id) == "unchanged"
    assert await shop.read_balance(buyer) == 8


async def test_the_payment_of_an_invoice_that_nobody_noted_is_found_by_what_the_invoice_says(
    shop: Shop, buyer: UUID
) -> None:
    order = await shop.order(buyer, "top_off")
    invoice = await shop.stripe.create_invoice(order)
    await shop.stripe.finalize_invoice(invoice.id)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    assert await shop.payments.sync_payment(paid.payment_intent_id or "") == "booked"


async def test_an_invoice_that_names_only_its_charge_is_booked(shop: Shop, buyer: UUID) -> None:
    _, invoice = await shop.invoice(buyer)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    shop.stripe.invoices[invoice.id] = replace(paid, payment_intent_id=None)
    assert await shop.payments.sync_invoice(invoice.id) == "booked"


async def test_an_invoice_that_was_paid_by_nothing_is_refused(shop: Shop, buyer: UUID) -> None:
    _, invoice = await shop.invoice(buyer)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    shop.stripe.invoices[invoice.id] = replace(paid, payment_intent_id=None, charge_id=None)
    assert await shop.payments.sync_invoice(invoice.id) == "refused"
    assert await shop.read_balance(buyer) == 0


async def test_an_invoice_that_a_credit_at_stripe_paid_in_part_is_refused(shop: Shop, buyer: UUID) -> None:
    _, invoice = await shop.invoice(buyer)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    payment = shop.stripe.payments[paid.payment_intent_id or ""]
    shop.stripe.add_payment(replace(payment, received_cents=500))
    assert await shop.payments.sync_invoice(invoice.id) == "refused"


@pytest.mark.parametrize("status", ["void", "uncollectible"])
async def test_an_invoice_that_nobody_will_pay_ends_its_order(shop: Shop, buyer: UUID, status: InvoiceStatus) -> None:
    order, invoice = await shop.invoice(buyer)
    shop.stripe.invoices[invoice.id] = replace(invoice, status=status)
    assert await shop.payments.sync_invoice(invoice.id) == "unchanged"
    purchase = await shop.find(order)
    assert (purchase.state, purchase.failure) == ("failed", f"the invoice is {status}")


async def test_a_refund_of_a_top_off_is_taken_back(shop: Shop, buyer: UUID) -> None:
    _, invoice = await shop.invoice(buyer)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    await shop.payments.sync_invoice(invoice.id)
    shop.stripe.change_payment(paid.payment_intent_id or "", refunded_cents=500)
    assert await shop.payments.sync_payment(paid.payment_intent_id or "") == "booked"
    assert await shop.read_balance(buyer) == 4


@pytest.mark.parametrize(
    "changes", [{"subtotal_cents": 900}, {"currency": "eur"}, {"customer_id": "cus_2"}, {"metadata": {"user_id": "x"}}]
)
async def test_an_invoice_that_contradicts_the_order_is_refused_and_told(
    shop: Shop, buyer: UUID, changes: dict[str, Any]
) -> None:
    _, invoice = await shop.invoice(buyer)
    paid = await shop.stripe.pay_invoice(invoice.id, "pay")
    shop.stripe.invoices[invoice.id] = replace(paid, **changes)
    assert await shop.payments.sync_invoice(invoice.id) == "refused"
    assert await shop.read_balance(buyer) == 0
    assert await shop.read_audit() == [("purchase_refused", "refused", invoice.id)]
