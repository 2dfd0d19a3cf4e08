"""Cards, invoices and addresses, as Stripe keeps them: shown here, changed on its own pages."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated

import msgspec
from quart import Blueprint, request

from server.billing.stripe_api import Card, Invoice, PaymentMethod, StripeCustomer, TaxId
from server.errors import NotFound, RequestInvalid, StripeNotConfigured, StripeRefused
from server.guard import access, caller
from server.operations import Answer, operation
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


class CardAnswer(msgspec.Struct, rename="camel"):
    brand: str
    last4: str
    exp_month: int
    exp_year: int


class PaymentMethodAnswer(msgspec.Struct, rename="camel"):
    """`type` is Stripe's own word. `created` in Unix seconds."""

    id: str
    type: str
    card: CardAnswer | None
    created: int
    is_default: bool


class PaymentMethodsAnswer(msgspec.Struct, rename="camel"):
    total_methods: int
    has_default: bool
    methods: Sequence[PaymentMethodAnswer]


class InvoiceAnswer(msgspec.Struct, rename="camel"):
    """Times in Unix seconds, `amountPaid` in the smallest unit of the currency."""

    id: str
    created: int
    due_date: int | None
    amount_paid_display: str
    amount_paid: int
    currency: str
    status: str
    invoice_pdf_url: str | None


class InvoicesAnswer(msgspec.Struct, rename="camel"):
    """`totalInvoices`: on this page."""

    invoices: Sequence[InvoiceAnswer]
    total_invoices: int
    has_more: bool


class TaxIdAnswer(msgspec.Struct, rename={"type": "type_", "verification_status": "verificationStatus"}):
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
    tax_ids: Sequence[TaxIdAnswer]
    address_line1: str | None
    address_line2: str | None
    address_city: str | None
    address_state: str | None
    address_postal_code: str | None
    address_country: str | None
    has_billing_info: bool


InvoiceId = Annotated[
    str,
    msgspec.Meta(pattern=f"^({INVOICE_ID.pattern})?$", description="The last invoice of the page before, if any."),
]


class InvoicesQuery(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_INVOICES)] = DEFAULT_INVOICES
    starting_after: InvoiceId | None = None


class PortalPageAnswer(msgspec.Struct):
    url: str


class PublishableKeyAnswer(msgspec.Struct, rename="camel"):
    publishable_key: str


@blueprint.post("/create-portal-session")
@access(is_for_people=True)
@operation("Open your billing portal")
async def open_portal() -> Answer[PortalPageAnswer]:
    """Makes a page at Stripe where you manage your cards, addresses and invoices. It ends by itself if nobody opens
    it.
    """
    who, billing = caller(), services().billing
    customer_id = await billing.customers.ensure(who.user_id, who.email, who.name)
    url = await billing.stripe.create_portal_session(customer_id, billing.settings.portal_return_url)
    return Answer(PortalPageAnswer(url), headers=NO_STORE)


@blueprint.get("/payment-methods")
@access(is_for_people=True)
@operation("List your payment methods")
async def show_methods() -> Answer[PaymentMethodsAnswer]:
    """All of them: `limit` and `offset` are passed over."""
    billing = services().billing
    customer = await billing.customers.describe(caller().user_id)
    methods = [] if customer is None else await billing.stripe.list_payment_methods(customer.id)
    shown = describe_methods(methods, None if customer is None else customer.default_payment_method)
    return Answer(shown, headers=NO_STORE)


@blueprint.get("/stripe/publishable-key")
@operation("Show Stripe's publishable key")
async def show_publishable_key() -> Answer[PublishableKeyAnswer]:
    """What Stripe's own libraries need in an app. It is no secret."""
    key = services().billing.settings.publishable_key
    if key is None:
        raise StripeNotConfigured("this server sells no credits: no publishable key for Stripe is set")
    return Answer(PublishableKeyAnswer(key), headers=NO_STORE)


@blueprint.get("/invoices")
@access(is_for_people=True)
@operation("List your invoices", query=InvoicesQuery)
async def show_invoices() -> Answer[InvoicesAnswer]:
    """The newest first. A limit out of its bounds is taken for the nearest in them."""
    query = read_query(request.args)
    billing = services().billing
    customer_id = await billing.customers.find_id(caller().user_id)
    if customer_id is None:
        return Answer(InvoicesAnswer([], 0, has_more=False), headers=NO_STORE)
    try:
        page = await billing.stripe.list_invoices(customer_id, query.limit, query.starting_after)
    except StripeRefused as error:
        if query.starting_after is None or error.code != "resource_missing":
            raise
        raise NotFound("starting_after: you have no such invoice") from error
    shown = [describe_invoice(each) for each in page.invoices]
    return Answer(InvoicesAnswer(shown, len(shown), page.has_more), headers=NO_STORE)


@blueprint.get("/customer-info")
@access(is_for_people=True)
@operation("Show your billing details")
async def show_customer() -> Answer[CustomerInfo | None]:
    """Null while Stripe knows nothing of you."""
    customer = await services().billing.customers.describe(caller().user_id)
    return Answer(None if customer is None else describe_customer(customer), headers=NO_STORE)


def read_query(arguments: Mapping[str, str]) -> InvoicesQuery:
    """Brought into its bounds. Raises RequestInvalid."""
    limit, starting_after = arguments.get("limit", ""), arguments.get("starting_after") or None
    if starting_after is not None and INVOICE_ID.fullmatch(starting_after) is None:
        raise RequestInvalid("starting_after: the id of an invoice")
    if limit and re.fullmatch(r"[+-]?[0-9]{1,18}", limit) is None:
        raise RequestInvalid("limit: a whole number")
    return InvoicesQuery(min(max(int(limit or DEFAULT_INVOICES), 1), MAX_INVOICES), starting_after)


def describe_methods(methods: Sequence[PaymentMethod], default_id: str | None) -> PaymentMethodsAnswer:
    shown = [
        PaymentMethodAnswer(each.id, each.type, _describe_card(each.card), each.created, each.id == default_id)
        for each in methods
    ]
    return PaymentMethodsAnswer(len(shown), any(each.is_default for each in shown), shown)


def describe_invoice(invoice: Invoice) -> InvoiceAnswer:
    return InvoiceAnswer(
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


def _describe_card(card: Card | None) -> CardAnswer | None:
    return None if card is None else CardAnswer(card.brand, card.last4, card.exp_month, card.exp_year)


def _describe_tax_id(found: TaxId) -> TaxIdAnswer:
    return TaxIdAnswer(found.type, found.value, found.country, found.verification_status)


def _show_units(units: int, places: int) -> str:
    return f"{Decimal(units).scaleb(-places):.{places}f}"
