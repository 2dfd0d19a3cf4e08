"""Stripe's objects, read into ours: shapes of API version 2024-06-20, and what may be missing or new."""

from typing import Any

import pytest

from server.billing import stripe_reader as reader
from server.billing.stripe_objects import Address, BillingDetails, Card, PaymentMethod, TaxId
from server.errors import StripeUnavailable

PAYMENT: dict[str, Any] = {
    "id": "pi_1",
    "object": "payment_intent",
    "status": "succeeded",
    "currency": "usd",
    "amount_received": 1190,
    "customer": "cus_1",
    "payment_method": "pm_1",
    "invoice": None,
    "metadata": {"purchase_id": "1", "odd": 7},
    "created": 1_700_000_000,
    "latest_charge": {"id": "ch_1", "object": "charge", "amount_refunded": 90, "disputed": False},
}
INVOICE: dict[str, Any] = {
    "id": "in_1",
    "object": "invoice",
    "status": "paid",
    "currency": "usd",
    "subtotal": 1000,
    "total": 1190,
    "amount_paid": 1190,
    "customer": {"id": "cus_1", "object": "customer"},
    "payment_intent": "pi_1",
    "charge": "ch_1",
    "created": 1_700_000_000,
    "due_date": None,
    "invoice_pdf": "https://pay.stripe.com/invoice/in_1/pdf",
    "metadata": {"type": "auto_topoff"},
}


def without(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != name}


def test_a_payment_is_read_with_its_charge() -> None:
    payment = reader.read_payment({**PAYMENT, "new_member": {"of": "tomorrow"}}, 500)
    assert (payment.received_cents, payment.refunded_cents, payment.disputed_cents) == (1190, 90, 500)
    assert (payment.customer_id, payment.charge_id, payment.payment_method_id) == ("cus_1", "ch_1", "pm_1")
    assert payment.metadata == {"purchase_id": "1"}


def test_a_payment_that_nobody_has_tried_has_no_charge() -> None:
    payment = reader.read_payment({**PAYMENT, "status": "requires_payment_method", "latest_charge": None}, 0)
    assert (payment.charge_id, payment.refunded_cents) == (None, 0)


@pytest.mark.parametrize("name", ["id", "status", "currency", "amount_received", "created"])
def test_a_payment_that_lacks_what_it_is_booked_by_is_no_answer(name: str) -> None:
    with pytest.raises(StripeUnavailable, match=name):
        reader.read_payment(without(PAYMENT, name), 0)


def test_a_charge_that_was_not_told_is_not_one_without_refunds() -> None:
    with pytest.raises(StripeUnavailable, match="latest_charge"):
        reader.read_payment({**PAYMENT, "latest_charge": "ch_1"}, 0)
    with pytest.raises(StripeUnavailable, match="amount_refunded"):
        reader.read_payment({**PAYMENT, "latest_charge": {"id": "ch_1"}}, 0)


def test_a_dispute_counts_while_its_money_is_gone() -> None:
    statuses = [
        *("needs_response", "under_review", "lost", "won", "prevented", "charge_refunded"),
        *("warning_needs_response", "warning_under_review", "warning_closed", "of_tomorrow"),
    ]
    page = {"data": [{"amount": 10**number, "status": status} for number, status in enumerate(statuses)]}
    assert reader.read_disputed_cents(page) == 111


def test_an_answer_without_its_disputes_is_not_one_without_any() -> None:
    with pytest.raises(StripeUnavailable):
        reader.read_disputed_cents({})


def test_only_a_disputed_charge_is_looked_up() -> None:
    assert not reader.is_disputed(PAYMENT)
    assert reader.is_disputed({**PAYMENT, "latest_charge": {"id": "ch_1", "disputed": True}})
    assert not reader.is_disputed({**PAYMENT, "latest_charge": None})


def test_a_customer_is_read_with_its_addresses_and_tax_ids() -> None:
    found = {
        "id": "cus_1",
        "object": "customer",
        "name": "Ann Example",
        "email": "ann@example.com",
        "phone": "",
        "tax_exempt": "reverse",
        "address": {"line1": "1 Main Street", "line2": None, "city": "Springfield", "country": "US"},
        "shipping": {"name": "Ann", "address": {"line1": "2 Side Street"}},
        "invoice_settings": {"default_payment_method": {"id": "pm_1", "object": "payment_method"}},
        "tax_ids": {"data": [{"type": "eu_vat", "value": "DE1", "country": "DE", "verification": {"status": "bad"}}]},
    }
    customer = reader.read_customer(found)
    assert customer is not None
    assert customer.billing_address == Address("1 Main Street", None, "Springfield", None, None, "US")
    assert customer.shipping_address == Address("2 Side Street", None, None, None, None, None)
    assert (customer.default_payment_method, customer.phone, customer.tax_exempt) == ("pm_1", None, "reverse")
    assert customer.tax_ids == [TaxId("eu_vat", "DE1", "DE", "bad")]


