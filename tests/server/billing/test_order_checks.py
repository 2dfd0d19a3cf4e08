"""Whether what Stripe says fits our order: amount, currency, owner and reference, each on its own."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from server.billing.order_checks import check_invoice, check_payment, check_session, read_purchase_id
from server.billing.stripe_objects import Session
from storage.purchases import Purchase
from tests.server.billing.stripe_objects import build_invoice, build_payment

USER, ORDER, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
METADATA = {"purchase_id": str(ORDER), "user_id": str(USER), "type": "credit_purchase"}
PURCHASE = Purchase(
    id=ORDER,
    user_id=USER,
    kind="checkout",
    state="open",
    currency="usd",
    gross_cents=1000,
    fee_cents=200,
    net_cents=800,
    total_cents=None,
    stripe_customer_id="cus_1",
    stripe_session_id="cs_1",
    stripe_invoice_id="in_1",
    stripe_payment_intent_id=None,
    stripe_charge_id=None,
    refunded_cents=0,
    disputed_cents=0,
    taken_back_usd=Decimal(0),
    failure=None,
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
    paid_at=None,
)
BOOKED = replace(PURCHASE, state="paid", stripe_payment_intent_id="pi_1", bookings=1)
PAYMENT = build_payment(metadata=METADATA)
INVOICE = build_invoice(status="paid", metadata=METADATA)
SESSION = Session(
    id="cs_1",
    mode="payment",
    status="complete",
    payment_status="paid",
    url=None,
    customer_id="cus_1",
    customer_email=None,
    client_reference_id=str(USER),
    currency="usd",
    subtotal_cents=1000,
    total_cents=1190,
    payment_intent_id="pi_1",
    setup_intent_id=None,
    metadata=METADATA,
)


def test_what_fits_is_not_refused() -> None:
    assert check_payment(PURCHASE, PAYMENT, "cus_1") is None
    assert check_invoice(PURCHASE, INVOICE, "cus_1") is None
    assert check_session(PURCHASE, SESSION, "cus_1") is None


def test_what_stripe_says_of_an_order_that_knows_no_reference_yet_fits() -> None:
    bare = replace(PURCHASE, stripe_customer_id=None, stripe_session_id=None, stripe_invoice_id=None)
    assert check_payment(bare, PAYMENT, "cus_1") is None
    assert check_invoice(bare, INVOICE, "cus_1") is None
    assert check_session(bare, SESSION, "cus_1") is None


def test_metadata_may_be_missing() -> None:
    assert check_payment(PURCHASE, replace(PAYMENT, metadata={}), "cus_1") is None


def test_tax_on_top_fits() -> None:
    assert check_payment(PURCHASE, replace(PAYMENT, received_cents=1190), "cus_1") is None
    assert check_invoice(PURCHASE, replace(INVOICE, total_cents=1190, paid_cents=1190), "cus_1") is None


def test_of_a_payment_that_is_under_way_the_amount_is_not_asked() -> None:
    assert check_payment(PURCHASE, replace(PAYMENT, status="processing", received_cents=0), "cus_1") is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"received_cents": 999}, "less than was ordered"),
        ({"currency": "eur"}, "another currency"),
        ({"customer_id": "cus_2"}, "another customer"),
        ({"customer_id": None}, "another customer"),
        ({"metadata": {**METADATA, "user_id": str(OTHER)}}, "another user"),
        ({"metadata": {**METADATA, "purchase_id": str(OTHER)}}, "another order"),
    ],
)
def test_a_payment_that_contradicts_the_order_is_told(changes: dict[str, Any], reason: str) -> None:
    assert check_payment(PURCHASE, replace(PAYMENT, **changes), "cus_1") == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "in_2"}, "the order has another invoice"),
        ({"currency": "eur"}, "another currency"),
        ({"subtotal_cents": 1001}, "another amount"),
        ({"subtotal_cents": 999}, "another amount"),
        ({"customer_id": "cus_2"}, "another customer"),
        ({"metadata": {**METADATA, "user_id": str(OTHER)}}, "another user"),
        ({"metadata": {**METADATA, "purchase_id": str(OTHER)}}, "another order"),
    ],
)
def test_an_invoice_that_contradicts_the_order_is_told(changes: dict[str, Any], reason: str) -> None:
    assert check_invoice(PURCHASE, replace(INVOICE, **changes), "cus_1") == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "cs_2"}, "the order has another session"),
        ({"client_reference_id": None}, "another user"),
        ({"client_reference_id": str(OTHER)}, "another user"),
        ({"customer_id": "cus_2"}, "another customer"),
        ({"payment_intent_id": None}, "complete without a payment"),
        ({"metadata": {**METADATA, "purchase_id": str(OTHER)}}, "another order"),
    ],
)
def test_a_session_that_contradicts_the_order_is_told(changes: dict[str, Any], reason: str) -> None:
    assert check_session(PURCHASE, replace(SESSION, **changes), "cus_1") == reason


def test_an_order_that_was_paid_takes_no_other_payment() -> None:
    assert check_payment(BOOKED, replace(PAYMENT, id="pi_2"), "cus_1") == "the order was paid by another payment"


def test_without_a_customer_of_ours_nobody_is_the_owner() -> None:
    assert check_payment(PURCHASE, replace(PAYMENT, customer_id=None), None) == "another customer"


def test_whoever_deletes_the_customer_does_not_keep_a_refund_from_being_taken_back() -> None:
    assert check_payment(BOOKED, replace(PAYMENT, customer_id=None, metadata={}), None) is None


@pytest.mark.parametrize("text", ["", "7", "x" * 36, "00000000-0000-0000-0000-00000000000"])
def test_what_is_no_id_names_no_order(text: str) -> None:
    assert read_purchase_id({"purchase_id": text}) is None
    assert read_purchase_id({}) is None
    assert read_purchase_id(METADATA) == ORDER
