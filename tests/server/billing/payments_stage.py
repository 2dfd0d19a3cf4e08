"""A shop for tests of payments: real accounts, Stripe in memory, and a user who is ready to buy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from server.auditor import Auditor
from server.billing.payments import Payments
from server.billing.stripe_objects import CheckoutOrder, Invoice, Payment, Session
from storage.audit import AuditLog
from storage.billing_customers import BillingCustomers
from storage.credits import Credits
from storage.postgres import Database, open_database
from storage.purchases import Purchase, PurchaseKind, Purchases
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.server.billing.stripe_objects import build_payment
from tests.storage.calls import make_user

SECRET = "only-for-tests-0123456789abcdef-0123456789"
GROSS, FEE, NET = 1000, 200, 800


@dataclass(frozen=True, slots=True)
class Shop:
    database: Database
    stripe: FakeStripeApi
    purchases: Purchases
    customers: BillingCustomers
    payments: Payments

    async def make_buyer(self, customer_id: str = "cus_1", *, has_card: bool = True) -> UUID:
        user_id = await make_user(self.database)
        row = await self.customers.get_or_make(user_id)
        await self.customers.note_customer(user_id, customer_id, row.customer_number)
        self.stripe.add_customer(customer_id, has_card=has_card)
        return user_id

    async def order(self, user_id: UUID, kind: PurchaseKind = "checkout") -> CheckoutOrder:
        """An order of ten dollars, not known to Stripe yet."""
        customer = await self.customers.find(user_id)
        assert customer is not None
        assert customer.customer_id is not None
        purchase = await self.purchases.open(uuid4(), user_id, kind, (GROSS, FEE, NET))
        return CheckoutOrder(purchase.id, user_id, customer.customer_id, GROSS, FEE, NET)

    async def check_out(self, user_id: UUID) -> tuple[CheckoutOrder, Session]:
        """An order, and the page where it can be paid."""
        order = await self.order(user_id)
        session = await self.stripe.create_checkout_session(order)
        await self.purchases.note_session(order.purchase_id, session.id, order.customer_id)
        return order, session

    async def buy(self, user_id: UUID) -> tuple[CheckoutOrder, Payment]:
        """The same, and it was paid there; nobody has told us."""
        order, session = await self.check_out(user_id)
        return order, self.stripe.complete_session(session.id)

    async def invoice(self, user_id: UUID) -> tuple[CheckoutOrder, Invoice]:
        """A top-off whose invoice is final and not paid."""
        order = await self.order(user_id, "top_off")
        invoice = await self.stripe.create_invoice(order)
        await self.purchases.note_invoice(order.purchase_id, invoice.id, order.customer_id)
        return order, await self.stripe.finalize_invoice(invoice.id)

    async def find(self, order: CheckoutOrder) -> Purchase:
        purchase = await self.purchases.find(order.purchase_id)
        assert purchase is not None
        return purchase

    async def read_balance(self, user_id: UUID) -> Decimal:
        return (await Credits(self.database).balance(user_id)).balance_usd

    async def read_audit(self) -> list[tuple[str, str, str]]:
        rows = await self.payments.auditor.log.find_latest(None, None, 1000)
        return [(row.entry.action, row.entry.status, row.entry.entity_id) for row in rows]

    def pay(self, order: CheckoutOrder, payment_id: str = "pi_1", **changes: Any) -> Payment:
        """A payment for the order, as it should be but for the changes."""
        metadata = {"purchase_id": str(order.purchase_id), "user_id": str(order.user_id)}
        payment = build_payment(payment_id, received_cents=GROSS, customer_id=order.customer_id, metadata=metadata)
        return self.stripe.add_payment(replace(payment, **changes))


@asynccontextmanager
async def open_shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_database(database_url, size=8) as database:
        auditor = Auditor(AuditLog(database, "eu", SECRET))
        stripe, customers = FakeStripeApi(), BillingCustomers(database)
        purchases = Purchases(database, auditor.log)
        payments = Payments(stripe, purchases, customers, auditor)
        yield Shop(database, stripe, purchases, customers, payments)
