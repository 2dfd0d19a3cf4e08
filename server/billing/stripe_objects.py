"""What Stripe tells, in our own words. Pure. Amounts are cents, times Unix seconds; None where Stripe has nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

InvoiceStatus = Literal["draft", "open", "paid", "void", "uncollectible"]


@dataclass(frozen=True, slots=True)
class Address:
    line1: str | None = field(repr=False)
    line2: str | None = field(repr=False)
    city: str | None = field(repr=False)
    state: str | None = field(repr=False)
    postal_code: str | None = field(repr=False)
    country: str | None = field(repr=False)

    @property
    def is_complete(self) -> bool:
        """Taxes can be computed for it."""
        return all((self.line1, self.city, self.postal_code, self.country))


@dataclass(frozen=True, slots=True)
class BillingDetails:
    """A name and a complete address."""

    name: str = field(repr=False)
    address: Address


@dataclass(frozen=True, slots=True)
class TaxId:
    type: str
    value: str = field(repr=False)
    country: str | None
    verification_status: str | None


@dataclass(frozen=True, slots=True)
class StripeCustomer:
    """`default_payment_method` is that of its invoices. `tax_exempt`: none, exempt, reverse."""

    id: str
    name: str | None = field(repr=False)
    email: str | None = field(repr=False)
    phone: str | None = field(repr=False)
    tax_exempt: str
    tax_ids: Sequence[TaxId]
    billing_address: Address | None
    shipping_address: Address | None
    default_payment_method: str | None


@dataclass(frozen=True, slots=True)
class Card:
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """`type` is Stripe's own word, in lower case, also one that nobody here knows. `created` in Unix seconds."""

    id: str
    type: str
    card: Card | None
    created: int


@dataclass(frozen=True, slots=True)
class CheckoutOrder:
    """A purchase as Stripe's page is to sell it: two lines, credits (`net_cents`) and a processing fee."""

    purchase_id: UUID
    user_id: UUID
    customer_id: str
    gross_cents: int
    fee_cents: int
    net_cents: int


@dataclass(frozen=True, slots=True)
class Session:
    """`status`: open, complete, expired. `payment_status`: paid, unpaid, no_payment_required. `total_cents` includes
    the tax; `url` is there while the session is open.
    """

    id: str
    mode: str
    status: str
    payment_status: str
    url: str | None = field(repr=False)
    customer_id: str | None
    customer_email: str | None = field(repr=False)
    client_reference_id: str | None
    currency: str | None
    subtotal_cents: int | None
    total_cents: int | None
    payment_intent_id: str | None
    setup_intent_id: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment intent as it is now. `disputed_cents` is what disputes have withdrawn and not given back."""

    id: str
    status: str
    currency: str
    received_cents: int
    customer_id: str | None
    payment_method_id: str | None
    charge_id: str | None
    invoice_id: str | None
    refunded_cents: int
    disputed_cents: int
    metadata: Mapping[str, str]
    created: int


@dataclass(frozen=True, slots=True)
class Setup:
    """A setup intent: a card that was left, or not. `billing` came with the card."""

    id: str
    status: str
    customer_id: str | None
    payment_method_id: str | None
    metadata: Mapping[str, str]
    billing: BillingDetails | None = None


@dataclass(frozen=True, slots=True)
class Invoice:
    """`subtotal_cents` is without tax. `due_cents` is less than the total if the customer has a credit at Stripe, which
    pays first. Times in Unix seconds.
    """

    id: str
    status: InvoiceStatus
    currency: str
    subtotal_cents: int
    total_cents: int
    paid_cents: int
    customer_id: str | None
    payment_intent_id: str | None
    charge_id: str | None
    created: int
    due_date: int | None
    pdf_url: str | None = field(repr=False)
    metadata: Mapping[str, str]
    settled_usd_cents: int | None = None
    """What came in, of an invoice in another currency; None also where nobody has asked."""
    due_cents: int | None = None

    @property
    def is_reduced(self) -> bool:
        return self.due_cents is not None and self.due_cents < self.total_cents


@dataclass(frozen=True, slots=True)
class InvoicePage:
    invoices: Sequence[Invoice]
    has_more: bool
