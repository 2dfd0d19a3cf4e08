"""Stripe's objects for tests, as `StripeApi` tells them: somebody who is ready to buy, what was paid and how."""

from server.billing.settings import BillingSettings
from server.billing.stripe_objects import (
    Address,
    BillingDetails,
    Card,
    Invoice,
    InvoiceStatus,
    Payment,
    PaymentMethod,
    StripeCustomer,
)

ADDRESS = Address("1 Main Street", None, "Springfield", "IL", "62701", "US")
BILLING = BillingDetails("Ann Example", ADDRESS)
CREATED = 1_700_000_000


def build_settings() -> BillingSettings:
    return BillingSettings(
        secret_key="sk_test_0123456789",
        publishable_key="pk_test_0123456789",
        webhook_secret="whsec_0123456789",
        api_base="https://stripe.invalid",
        api_version="2024-06-20",
        deadline_seconds=5,
        website_url="https://cloche.invalid",
        portal_return_url="https://cloche.invalid/billing",
        calculates_tax=True,
    )


def build_customer(customer_id: str = "cus_1", default_payment_method: str | None = "pm_1") -> StripeCustomer:
    """Ready to buy: a name, an address, a card."""
    return StripeCustomer(
        id=customer_id,
        name="Ann Example",
        email="ann@example.com",
        phone=None,
        tax_exempt="none",
        tax_ids=(),
        billing_address=ADDRESS,
        shipping_address=None,
        default_payment_method=default_payment_method,
    )


def build_card(method_id: str = "pm_1") -> PaymentMethod:
    return PaymentMethod(method_id, "card", Card("visa", "4242", 12, 2034), CREATED)


def build_payment(
    payment_id: str = "pi_1",
    *,
    received_cents: int = 1000,
    status: str = "succeeded",
    customer_id: str | None = "cus_1",
    currency: str = "usd",
    invoice_id: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Payment:
    """Paid with card pm_1, its charge named after it."""
    has_charge = status == "succeeded"
    return Payment(
        id=payment_id,
        status=status,
        currency=currency,
        received_cents=received_cents if has_charge else 0,
        customer_id=customer_id,
        payment_method_id="pm_1",
        charge_id=payment_id.replace("pi_", "ch_") if has_charge else None,
        invoice_id=invoice_id,
        refunded_cents=0,
        disputed_cents=0,
        metadata=metadata or {},
        created=CREATED,
    )


def build_invoice(
    invoice_id: str = "in_1",
    *,
    status: InvoiceStatus = "draft",
    subtotal_cents: int = 1000,
    total_cents: int = 1000,
    customer_id: str | None = "cus_1",
    payment_intent_id: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Invoice:
    """If it is paid, then in full."""
    return Invoice(
        id=invoice_id,
        status=status,
        currency="usd",
        subtotal_cents=subtotal_cents,
        total_cents=total_cents,
        paid_cents=total_cents if status == "paid" else 0,
        customer_id=customer_id,
        payment_intent_id=payment_intent_id,
        charge_id=payment_intent_id and payment_intent_id.replace("pi_", "ch_"),
        created=CREATED,
        due_date=None,
        pdf_url=None,
        metadata=metadata or {},
    )
