"""Auto top-off with real stores and Stripe in memory, for tests: users who run low, and processes that are killed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import trio

from server.auditor import Auditor
from server.billing.customers import Customers
from server.billing.payments import Payments
from server.billing.stripe_api import Invoice
from server.billing.terms import Terms
from server.billing.terms_reader import TermsReader
from server.billing.top_off import TopOffs
from storage.audit import AuditLog
from storage.billing_customers import BillingCustomers
from storage.billing_notices import BillingNotice, BillingNotices
from storage.configuration import Configuration
from storage.credits import Credits
from storage.postgres import Database, open_database
from storage.purchases import Purchases
from storage.top_offs import TopOffTable
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.storage.people import Query, open_query
from tests.storage.top_offs import make_poor_user

SECRET = "only-for-tests-0123456789abcdef-0123456789"


@dataclass(frozen=True, slots=True)
class Stage:
    database: Database
    stripe: FakeStripeApi
    query: Query

    def start_process(self) -> TopOffs:
        """What a process of its own would have."""
        database, stripe = self.database, self.stripe
        audit = AuditLog(database, "test", SECRET)
        auditor = Auditor(audit)
        table = BillingCustomers(database)
        purchases = Purchases(database, audit)
        return TopOffs(
            table=TopOffTable(database, audit),
            stripe=stripe,
            customers=Customers(stripe, table),
            purchases=purchases,
            payments=Payments(stripe, purchases, table, auditor),
            terms=TermsReader(Configuration(database), Terms()),
            notices=BillingNotices(database),
            auditor=auditor,
        )

    async def make_poor_user(self, *, has_card: bool = True) -> UUID:
        """With one US dollar of credits, who wants ten below five; known to Stripe as `customer_of`."""
        customer_id = f"cus_{len(self.stripe.customers) + 1}"
        self.stripe.add_customer(customer_id, has_card=has_card)
        return await make_poor_user(self.database, "1", customer_id=customer_id)

    def customer_of(self, user_id: UUID) -> str:
        ((customer_id,),) = self.query("SELECT stripe_customer_id FROM billing_customers WHERE user_id = %s", user_id)
        return str(customer_id)

    def invoices_of(self, user_id: UUID) -> list[Invoice]:
        customer_id = self.customer_of(user_id)
        return [invoice for invoice in self.stripe.invoices.values() if invoice.customer_id == customer_id]

    def statuses_of(self, user_id: UUID) -> list[str]:
        return [invoice.status for invoice in self.invoices_of(user_id)]

    def orders_of(self, user_id: UUID) -> list[tuple[str, str | None]]:
        """State and failure, the oldest first."""
        orders = "SELECT state, failure FROM purchases WHERE user_id = %s ORDER BY created_at"
        return [(state, failure) for state, failure in self.query(orders, user_id)]

    def settings_of(self, user_id: UUID) -> tuple[bool, int]:
        """Whether it is on, and its failures in a row."""
        settings = "SELECT top_off_enabled, top_off_failures FROM billing_customers WHERE user_id = %s"
        ((is_on, failures),) = self.query(settings, user_id)
        return is_on, failures

    async def balance(self, user_id: UUID) -> Decimal:
        return (await Credits(self.database).balance(user_id)).balance_usd

    async def notices(self, user_id: UUID) -> list[BillingNotice]:
        return await BillingNotices(self.database).list(user_id, limit=100)

    def let_time_pass(self) -> None:
        """Every claim, lease and pause is over."""
        self.query("UPDATE billing_customers SET next_top_off_at = '-infinity'")
        self.query("UPDATE purchases SET leased_until = '-infinity'")

    def grow_old(self, interval: str = "2 hours") -> None:
        """Of all orders."""
        self.query("UPDATE purchases SET created_at = created_at - %s::interval", interval)
        self.let_time_pass()


class Interruption:
    """What happens once, before the next call of that name has its effect. For `FakeStripeApi.before_call`."""

    def __init__(self, name: str, effect: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._effect = effect
        self._is_over = False

    async def __call__(self, name: str) -> None:
        if name == self._name and not self._is_over:
            self._is_over = True
            await self._effect()


async def work(process: TopOffs) -> None:
    """Until nothing is left to do now."""
    while await process.take_step():
        pass


async def work_and_be_killed(process: TopOffs, step: int) -> bool:
    """It is cancelled at the await that ends its n-th step, and goes no further. False if its work was done by then."""
    with trio.CancelScope() as scope:
        killer = _Killer(trio.lowlevel.current_task(), scope, step)
        trio.lowlevel.add_instrument(killer)
        try:
            await work(process)
        finally:
            trio.lowlevel.remove_instrument(killer)
    return scope.cancelled_caught


class _Killer(trio.abc.Instrument):
    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task = task
        self._scope = scope
        self._steps_left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._steps_left -= 1
            if self._steps_left == 0:
                self._scope.cancel()


@asynccontextmanager
async def open_stage(database_url: str, owner_database_url: str) -> AsyncIterator[Stage]:
    with open_query(owner_database_url) as query:
        async with open_database(database_url, size=8) as database:
            yield Stage(database, FakeStripeApi(), query)
