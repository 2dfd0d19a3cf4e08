"""Whether what Stripe says fits our own order. Pure.

Every check returns what does not fit, in a few words for the operator, or None. Tax comes on top of what was ordered,
so more than that may come in, and never less.
"""

from collections.abc import Mapping
from uuid import UUID

from server.billing.stripe_objects import Invoice, Payment, Session
from storage.purchases import Purchase


def read_purchase_id(metadata: Mapping[str, str]) -> UUID | None:
    """Of what was made for an order of ours."""
    try:
        return UUID(metadata.get("purchase_id", ""))
    except ValueError:
        return None


def check_payment(order: Purchase, payment: Payment, customer_id: str | None) -> str | None:
    """`customer_id` is the order's at Stripe. Of a payment that was booked the owner is not asked again: whoever
    deletes a customer at Stripe must not keep a refund from being taken back.
    """
    if order.stripe_payment_intent_id not in {None, payment.id}:
        return "the order was paid by another payment"
    if payment.currency != order.currency:
        return "another currency"
    if order.stripe_payment_intent_id is None:
        owner = _check_owner(order, payment.customer_id, payment.metadata, customer_id)
        if owner is not None:
            return owner
    if payment.status == "succeeded" and payment.received_cents < order.gross_cents:
        return "less than was ordered"
    return None


def check_invoice(order: Purchase, invoice: Invoice, customer_id: str | None) -> str | None:
    if order.stripe_invoice_id not in {None, invoice.id}:
        return "the order has another invoice"
    if invoice.currency != order.currency:
        return "another currency"
    if invoice.subtotal_cents != order.gross_cents:
        return "another amount"
    return _check_owner(order, invoice.customer_id, invoice.metadata, customer_id)


def check_session(order: Purchase, session: Session, customer_id: str | None) -> str | None:
    if order.stripe_session_id not in {None, session.id}:
        return "the order has another session"
    if session.client_reference_id != str(order.user_id):
        return "another user"
    if session.status == "complete" and session.payment_intent_id is None:
        return "complete without a payment"
    return _check_owner(order, session.customer_id, session.metadata, customer_id)


def _check_owner(
    order: Purchase, paying_customer_id: str | None, metadata: Mapping[str, str], customer_id: str | None
) -> str | None:
    if customer_id is None or paying_customer_id != customer_id:
        return "another customer"
    if metadata.get("user_id", str(order.user_id)) != str(order.user_id):
        return "another user"
    if metadata.get("purchase_id", str(order.id)) != str(order.id):
        return "another order"
    return None