def test_a_customer_of_which_little_is_known_is_read_too() -> None:
    customer = reader.read_customer({"id": "cus_1", "object": "customer", "shipping": None, "address": None})
    assert customer is not None
    assert (customer.name, customer.billing_address, customer.shipping_address) == (None, None, None)
    assert (customer.tax_exempt, customer.tax_ids, customer.default_payment_method) == ("none", [], None)


def test_a_card_brings_its_name_and_address_only_if_both_are_complete() -> None:
    address = {"line1": "1 Main Street", "line2": None, "city": "Springfield", "postal_code": "62701", "country": "US"}
    details = {"name": "Ann", "address": address, "email": None}
    setup = {"id": "seti_1", "status": "succeeded", "payment_method": {"id": "pm_1", "billing_details": details}}
    found = reader.read_setup(setup)
    assert found.payment_method_id == "pm_1"
    assert found.billing == BillingDetails("Ann", Address("1 Main Street", None, "Springfield", None, "62701", "US"))
    for less in ({**details, "name": None}, {**details, "address": without(address, "postal_code")}, {}, None):
        method = {"id": "pm_1", "billing_details": less}
        assert reader.read_setup({**setup, "payment_method": method}).billing is None
    assert reader.read_setup({**setup, "payment_method": "pm_1"}).billing is None


def test_a_deleted_customer_is_none() -> None:
    assert reader.read_customer({"id": "cus_1", "object": "customer", "deleted": True}) is None


def test_a_way_to_pay_that_nobody_knows_is_shown_by_its_name() -> None:
    card = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034, "networks": {}}
    page = {
        "data": [
            {"id": "pm_1", "type": "card", "card": card, "created": 1},
            {"id": "pm_2", "type": "telepathy", "telepathy": {"strength": 3}, "created": 2},
        ]
    }
    assert reader.read_payment_methods(page) == [
        PaymentMethod("pm_1", "card", Card("visa", "4242", 12, 2034), 1),
        PaymentMethod("pm_2", "telepathy", None, 2),
    ]


def test_a_session_tells_the_address_that_was_entered_before_the_one_it_began_with() -> None:
    found = {
        "id": "cs_1",
        "mode": "payment",
        "status": "complete",
        "payment_status": "paid",
        "customer_details": {"email": "entered@example.com"},
        "customer_email": "began@example.com",
        "amount_subtotal": 1000,
        "amount_total": 1190,
        "currency": "usd",
        "url": None,
    }
    session = reader.read_session(found)
    assert (session.customer_email, session.url, session.total_cents) == ("entered@example.com", None, 1190)
    assert reader.read_session({**found, "customer_details": None}).customer_email == "began@example.com"


def test_an_invoice_is_read_with_what_it_refers_to() -> None:
    invoice = reader.read_invoice(INVOICE)
    assert (invoice.subtotal_cents, invoice.total_cents, invoice.paid_cents) == (1000, 1190, 1190)
    assert (invoice.customer_id, invoice.payment_intent_id, invoice.charge_id) == ("cus_1", "pi_1", "ch_1")
    assert (invoice.due_date, invoice.settled_usd_cents, invoice.is_reduced) == (None, None, False)
    reduced = [reader.read_invoice({**INVOICE, "amount_due": due}).is_reduced for due in (1190, 1189, 0)]
    assert reduced == [False, True, True]


@pytest.mark.parametrize(("currency", "settled"), [("usd", 1284), ("gbp", None)])
def test_what_came_in_for_an_invoice_counts_if_it_is_in_dollars(currency: str, settled: int | None) -> None:
    charge = {"id": "ch_1", "balance_transaction": {"id": "txn_1", "amount": 1284, "currency": currency}}
    assert reader.read_invoice({**INVOICE, "currency": "eur", "charge": charge}).settled_usd_cents == settled


def test_true_is_no_number() -> None:
    with pytest.raises(StripeUnavailable, match="amount_paid"):
        reader.read_invoice({**INVOICE, "amount_paid": True})
