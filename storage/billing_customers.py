"""Who a user is to Stripe, and when its credits are topped off: one row for each user, there before Stripe is asked."""

from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from psycopg import errors

from storage.credits import UserUnknown
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection


@dataclass(frozen=True, slots=True)
class BillingCustomer:
    """`customer_id` is Stripe's; None: there is none yet, or no more. `customer_number` counts those that there were
    before, and is a part of the idempotency key that makes the next one.
    """

    user_id: UUID
    customer_id: str | None
    customer_number: int


@dataclass(frozen=True, slots=True)
class TopOffSettings:
    """As the user set them: below the threshold of paid credits the amount is bought. Both are there when enabled."""

    enabled: bool
    threshold_usd: Decimal | None
    amount_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class BillingCustomers:
    """Every method may be repeated."""

    database: Database

    async def get_or_make(self, user_id: UUID) -> BillingCustomer:
        """The user's row, made if it was not there. Raises UserUnknown."""
        rights = self.database.as_operator("make a billing customer")
        try:
            rows = await rights.fetch(_GET_OR_MAKE, {"user_id": user_id})
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more") from error
        return BillingCustomer(*rows[0])

    async def note_customer(self, user_id: UUID, customer_id: str, customer_number: int) -> bool:
        """What Stripe made for that number. False if somebody noted a customer before, or the number has passed: then
        that one counts.
        """
        parameters = {"user_id": user_id, "customer_id": customer_id, "number": customer_number}
        return bool(await self.database.as_operator("note a billing customer").fetch(_NOTE, parameters))

    async def forget(self, customer_id: str) -> bool:
        """Stripe has it no more: the next one gets a new number. False if it is nobody's."""
        return bool(await self.database.as_operator("forget a billing customer").fetch(_FORGET, [customer_id]))

    async def find(self, user_id: UUID) -> BillingCustomer | None:
        row = await self.database.as_user(user_id).fetch_one(_FIND)
        return BillingCustomer(*row) if row else None

    async def find_user(self, customer_id: str) -> UUID | None:
        row = await self.database.as_operator("find whose customer it is").fetch_one(_FIND_USER, [customer_id])
        return row[0] if row else None

    async def read_top_off(self, user_id: UUID) -> TopOffSettings | None:
        row = await self.database.as_user(user_id).fetch_one(_READ_TOP_OFF)
        return TopOffSettings(*row) if row else None


async def write_top_off(connection: TrioConnection, user_id: UUID, settings: TopOffSettings) -> None:
    """In the operator's transaction that also notes it in the audit log. What failed before is forgotten: it is tried
    anew. Amounts are positive or None. Raises UserUnknown.
    """
    parameters = {
        "user_id": user_id,
        "enabled": settings.enabled,
        "threshold": settings.threshold_usd,
        "amount": settings.amount_usd,
    }
    try:
        await connection.send(connection.bind(_WRITE_TOP_OFF, parameters))
    except errors.ForeignKeyViolation as error:
        raise UserUnknown(f"there is no user {user_id}, or no more: nothing was set") from error


# An update that changes nothing: so the row is returned, whoever made it.
_GET_OR_MAKE: LiteralString = """
    INSERT INTO billing_customers (user_id) VALUES (%(user_id)s)
    ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id
    RETURNING user_id, stripe_customer_id, customer_number
"""

_NOTE: LiteralString = """
    UPDATE billing_customers SET stripe_customer_id = %(customer_id)s, updated_at = now()
    WHERE user_id = %(user_id)s AND customer_number = %(number)s
      AND coalesce(stripe_customer_id, %(customer_id)s) = %(customer_id)s
    RETURNING user_id
"""

_FORGET: LiteralString = """
    UPDATE billing_customers
    SET stripe_customer_id = NULL, customer_number = customer_number + 1, updated_at = now()
    WHERE stripe_customer_id = %s
    RETURNING user_id
"""

_FIND: LiteralString = "SELECT user_id, stripe_customer_id, customer_number FROM billing_customers"

_FIND_USER: LiteralString = "SELECT user_id FROM billing_customers WHERE stripe_customer_id = %s"

_READ_TOP_OFF: LiteralString = """
    SELECT top_off_enabled, top_off_threshold_usd, top_off_amount_usd FROM billing_customers
"""

_WRITE_TOP_OFF: LiteralString = """
    INSERT INTO billing_customers (user_id, top_off_enabled, top_off_threshold_usd, top_off_amount_usd)
    VALUES (%(user_id)s, %(enabled)s, %(threshold)s, %(amount)s)
    ON CONFLICT (user_id) DO UPDATE SET
        top_off_enabled = excluded.top_off_enabled, top_off_threshold_usd = excluded.top_off_threshold_usd,
        top_off_amount_usd = excluded.top_off_amount_usd, top_off_failures = 0, next_top_off_at = '-infinity',
        updated_at = now()
"""
