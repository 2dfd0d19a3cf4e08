"""Stripe's objects, as its API shows them in version 2024-06-20, read into ours. Pure.

Members and words that nobody here knows are passed over. What a payment is booked by has to be there, or nothing is:
StripeUnavailable is raised, for this is not the answer that was promised.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from server.billing.stripe_objects import (
    Address,
    BillingDetails,
    Card,
    Invoice,
    InvoicePage,
    InvoiceStatus,
    Payment,
    PaymentMethod,
    Session,
    Setup,
    StripeCustomer,
    TaxId,
)
from server.errors import StripeUnavailable

Object = Mapping[str, Any]

WITHDRAWN = frozenset({"needs_response", "under_review", "lost"})
"""Of a dispute whose money is gone. Inquiries (`warning_…`) withdraw nothing, `won` gives back, and `charge_refunded`
is counted among the refunds: https://docs.stripe.com/disputes/how-disputes-work
"""


def read_customer(found: Object) -> StripeCustomer | None:
    """None for one that was deleted."""
    if found.get("deleted") is True:
        return None
    shipping = _object(found, "shipping")
    return StripeCustomer(
        id=_need_text(found, "id"),
        name=_text(found, "name"),
        email=_text(found, "email"),
        phone=_text(found, "phone"),
        tax_exempt=_text(found, "tax_exempt") or "none",
        tax_ids=[_read_tax_id(each) for each in _list(_object(found, "tax_ids") or {"data": []})],
        billing_address=_read_address(_object(found, "address")),
        shipping_address=_read_address(_object(shipping, "address")) if shipping else None,
        default_payment_method=_id(_object(found, "invoice_settings") or {}, "default_payment_method"),
    )


def read_payment_methods(page: Object) -> list[PaymentMethod]:
    return [_read_payment_method(each) for each in _list(page)]


def read_session(found: Object) -> Session:
    details = _object(found, "customer_details") or {}
    return Session(
        id=_need_text(found, "id"),
        mode=_need_text(found, "mode"),
        status=_need_text(found, "status"),
        payment_status=_need_text(found, "payment_status"),
        url=_text(found, "url"),
        customer_id=_id(found, "customer"),
        customer_email=_text(details, "email") or _text(found, "customer_email"),
        client_reference_id=_text(found, "client_reference_id"),
        currency=_text(found, "currency"),
        subtotal_cents=_number(found, "amount_subtotal"),
        total_cents=_number(found, "amount_total"),
        payment_intent_id=_id(found, "payment_intent"),
        setup_intent_id=_id(found, "setup_intent"),
        metadata=_metadata(found),
    )


def is_disputed(found: Object) -> bool:
    """Whether the charge of this payment intent is or was disputed."""
    charge = _object(found, "latest_charge")
    return charge is not None and charge.get("disputed") is True


def read_payment(found: Object, disputed_cents: int) -> Payment:
    """A payment intent with its `latest_charge` expanded."""
    charge = _object(found, "latest_charge")
    if charge is None and found.get("latest_charge") is not None:
        raise _unfit("payment_intent", "latest_charge")
    return Payment(
        id=_need_text(found, "id"),
        status=_need_text(found, "status"),
        currency=_need_text(found, "currency"),
        received_cents=_need_number(found, "amount_received"),
        customer_id=_id(found, "customer"),
        payment_method_id=_id(found, "payment_method"),
        charge_id=_need_text(charge, "id") if charge else None,
        invoice_id=_id(found, "invoice"),
        refunded_cents=_need_number(charge, "amount_refunded") if charge else 0,
        disputed_cents=disputed_cents,
        metadata=_metadata(found),
        created=_need_number(found, "created"),
    )


def read_disputed_cents(page: Object) -> int:
    return sum(_need_number(each, "amount") for each in _list(page) if _need_text(each, "status") in WITHDRAWN)


def read_setup(found: Object) -> Setup:
    """A setup intent with its `payment_method` expanded."""
    return Setup(
        id=_need_text(found, "id"),
        status=_need_text(found, "status"),
        customer_id=_id(found, "customer"),
        payment_method_id=_id(found, "payment_method"),
        metadata=_metadata(found),
        billing=_read_billing(_object(found, "payment_method") or {}),
    )


def read_charge_payment(found: Object) -> str | None:
    return _id(found, "payment_intent")


def read_invoice(found: Object) -> Invoice:
    return Invoice(
        id=_need_text(found, "id"),
        status=cast(InvoiceStatus, _text(found, "status") or "draft"),
        currency=_need_text(found, "currency"),
        subtotal_cents=_need_number(found, "subtotal"),
        total_cents=_need_number(found, "total"),
        paid_cents=_need_number(found, "amount_paid"),
        customer_id=_id(found, "customer"),
        payment_intent_id=_id(found, "payment_intent"),
        charge_id=_id(found, "charge"),
        created=_need_number(found, "created"),
        due_date=_number(found, "due_date"),
        pdf_url=_text(found, "invoice_pdf"),
        metadata=_metadata(found),
        due_cents=_number(found, "amount_due"),
        settled_usd_cents=_read_settled(_object(found, "charge") or {}),
    )


def read_invoice_page(page: Object) -> InvoicePage:
    return InvoicePage([read_invoice(each) for each in _list(page)], has_more(page))


def read_list(page: Object) -> Sequence[Object]:
    return _list(page)


def has_more(page: Object) -> bool:
    return page.get("has_more") is True


def read_id(found: Object) -> str:
    return _need_text(found, "id")


def read_url(found: Object) -> str:
    return _need_text(found, "url")


def _read_payment_method(found: Object) -> PaymentMethod:
    """A wallet or a way to pay that is newer than this code is shown by its name alone."""
    card = _object(found, "card")
    return PaymentMethod(
        id=_need_text(found, "id"),
        type=_text(found, "type") or "unknown",
        card=_read_card(card) if card else None,
        created=_number(found, "created") or 0,
    )


def _read_card(card: Object) -> Card:
    return Card(
        brand=_text(card, "brand") or "unknown",
        last4=_text(card, "last4") or "",
        exp_month=_number(card, "exp_month") or 0,
        exp_year=_number(card, "exp_year") or 0,
    )


def _read_address(address: Object | None) -> Address | None:
    if address is None:
        return None
    line1, line2, city, state, postal_code, country = (
        _text(address, name) for name in ("line1", "line2", "city", "state", "postal_code", "country")
    )
    return Address(line1, line2, city, state, postal_code, country)


def _read_billing(method: Object) -> BillingDetails | None:
    details = _object(method, "billing_details") or {}
    name, address = _text(details, "name"), _read_address(_object(details, "address"))
    return BillingDetails(name, address) if name and address is not None and address.is_complete else None


def _read_tax_id(found: Object) -> TaxId:
    return TaxId(
        type=_text(found, "type") or "unknown",
        value=_text(found, "value") or "",
        country=_text(found, "country"),
        verification_status=_text(_object(found, "verification") or {}, "status"),
    )


def _read_settled(charge: Object) -> int | None:
    """https://docs.stripe.com/api/balance_transactions/object: `amount` is in the currency of our account."""
    settled = _object(charge, "balance_transaction")
    return _number(settled, "amount") if settled and settled.get("currency") == "usd" else None


def _metadata(found: Object) -> Mapping[str, str]:
    metadata = _object(found, "metadata") or {}
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


def _list(page: Object) -> Sequence[Object]:
    data = page.get("data")
    if not isinstance(data, list):
        raise _unfit("list", "data")
    return [each for each in data if isinstance(each, Mapping)]


def _object(found: Object, name: str) -> Object | None:
    value = found.get(name)
    return value if isinstance(value, Mapping) else None


def _id(found: Object, name: str) -> str | None:
    """Of what stands there as an id or as the object itself."""
    inner = _object(found, name)
    return _text(found, name) if inner is None else _text(inner, "id")


def _text(found: Object, name: str) -> str | None:
    """An empty one is none."""
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def _number(found: Object, name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _need_text(found: Object, name: str) -> str:
    value = _text(found, name)
    if value is None:
        raise _unfit(_text(found, "object") or "object", name)
    return value


def _need_number(found: Object, name: str) -> int:
    value = _number(found, name)
    if value is None:
        raise _unfit(_text(found, "object") or "object", name)
    return value


def _unfit(kind: str, name: str) -> StripeUnavailable:
    return StripeUnavailable(f"Stripe's {kind} does not have its {name}")
