"""Stripe in memory, for tests of what stands above `StripeApi`; how it is asked over HTTP is tested elsewhere.

Every call is a checkpoint before its effect and another one after it, so that a task can be cancelled at both.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import trio

from server.billing.settings import BillingSettings
from server.billing.stripe_api import (
    BillingDetails,
    CardDeclined,
    CheckoutOrder,
    Invoice,
    InvoicePage,
    Payment,
    PaymentMethod,
    Session,
    Setup,
    StripeApi,
    StripeCustomer,
    StripeRefused,
)
from tests.server.billing.stripe_objects import (
    BILLING,
    build_card,
    build_customer,
    build_invoice,
    build_payment,
    build_settings,
)

Made = TypeVar("Made")


class FakeStripeApi(StripeApi):
    """What it holds may be read and set by tests. `calls` names every call; the first is number one.

    `tax_percent` is put on top of what is sold, and `credit_cents` is what a customer has at Stripe, which pays first.
    A payment method in `declining` is declined with that code. What is in `before_call` and `after_call` is awaited
    with the call's name, before its effect and with it done.
    """

    def __init__(self, settings: BillingSettings | None = None) -> None:
        self.settings = settings or build_settings()
        self.customers: dict[str, StripeCustomer] = {}
        self.payment_methods: dict[str, list[PaymentMethod]] = {}
        """By customer."""
        self.payments: dict[str, Payment] = {}
        self.invoices: dict[str, Invoice] = {}
        self.sessions: dict[str, Session] = {}
        self.setups: dict[str, Setup] = {}
        self.tax_percent = 0
        self.credit_cents = 0
        self.declining: dict[str, str] = {}
        self.calls: list[str] = []
        self.before_call: Callable[[str], Awaitable[None]] | None = None
        self.after_call: Callable[[str], Awaitable[None]] | None = None
        self._failures: dict[int, tuple[Exception, bool]] = {}
        self._made: dict[str, str | StripeRefused] = {}
        self._numbers: dict[str, int] = {}

    # For tests

    def fail_at(self, number: int, error: Exception, *, after_effect: bool = False) -> None:
        """Raise it at that call, before anything happens, or with the effect done: an answer that got lost."""
        self._failures[number] = (error, after_effect)

    def fail_next(self, error: Exception, *, after_effect: bool = False) -> None:
        self.fail_at(len(self.calls) + 1, error, after_effect=after_effect)

    def count(self, name: str) -> int:
        return self.calls.count(name)

    def add_customer(self, customer_id: str = "cus_1", *, has_card: bool = True) -> StripeCustomer:
        """Ready to buy, or with no card yet."""
        self.customers[customer_id] = build_customer(customer_id, "pm_1" if has_card else None)
        self.payment_methods[customer_id] = [build_card()] if has_card else []
        return self.customers[customer_id]

    def add_payment(self, payment: Payment) -> Payment:
        self.payments[payment.id] = payment
        return payment

    def change_payment(self, payment_id: str, *, refunded_cents: int = 0, disputed_cents: int = 0) -> Payment:
        """What of it has gone back by now."""
        payment = self.payments[payment_id]
        return self.add_payment(replace(payment, refunded_cents=refunded_cents, disputed_cents=disputed_cents))

    def complete_session(self, session_id: str) -> Payment:
        """The user pays on Stripe's page, with card pm_1."""
        session = self.sessions[session_id]
        assert session.total_cents is not None
        payment = build_payment(
            self._next_id("pi"),
            received_cents=session.total_cents,
            customer_id=session.customer_id,
            metadata=dict(session.metadata),
        )
        self.sessions[session_id] = replace(
            session, status="complete", payment_status="paid", url=None, payment_intent_id=payment.id
        )
        return self.add_payment(payment)

    def complete_setup(self, session_id: str, method_id: str = "pm_1") -> Setup:
        """The user leaves a card on Stripe's page, with name and address."""
        session = self.sessions[session_id]
        assert session.customer_id is not None
        setup = Setup(self._next_id("seti"), "succeeded", session.customer_id, method_id, session.metadata, BILLING)
        self.payment_methods.setdefault(session.customer_id, []).append(build_card(method_id))
        self.sessions[session_id] = replace(session, status="complete", url=None, setup_intent_id=setup.id)
        self.setups[setup.id] = setup
        return setup

    def expire_session(self, session_id: str) -> Session:
        self.sessions[session_id] = replace(self.sessions[session_id], status="expired", url=None)
        return self.sessions[session_id]

    # StripeApi

    async def create_customer(self, user_id: UUID, email: str, name: str | None, idempotency_key: str) -> str:
        def make() -> str:
            customer = self.add_customer(self._next_id("cus"), has_card=False)
            self.customers[customer.id] = replace(customer, email=email, name=name, billing_address=None)
            return customer.id

        return await self._answer("create_customer", lambda: self._once(idempotency_key, make))

    async def find_customer(self, customer_id: str) -> StripeCustomer | None:
        return await self._answer("find_customer", lambda: self.customers.get(customer_id))

    async def list_payment_methods(self, customer_id: str) -> list[PaymentMethod]:
        return await self._answer("list_payment_methods", lambda: list(self.payment_methods.get(customer_id, [])))

    async def set_default_payment_method(self, customer_id: str, payment_method_id: str) -> None:
        await self._change_customer(
            "set_default_payment_method", customer_id, default_payment_method=payment_method_id
        )

    async def set_billing_details(self, customer_id: str, billing: BillingDetails) -> None:
        await self._change_customer(
            "set_billing_details", customer_id, name=billing.name, billing_address=billing.address
        )

    async def create_portal_session(self, customer_id: str, return_url: str) -> str:
        return await self._answer("create_portal_session", lambda: f"https://stripe.invalid/portal/{customer_id}")

    async def create_checkout_session(self, order: CheckoutOrder) -> Session:
        def make() -> str:
            session = self._build_session("payment", order.user_id, order.customer_id)
            total_cents = self._add_tax(order.gross_cents)
            self.sessions[session.id] = replace(
                session,
                currency="usd",
                subtotal_cents=order.gross_cents,
                total_cents=total_cents,
                metadata=_build_metadata("credit_purchase", order),
            )
            return session.id

        key = f"{order.purchase_id}:session"
        return await self._answer("create_checkout_session", lambda: self.sessions[self._once(key, make)])

    async def create_setup_session(self, user_id: UUID, customer_id: str, idempotency_key: str) -> Session:
        def make() -> str:
            session = self._build_session("setup", user_id, customer_id)
            self.sessions[session.id] = session
            return session.id

        return await self._answer("create_setup_session", lambda: self.sessions[self._once(idempotency_key, make)])

    async def find_session(self, session_id: str) -> Session | None:
        return await self._answer("find_session", lambda: self.sessions.get(session_id))

    async def close_session(self, session_id: str) -> None:
        def close() -> None:
            if self.sessions[session_id].status != "open":
                raise StripeRefused("it is open no more", "resource_missing")
            self.expire_session(session_id)

        await self._answer("close_session", close)

    async def find_payment(self, payment_intent_id: str) -> Payment | None:
        return await self._answer("find_payment", lambda: self.payments.get(payment_intent_id))

    async def find_setup(self, setup_intent_id: str) -> Setup | None:
        return await self._answer("find_setup", lambda: self.setups.get(setup_intent_id))

    async def find_charge_payment(self, charge_id: str) -> str | None:
        payments = (payment.id for payment in self.payments.values() if payment.charge_id == charge_id)
        return await self._answer("find_charge_payment", lambda: next(payments, None))

    async def create_invoice(self, order: CheckoutOrder) -> Invoice:
        def make() -> str:
            invoice = build_invoice(
                self._next_id("in"),
                subtotal_cents=order.gross_cents,
                total_cents=self._add_tax(order.gross_cents),
                customer_id=order.customer_id,
                metadata=_build_metadata("auto_topoff", order),
            )
            self.invoices[invoice.id] = replace(invoice, due_cents=invoice.total_cents - self.credit_cents)
            return invoice.id

        key = f"{order.purchase_id}:invoice"
        return await self._answer("create_invoice", lambda: self.invoices[self._once(key, make)])

    async def finalize_invoice(self, invoice_id: str) -> Invoice:
        return await self._answer("finalize_invoice", lambda: self._finalize(invoice_id))

    async def pay_invoice(self, invoice_id: str, idempotency_key: str) -> Invoice:
        """An invoice that was paid stays as it is; Stripe says no to a second payment with a new key."""
        def pay() -> Invoice:
            return self.invoices[self._once(idempotency_key, lambda: self._pay(invoice_id))]

        return await self._answer("pay_invoice", pay)

    async def void_invoice(self, invoice_id: str) -> Invoice:
        def change() -> Invoice:
            invoice = self._find_invoice(invoice_id)
            if invoice.status == "paid":
                raise StripeRefused("this invoice was paid", "invoice_not_editable")
            voided = replace(invoice, status="void")
            if invoice.status == "draft":
                del self.invoices[invoice_id]
            else:
                self.invoices[invoice_id] = voided
            return voided

        return await self._answer("void_invoice", change)

    async def find_invoice(self, invoice_id: str) -> Invoice | None:
        return await self._answer("find_invoice", lambda: self.invoices.get(invoice_id))

    async def list_invoices(self, customer_id: str, limit: int, starting_after: str | None) -> InvoicePage:
        def page() -> InvoicePage:
            mine = [one for one in reversed(self.invoices.values()) if one.customer_id == customer_id]
            ids = [one.id for one in mine]
            start = ids.index(starting_after) + 1 if starting_after in ids else 0
            return InvoicePage(mine[start : start + limit], len(mine) > start + limit)

        return await self._answer("list_invoices", page)

    async def list_payments(self, created_after: datetime) -> AsyncIterator[Payment]:
        since = created_after.timestamp()
        for payment in await self._answer("list_payments", lambda: list(reversed(self.payments.values()))):
            if payment.created >= since:
                yield payment

    async def _change_customer(self, call: str, customer_id: str, **changes: Any) -> None:
        def change() -> None:
            customer = self.customers.get(customer_id)
            if customer is None:
                raise StripeRefused("there is no such customer", "resource_missing")
            self.customers[customer_id] = replace(customer, **changes)

        await self._answer(call, change)

    async def _answer(self, name: str, effect: Callable[[], Made]) -> Made:
        self.calls.append(name)
        error, is_after = self._failures.pop(len(self.calls), (None, False))
        if self.before_call is not None:
            await self.before_call(name)
        await trio.lowlevel.checkpoint()
        if error is not None and not is_after:
            raise error
        result = effect()
        if self.after_call is not None:
            await self.after_call(name)
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return result

    def _once(self, key: str, make: Callable[[], str]) -> str:
        """The id of what was made with this key; a refusal is repeated too."""
        if key not in self._made:
            try:
                self._made[key] = make()
            except StripeRefused as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, StripeRefused):
            raise made
        return made

    def _next_id(self, prefix: str) -> str:
        self._numbers[prefix] = self._numbers.get(prefix, 0) + 1
        return f"{prefix}_made_{self._numbers[prefix]}"

    def _add_tax(self, cents: int) -> int:
        return cents + cents * self.tax_percent // 100

    def _build_session(self, mode: str, user_id: UUID, customer_id: str) -> Session:
        session_id = self._next_id("cs")
        return Session(
            id=session_id,
            mode=mode,
            status="open",
            payment_status="unpaid" if mode == "payment" else "no_payment_required",
            url=f"https://stripe.invalid/pay/{session_id}",
            customer_id=customer_id,
            customer_email="ann@example.com",
            client_reference_id=str(user_id),
            currency=None,
            subtotal_cents=None,
            total_cents=None,
            payment_intent_id=None,
            setup_intent_id=None,
            metadata={},
        )

    def _find_invoice(self, invoice_id: str) -> Invoice:
        if invoice_id not in self.invoices:
            raise StripeRefused("there is no such invoice", "resource_missing")
        return self.invoices[invoice_id]

    def _finalize(self, invoice_id: str) -> Invoice:
        invoice = self._find_invoice(invoice_id)
        if invoice.status == "draft":
            due_cents = invoice.total_cents - self.credit_cents
            self.invoices[invoice_id] = invoice = replace(invoice, status="open", due_cents=due_cents)
        return invoice

    def _pay(self, invoice_id: str) -> str:
        invoice = self._find_invoice(invoice_id)
        if invoice.status != "open":
            raise StripeRefused(f"this invoice is {invoice.status}", "invoice_not_editable")
        customer = self.customers[invoice.customer_id or ""]
        method = customer.default_payment_method
        if method is None or method in self.declining:
            raise CardDeclined("the bank declined the card", self.declining.get(method or "", "card_declined"))
        payment = self.add_payment(
            build_payment(
                self._next_id("pi"), received_cents=invoice.total_cents, customer_id=customer.id, invoice_id=invoice_id
            )
        )
        self.invoices[invoice_id] = replace(
            invoice,
            status="paid",
            paid_cents=invoice.total_cents,
            payment_intent_id=payment.id,
            charge_id=payment.charge_id,
        )
        return invoice_id


def _build_metadata(kind: str, order: CheckoutOrder) -> dict[str, str]:
    return {
        "type": kind,
        "purchase_id": str(order.purchase_id),
        "user_id": str(order.user_id),
        "gross_amount_cents": str(order.gross_cents),
        "platform_fee_cents": str(order.fee_cents),
        "net_amount_cents": str(order.net_cents),
    }
