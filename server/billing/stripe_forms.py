"""What we ask Stripe to make, as the parameters of its API, version 2024-06-20. Pure.

`metadata` is for people who look at Stripe's dashboard, and to find our order by: amounts are compared with the order.
"""

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from server.billing.settings import BillingSettings
from server.billing.stripe_objects import BillingDetails, CheckoutOrder

TAX_CODE = "txcd_10103001"
"""Software as a service for business: https://docs.stripe.com/tax/tax-codes"""
CURRENCY = "usd"
CREDITS = "Credits"
FEE = "Processing fee"
SESSION_ID = "session_id={CHECKOUT_SESSION_ID}"
"""Stripe puts the id there: https://docs.stripe.com/payments/checkout/custom-success-page"""

Form = dict[str, Any]


def build_customer(user_id: UUID, email: str, name: str | None) -> Form:
    """`created_by` is what customers have been marked with so far: searches in the dashboard go on finding all."""
    form: Form = {"email": email, "metadata": {"user_id": str(user_id), "created_by": "plantocode"}}
    return form | ({"name": name} if name else {})


def build_checkout(order: CheckoutOrder, settings: BillingSettings) -> Form:
    """https://docs.stripe.com/api/checkout/sessions/create. A tax id is collected only if the name may be updated."""
    return {
        **_build_page(order.user_id, order.customer_id, settings.website_url, "/billing/success", "/billing/cancel"),
        "mode": "payment",
        "line_items": [_build_line(name, cents) for name, cents in build_lines(order)],
        "payment_intent_data": {
            "capture_method": "automatic",
            "setup_future_usage": "off_session",
            "metadata": build_metadata("credit_purchase", order),
        },
        "customer_update": {"address": "auto", "name": "auto"},
        "tax_id_collection": {"enabled": True},
        "automatic_tax": {"enabled": settings.calculates_tax},
        "invoice_creation": {"enabled": True},
        "metadata": _build_reference("credit_purchase", order),
    }


def build_setup(user_id: UUID, customer_id: str, settings: BillingSettings) -> Form:
    """The currency decides which kinds of payment are offered. The address is the card's and not yet the customer's: in
    this mode sessions tell none (https://docs.stripe.com/api/checkout/sessions/object, `customer_details`).
    """
    success, cancel = "/billing/payment-method/success", "/billing/payment-method/cancel"
    metadata = {"type": "setup_payment_method", "user_id": str(user_id)}
    return {
        **_build_page(user_id, customer_id, settings.website_url, success, cancel),
        "mode": "setup",
        "currency": CURRENCY,
        "setup_intent_data": {"metadata": metadata},
        "metadata": metadata,
    }


def build_billing_details(billing: BillingDetails) -> Form:
    """What is not known is cleared: parts of another address would not fit."""
    return {"name": billing.name, "address": {name: value or "" for name, value in asdict(billing.address).items()}}


def build_invoice(order: CheckoutOrder, settings: BillingSettings) -> Form:
    """A draft without lines. Not advanced by Stripe: when it is tried again, and when no more, is ours to say. With a
    discount of the customer's less would come in than was ordered: an empty text keeps that away.
    """
    return {
        "customer": order.customer_id,
        "currency": CURRENCY,
        "collection_method": "charge_automatically",
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "discounts": "",
        "automatic_tax": {"enabled": settings.calculates_tax},
        "metadata": build_metadata("auto_topoff", order),
    }


def build_invoice_item(order: CheckoutOrder, invoice_id: str, line: tuple[str, int]) -> Form:
    name, cents = line
    return {
        "customer": order.customer_id,
        "invoice": invoice_id,
        "currency": CURRENCY,
        "amount": cents,
        "description": name,
        "tax_behavior": "exclusive",
        "tax_code": TAX_CODE,
        "metadata": _build_reference("auto_topoff", order),
    }


def build_lines(order: CheckoutOrder) -> list[tuple[str, int]]:
    """Names and cents of what is sold; a fee of nothing is no line."""
    return [(CREDITS, order.net_cents), *([(FEE, order.fee_cents)] if order.fee_cents else [])]


def build_metadata(kind: str, order: CheckoutOrder) -> Mapping[str, str]:
    return {
        **_build_reference(kind, order),
        "gross_amount_cents": str(order.gross_cents),
        "platform_fee_cents": str(order.fee_cents),
        "net_amount_cents": str(order.net_cents),
        "gross_amount": _show_usd(order.gross_cents),
        "platform_fee": _show_usd(order.fee_cents),
        "net_amount": _show_usd(order.net_cents),
        "currency": "USD",
    }


def _build_reference(kind: str, order: CheckoutOrder) -> Mapping[str, str]:
    return {"type": kind, "purchase_id": str(order.purchase_id), "user_id": str(order.user_id)}


def _build_page(user_id: UUID, customer_id: str, website_url: str, success: str, cancel: str) -> Form:
    return {
        "customer": customer_id,
        "client_reference_id": str(user_id),
        "success_url": f"{website_url}{success}?{SESSION_ID}",
        "cancel_url": f"{website_url}{cancel}",
        "billing_address_collection": "required",
    }


def _build_line(name: str, cents: int) -> Form:
    product = {"name": name, "tax_code": TAX_CODE}
    price = {"currency": CURRENCY, "product_data": product, "unit_amount": cents, "tax_behavior": "exclusive"}
    return {"price_data": price, "quantity": 1}


def _show_usd(cents: int) -> str:
    return f"{Decimal(cents) / 100:.2f}"
