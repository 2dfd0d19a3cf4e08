"""Checkout with real accounts and a Stripe that tests can set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

from server.auditor import Auditor
from server.auth.callers import Caller
from server.billing.checkout import Checkout
from server.billing.customers import Customers
from server.billing.payments import Payments
from server.billing.terms import Terms
from server.billing.terms_reader import TermsReader
from storage.accounts import Accounts
from storage.audit import AuditLog
from storage.billing_customers import BillingCustomers
from storage.configuration import Configuration
from storage.credits import Credits
from storage.postgres import Database, open_database
from storage.purchases import Purchases
from tests.server.billing.fake_stripe_api import FakeStripeApi


@dataclass(frozen=True, slots=True)
class Shop:
    database: Database
    stripe: FakeStripeApi
    checkout: Checkout
    customers: BillingCustomers

    async def make_user(self, *, is_ready: bool = True) -> Caller:
        """Known to Stripe, with a card, if ready."""
        user = await Accounts(self.database).make_user(f"{uuid4()}@example.com")
        if is_ready:
            customer = self.stripe.add_customer(f"cus_{user.id.hex}")
            row = await self.customers.get_or_make(user.id)
            await self.customers.note_customer(user.id, customer.id, row.customer_number)
        return Caller(user.id, user.email, user.role, None, None, frozenset())

    async def balance(self, who: Caller) -> Decimal:
        return (await Credits(self.database).balance(who.user_id)).balance_usd

    async def states(self) -> list[tuple[str, str | None]]:
        rows = await self.database.as_operator("test").fetch(
            "SELECT state, failure FROM purchases ORDER BY created_at, id"
        )
        return [(state, failure) for state, failure in rows]


@asynccontextmanager
async def open_shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_database(database_url, size=4) as database:
        stripe = FakeStripeApi()
        table = BillingCustomers(database)
        log = AuditLog(database, "test", "only-for-tests-0123456789abcdef")
        purchases = Purchases(database, log)
        payments = Payments(stripe, purchases, table, Auditor(log))
        terms = TermsReader(Configuration(database), Terms())
        yield Shop(database, stripe, Checkout(Customers(stripe, table), stripe, purchases, payments, terms), table)
