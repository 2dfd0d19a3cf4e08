"""Cards, invoices and addresses, as Stripe keeps them: shown here, changed on its own pages."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from quart import Blueprint, Response, request

from server.billing.stripe_api import Card, Invoice, PaymentMethod, StripeCustomer, TaxId
from server.errors import NotFound, RequestInvalid, StripeNotConfigured, StripeRefused
from server.guard import access, caller
from server.pages import NO_STORE
from server.services import services

DEFAULT_INVOICES = 50
MAX_INVOICES = 100
INVOICE_ID = re.compile(r"in_[A-Za-z0-9_]{1,250}")

WHOLE = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
)
THOUSANDTHS = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
"""Currencies whose smallest unit is no hundredth: https://docs.stripe.com/currencies#zero-decimal"""

blueprint = Blueprint("payment_methods", __name__, url_prefix="/api/billing")


class _Card(msgspec.Struct, rename="camel"):
    brand: str
    last4: str
    exp_month: int
    exp_year: int


class _Method(msgspec.Struct, rename="camel"):
    """`type` is Stripe's own word. `created` in Unix seconds."""

    id: str
    type: str
    card: _Card | None
    created: int
    is_default: bool


class _Methods(msgspec.Struct, rename="camel"):
    total_methods: int
    has_default: bool
    methods: Sequence[_Method]


class _Invoice(msgspec.Struct, rename="camel"):
    """Times in Unix seconds, `amount_paid` in the smallest unit of the currency."""

    id: str
    created: int
    due_date: int | None
    amount_paid_display: str
    amount_paid: int
    currency: str
    status: str
    invoice_pdf_url: str | None


class _Invoices(msgspec.Struct, rename="camel"):
    """`total_invoices`: on this page."""

    invoices: Sequence[_Invoice]
    total_invoices: int
    has_more: bool


class _TaxId(msgspec.Struct, rename={"type": "type_", "verification_status": "verificationStatus"}):
    """Clients decode the key `type_`."""

    type: str
    value: str
    country: str | None
    verification_status: str | None


class CustomerInfo(msgspec.Struct, rename="camel"):
    """The address is that of the bills, else where things are sent to."""

    customer_name: str | None
    customer_email: str | None
    phone: str | None
    tax_exempt: str
    tax_ids: Sequence[_TaxId]
    address_line1: str | None
    address_line2: str | None
    address_city: str | None
    address_state: str | None
    address_postal_code: str | None
    address_country: str | None
    has_billing_info: bool


@blueprint.post("/create-portal-session")
@access(is_for_people=True)
async def open_portal() -> Response:
    """Every request makes a page, which ends by itself if nobody opens it."""
    who, billing = caller(), services().billing
    customer_id = await billing.customers.ensure(who.user_id, who.email, who.name)
    url = await billing.stripe.create_portal_session(customer_id, billing.settings.portal_return_url)
    return _as_json({"url": url})


@blueprint.get("/payment-methods")
@access(is_for_people=True)
async def show_methods() -> Response:
    """All of them: `limit` and `offset` are passed over."""
    billing = services().billing
    customer = await billing.customers.describe(caller().user_id)
    methods = [] if customer is None else await billing.stripe.list_payment_methods(customer.id)
    return _as_json(describe_methods(methods, None if customer is None else customer.default_payment_method))


@blueprint.get("/stripe/publishable-key")
async def show_publishable_key() -> Response:
    key = services().billing.settings.publishable_key
    if key is None:
        raise StripeNotConfigured("this server sells no credits: no publishable key for Stripe is set")
    return _as_json({"publishableKey": key})


@blueprint.get("/invoices")
@access(is_for_people=True)
async def show_invoices() -> Response:
    """Of the caller's own customer: in `starting_after` an invoice of somebody else's is one that is not there."""
    limit, starting_after = read_page(request.args)
    billing = services().billing
    customer_id = await billing.customers.find_id(caller().user_id)
    if customer_id is None:
        return _as_json(_Invoices([], 0, has_more=False))
    try:
        page = await billing.stripe.list_invoices(customer_id, limit, starting_after)
    except StripeRefused as error:
        if starting_after is None or error.code != "resource_missing":
            raise
        raise NotFound("starting_after: you have no such invoice") from error
    return _as_json(_Invoices([describe_invoice(each) for each in page.invoices], len(page.invoices), page.has_more))


@blueprint.get("/customer-info")
@access(is_for_people=True)
async def show_customer() -> Response:
    """Null while there is no customer."""
    customer = await services().billing.customers.describe(caller().user_id)
    return _as_json(None if customer is None else describe_customer(customer))


def read_page(arguments: Mapping[str, str]) -> tuple[int, str | None]:
    """How many invoices, brought into its bounds, and after which. Raises RequestInvalid."""
    limit, starting_after = arguments.get("limit", ""), arguments.get("starting_after") or None
    if starting_after is not None and INVOICE_ID.fullmatch(starting_after) is None:
        raise RequestInvalid("starting_after: the id of an invoice")
    if limit and re.fullmatch(r"[+-]?[0-9]{1,18}", limit) is None:
        raise RequestInvalid("limit: a whole number")
    return min(max(int(limit or DEFAULT_INVOICES), 1), MAX_INVOICES), starting_after


def describe_methods(methods: Sequence[PaymentMethod], default_id: str | None) -> _Methods:
    shown = [
        _Method(each.id, each.type, _describe_card(each.card), each.created, each.id == default_id) for each in methods
    ]
    return _Methods(len(shown), any(each.is_default for each in shown), shown)


def describe_invoice(invoice: Invoice) -> _Invoice:
    return _Invoice(
        id=invoice.id,
        created=invoice.created,
        due_date=invoice.due_date,
        amount_paid_display=show_paid(invoice),
        amount_paid=invoice.paid_cents,
        currency=invoice.currency,
        status=invoice.status,
        invoice_pdf_url=invoice.pdf_url,
    )


def show_paid(invoice: Invoice) -> str:
    """What came in, in US dollars, if Stripe says it; else in the invoice's own currency."""
    if invoice.settled_usd_cents is not None:
        return _show_units(invoice.settled_usd_cents, 2)
    places = 0 if invoice.currency in WHOLE else 3 if invoice.currency in THOUSANDTHS else 2
    return _show_units(invoice.paid_cents, places)


def describe_customer(customer: StripeCustomer) -> CustomerInfo:
    address = customer.billing_address or customer.shipping_address
    line1, city, country = (address.line1, address.city, address.country) if address else (None, None, None)
    return CustomerInfo(
        customer_name=customer.name,
        customer_email=customer.email,
        phone=customer.phone,
        tax_exempt=customer.tax_exempt,
        tax_ids=[_describe_tax_id(each) for each in customer.tax_ids],
        address_line1=line1,
        address_line2=address.line2 if address else None,
        address_city=city,
        address_state=address.state if address else None,
        address_postal_code=address.postal_code if address else None,
        address_country=country,
        has_billing_info=None not in {customer.name, line1, city, country},
    )


def _describe_card(card: Card | None) -> _Card | None:
    return None if card is None else _Card(card.brand, card.last4, card.exp_month, card.exp_year)


def _describe_tax_id(found: TaxId) -> _TaxId:
    return _TaxId(found.type, found.value, found.country, found.verification_status)


def _show_units(units: int, places: int) -> str:
    return f"{Decimal(units).scaleb(-places):.{places}f}"


def _as_json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), headers=NO_STORE, content_type="application/json")
