"""What we ask of Stripe, in words of our own; the only module that knows the paths of its API.

Every method raises StripeUnavailable (nothing is known, try again), StripeRefused (it will not work like this),
CardDeclined, or StripeNotConfigured. What makes something takes an idempotency key of ours, and is safe to repeat with
it. Stripe gives the same answer to the same key for a day at least, also if that was an error:
https://docs.stripe.com/api/idempotent_requests. Amounts are cents.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from server.billing import stripe_forms as forms
from server.billing import stripe_reader as reader
from server.billing.settings import BillingSettings
from server.billing.stripe_objects import (
    Address,
    BillingDetails,
    Card,
    CheckoutOrder,
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
from server.errors import CardDeclined, StripeNotConfigured, StripeRefused, StripeUnavailable

__all__ = [
    "Address",
    "BillingDetails",
    "Card",
    "CardDeclined",
    "CheckoutOrder",
    "Invoice",
    "InvoicePage",
    "InvoiceStatus",
    "Payment",
    "PaymentMethod",
    "Session",
    "Setup",
    "StripeApi",
    "StripeCustomer",
    "StripeNotConfigured",
    "StripeRefused",
    "StripeUnavailable",
    "TaxId",
    "open_stripe_api",
]

Object = Mapping[str, Any]
Ask = Callable[[str, str, Object | None, str | None], Awaitable[Object]]
"""`StripeConnection.ask`: method, path, parameters, idempotency key."""

ID = re.compile(r"[A-Za-z0-9_]{1,255}")
PAGE_SIZE = 100
MISSING = "resource_missing"


class StripeApi:
    """Stripe, by its library. Made by `open_stripe_api`; without `ask` every method raises StripeNotConfigured."""

    def __init__(self, settings: BillingSettings, ask: Ask | None = None) -> None:
        self.settings = settings
        self._ask_stripe = ask

    async def create_customer(self, user_id: UUID, email: str, name: str | None, idempotency_key: str) -> str:
        """The new customer's id; `metadata[user_id]` says whose it is."""
        form = forms.build_customer(user_id, email, name)
        return reader.read_id(await self._ask("post", "customers", form, idempotency_key))

    async def find_customer(self, customer_id: str) -> StripeCustomer | None:
        """None if there is none, or it was deleted."""
        found = await self._find("customers", customer_id, {"expand": ["tax_ids"]})
        return None if found is None else reader.read_customer(found)

    async def list_payment_methods(self, customer_id: str) -> list[PaymentMethod]:
        """A hundred of them at most: nobody pays with more."""
        page = await self._ask("get", "payment_methods", {"customer": customer_id, "limit": PAGE_SIZE})
        return reader.read_payment_methods(page)

    async def set_default_payment_method(self, customer_id: str, payment_method_id: str) -> None:
        """For invoices. Safe to repeat."""
        form = {"invoice_settings": {"default_payment_method": payment_method_id}}
        await self._ask("post", f"customers/{_check_id(customer_id)}", form)

    async def set_billing_details(self, customer_id: str, billing: BillingDetails) -> None:
        """The customer's name and address. Safe to repeat."""
        await self._ask("post", f"customers/{_check_id(customer_id)}", forms.build_billing_details(billing))

    async def create_portal_session(self, customer_id: str, return_url: str) -> str:
        """The URL of Stripe's page where a customer sees to its cards and invoices."""
        form = {"customer": customer_id, "return_url": return_url}
        return reader.read_url(await self._ask("post", "billing_portal/sessions", form))

    async def create_checkout_session(self, order: CheckoutOrder) -> Session:
        """Where the purchase is paid. The key is the purchase's."""
        form = forms.build_checkout(order, self.settings)
        return reader.read_session(await self._ask("post", "checkout/sessions", form, f"{order.purchase_id}:session"))

    async def create_setup_session(self, user_id: UUID, customer_id: str, idempotency_key: str) -> Session:
        """Where a card is left."""
        form = forms.build_setup(user_id, customer_id, self.settings)
        return reader.read_session(await self._ask("post", "checkout/sessions", form, idempotency_key))

    async def find_session(self, session_id: str) -> Session | None:
        found = await self._find("checkout/sessions", session_id)
        return None if found is None else reader.read_session(found)

    async def close_session(self, session_id: str) -> None:
        """Nobody can pay there any more. Raises StripeRefused if somebody has, or it was closed before."""
        await self._ask("post", f"checkout/sessions/{session_id}/expire")

    async def find_payment(self, payment_intent_id: str) -> Payment | None:
        """With its charge, what of it was refunded, and its disputes."""
        found = await self._find("payment_intents", payment_intent_id, {"expand": ["latest_charge"]})
        return None if found is None else await self._read_payment(found)

    async def find_setup(self, setup_intent_id: str) -> Setup | None:
        """With its payment method."""
        found = await self._find("setup_intents", setup_intent_id, {"expand": ["payment_method"]})
        return None if found is None else reader.read_setup(found)

    async def find_charge_payment(self, charge_id: str) -> str | None:
        """The payment intent that a charge belongs to."""
        found = await self._find("charges", charge_id)
        return None if found is None else reader.read_charge_payment(found)

    async def create_invoice(self, order: CheckoutOrder) -> Invoice:
        """A draft for a top-off, with its two lines; not collected before `pay_invoice`. The keys are the purchase's.
        If it was made before, it is told as it is now.
        """
        form = forms.build_invoice(order, self.settings)
        made = await self._ask("post", "invoices", form, f"{order.purchase_id}:invoice")
        invoice_id = reader.read_id(made)
        for name, line in zip(("credits", "fee"), forms.build_lines(order), strict=False):  # a fee may be nothing
            item = forms.build_invoice_item(order, invoice_id, line)
            await self._ask("post", "invoiceitems", item, f"{order.purchase_id}:{name}")
        return await self._need_invoice(invoice_id)

    async def finalize_invoice(self, invoice_id: str) -> Invoice:
        """Safe to repeat: what is final stays so."""
        try:
            return reader.read_invoice(await self._ask("post", f"invoices/{_check_id(invoice_id)}/finalize"))
        except StripeRefused as error:
            return await self._find_in_state(invoice_id, ("open", "paid", "void", "uncollectible"), error)

    async def pay_invoice(self, invoice_id: str, idempotency_key: str) -> Invoice:
        """With the customer's default payment method, off session. Raises CardDeclined. Safe to repeat."""
        path = f"invoices/{_check_id(invoice_id)}/pay"
        try:
            return reader.read_invoice(await self._ask("post", path, {"off_session": True}, idempotency_key))
        except StripeRefused as error:
            return await self._find_in_state(invoice_id, ("paid",), error)

    async def void_invoice(self, invoice_id: str) -> Invoice:
        """Nobody will pay it any more; a draft is deleted. Safe to repeat. Raises StripeRefused if it was paid, or was
        deleted before (`resource_missing`).
        """
        invoice = await self._need_invoice(invoice_id)
        if invoice.status == "void":
            return invoice
        if invoice.status == "draft":
            await self._ask("delete", f"invoices/{invoice_id}")
            return replace(invoice, status="void")
        try:
            return reader.read_invoice(await self._ask("post", f"invoices/{invoice_id}/void"))
        except StripeRefused as error:
            return await self._find_in_state(invoice_id, ("void",), error)

    async def find_invoice(self, invoice_id: str) -> Invoice | None:
        found = await self._find("invoices", invoice_id)
        return None if found is None else reader.read_invoice(found)

    async def list_invoices(self, customer_id: str, limit: int, starting_after: str | None) -> InvoicePage:
        """The newest first; limit 1 to 100. What came in for those in other currencies is asked for only if there are
        any: this server makes none.
        """
        form: dict[str, Any] = {"customer": customer_id, "limit": limit}
        form |= {} if starting_after is None else {"starting_after": starting_after}
        page = reader.read_invoice_page(await self._ask("get", "invoices", form))
        if any(invoice.currency != forms.CURRENCY and invoice.paid_cents for invoice in page.invoices):
            form["expand"] = ["data.charge.balance_transaction"]
            page = reader.read_invoice_page(await self._ask("get", "invoices", form))
        return page

    async def list_payments(self, created_after: datetime) -> AsyncIterator[Payment]:
        """This account's payment intents since then, the newest first, page by page; each as `find_payment` has it."""
        form: dict[str, Any] = {"created": {"gte": int(created_after.timestamp())}, "limit": PAGE_SIZE}
        form["expand"] = ["data.latest_charge"]
        while True:
            page = await self._ask("get", "payment_intents", form)
            payments = [await self._read_payment(each) for each in reader.read_list(page)]
            for payment in payments:
                yield payment
            if not payments or not reader.has_more(page):
                return
            form["starting_after"] = payments[-1].id

    async def _ask(self, method: str, path: str, form: Object | None = None, key: str | None = None) -> Object:
        if self._ask_stripe is None:
            raise StripeNotConfigured("this server sells no credits: no key for Stripe is set")
        return await self._ask_stripe(method, f"/v1/{path}", form, key)

    async def _find(self, collection: str, object_id: str, form: Object | None = None) -> Object | None:
        """None for what Stripe does not have, and for what is no id."""
        if ID.fullmatch(object_id) is None:
            return None
        try:
            return await self._ask("get", f"{collection}/{object_id}", form)
        except StripeRefused as error:
            if error.code != MISSING:
                raise
            return None

    async def _read_payment(self, found: Object) -> Payment:
        """Disputes are asked for only where there are any."""
        is_disputed = reader.is_disputed(found)
        return reader.read_payment(found, await self._find_disputed_cents(reader.read_id(found)) if is_disputed else 0)

    async def _find_disputed_cents(self, payment_intent_id: str) -> int:
        form = {"payment_intent": payment_intent_id, "limit": PAGE_SIZE}
        return reader.read_disputed_cents(await self._ask("get", "disputes", form))

    async def _find_in_state(self, invoice_id: str, states: tuple[InvoiceStatus, ...], error: StripeRefused) -> Invoice:
        """If Stripe refused because it had been done before, it has been done."""
        invoice = await self.find_invoice(invoice_id)
        if invoice is None or invoice.status not in states:
            raise error
        return invoice

    async def _need_invoice(self, invoice_id: str) -> Invoice:
        invoice = await self.find_invoice(invoice_id)
        if invoice is None:
            raise StripeRefused("Stripe has no such invoice", MISSING)
        return invoice


@asynccontextmanager
async def open_stripe_api(settings: BillingSettings) -> AsyncIterator[StripeApi]:
    """Nobody is asked yet. Leaving closes all connections to Stripe."""
    if not settings.sells:
        yield StripeApi(settings)
        return
    from server.billing.stripe_http import open_stripe_connection  # imports Stripe's library: see there

    async with open_stripe_connection(settings) as connection:
        yield StripeApi(settings, connection.ask)


def _check_id(object_id: str) -> str:
    """Fit for a path."""
    if ID.fullmatch(object_id) is None:
        raise StripeRefused("this is no id of Stripe's", MISSING)
    return object_id
