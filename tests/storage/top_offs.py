"""Users whose credits are to be topped off, for tests."""

from decimal import Decimal
from uuid import UUID, uuid4

from storage.audit import AuditEntry, AuditLog
from storage.billing_customers import BillingCustomers, TopOffSettings, write_top_off
from storage.postgres import Database
from storage.top_offs import DueTopOff, Failed, Failure, OpenTopOff, TopOffTable
from tests.storage.calls import make_user

CENTS = (1000, 200, 800)
DECLINED = Failure("card_declined", (3600.0, 21600.0, 86400.0))


def build_table(database: Database, claim_seconds: float = 60, lease_seconds: float = 120) -> TopOffTable:
    audit = AuditLog(database, "test", "only-for-tests-0123456789abcdef-0123456789")
    return TopOffTable(database, audit, claim_seconds, lease_seconds)


def build_entry(failed: Failed) -> AuditEntry:
    return AuditEntry("auto_top_off_failed", "failed", "system", failed.user_id)


async def make_poor_user(database: Database, credits_usd: str = "1", *, customer_id: str | None = None) -> UUID:
    """Who wants 10 US dollars of credits below 5. By default a customer of its own at Stripe."""
    user_id = await make_user(database, credits_usd)
    customers = BillingCustomers(database)
    await customers.get_or_make(user_id)
    await customers.note_customer(user_id, customer_id or f"cus_{uuid4().hex}", 0)
    await set_top_off(database, user_id)
    return user_id


async def set_top_off(
    database: Database, user_id: UUID, *, enabled: bool = True, threshold_usd: str = "5", amount_usd: str = "10"
) -> None:
    settings = TopOffSettings(enabled, Decimal(threshold_usd), Decimal(amount_usd))
    async with database.as_operator("test").transaction() as connection:
        await write_top_off(connection, user_id, settings)


async def claim(table: TopOffTable) -> DueTopOff:
    due = await table.claim_due()
    assert due is not None
    return due


async def open_order(table: TopOffTable) -> OpenTopOff:
    """For whoever is due, leased."""
    assert await table.open(uuid4(), await claim(table), CENTS)
    order = await table.lease_open()
    assert order is not None
    return order
