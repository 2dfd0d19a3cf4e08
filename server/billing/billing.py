"""Everything that sells and books credits, in one record, and the loops that it needs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from server.auditor import Auditor
from server.billing.checkout import Checkout
from server.billing.customers import Customers
from server.billing.inbox import WORKERS, Inbox
from server.billing.payment_check import PaymentCheck
from server.billing.payments import Payments
from server.billing.reconciliation import Reconciliation
from server.billing.settings import BillingSettings
from server.billing.stripe_api import StripeApi, open_stripe_api
from server.billing.terms_reader import TermsReader
from server.billing.top_off import WORKERS as TOP_OFF_WORKERS
from server.billing.top_off import TopOffs
from server.billing.upkeep import Upkeep
from storage.billing_customers import BillingCustomers
from storage.billing_notices import BillingNotices
from storage.bookings import Bookings
from storage.credits import Credits
from storage.history import History
from storage.postgres import Database
from storage.purchases import Purchases
from storage.reconciliation import Reconciliations
from storage.spending_limits import SpendingLimits
from storage.stripe_events import StripeEvents
from storage.top_offs import TopOffTable
from storage.usage import UsageReports


@dataclass(frozen=True, slots=True)
class Billing:
    settings: BillingSettings
    terms: TermsReader
    credits: Credits
    history: History
    usage: UsageReports
    spending_limits: SpendingLimits
    bookings: Bookings
    stripe: StripeApi
    customers: Customers
    purchases: Purchases
    payments: Payments
    checkout: Checkout
    inbox: Inbox
    billing_customers: BillingCustomers
    notices: BillingNotices
    top_offs: TopOffs
    reconciliation: Reconciliation
    loops: tuple[Callable[[], Awaitable[object]], ...]
    """Each runs as long as the process."""


@asynccontextmanager
async def open_billing(
    settings: BillingSettings, database: Database, credits_: Credits, auditor: Auditor, terms: TermsReader
) -> AsyncIterator[Billing]:
    """Open what talks to Stripe, and close it at the end. Nobody is asked before it is needed."""
    async with open_stripe_api(settings) as stripe:
        purchases = Purchases(database, auditor.log)
        billing_customers = BillingCustomers(database)
        customers = Customers(stripe, billing_customers)
        bookings = Bookings(database)
        payments = Payments(stripe, purchases, billing_customers, auditor)
        events = StripeEvents(database)
        inbox = Inbox(events, payments, billing_customers, auditor)
        notices = BillingNotices(database)
        table = TopOffTable(database, auditor.log)
        top_offs = TopOffs(table, stripe, customers, purchases, payments, terms, notices, auditor)
        checkout = Checkout(customers, stripe, purchases, payments, terms)
        books = Reconciliations(database)
        check = PaymentCheck(stripe, purchases, payments, books)
        reconciliation = Reconciliation(books, check, checkout.sweep_open, settings.sells, credits_.lease_seconds)
        always = [Upkeep(bookings, events).keep_up, reconciliation.keep_reconciled]
        selling = [*[inbox.keep_working] * WORKERS, *[top_offs.keep_topping_off] * TOP_OFF_WORKERS]
        yield Billing(
            settings=settings,
            terms=terms,
            credits=credits_,
            history=History(database),
            usage=UsageReports(database),
            spending_limits=SpendingLimits(database),
            bookings=bookings,
            stripe=stripe,
            customers=customers,
            purchases=purchases,
            payments=payments,
            checkout=checkout,
            inbox=inbox,
            billing_customers=billing_customers,
            notices=notices,
            top_offs=top_offs,
            reconciliation=reconciliation,
            loops=(*always, *(selling if settings.sells else [])),
        )
