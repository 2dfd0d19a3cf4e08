"""What is booked besides calls: free credits given and expired, adjustments, and what calls cost given back."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from psycopg import errors

from storage.credits import UserUnknown
from storage.errors import StorageError
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection
from storage.settling import LOCK_ACCOUNT


class AdjustmentRefused(StorageError):
    """It would take more than is available: running calls hold the rest, or nothing is there."""


@dataclass(frozen=True, slots=True)
class Refunded:
    """What was given back to the user of a call, and the part of it that went to its free credits."""

    user_id: UUID
    amount_usd: Decimal
    free_usd: Decimal


@dataclass(frozen=True, slots=True)
class Bookings:
    database: Database

    async def grant_free(
        self, user_id: UUID, amount_usd: Decimal, expires_at: datetime | None, *, idempotency_key: str, description: str
    ) -> bool:
        """Give free credits; None: they never expire. Those that have expired do not live on with them. False if this
        key was booked before. Raises UserUnknown.
        """
        parameters = {
            "user_id": user_id,
            "amount": amount_usd,
            "expires_at": expires_at,
            "key": idempotency_key,
            "description": description,
        }
        try:
            operator = self.database.as_operator("grant free credits")
            return bool(await operator.fetch(LOCK_ACCOUNT + _EXPIRE_USER + _GRANT_FREE, parameters))
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: nothing was granted") from error

    async def expire_free(self, limit: int = 500) -> int:
        """Book the end of free credits whose time is over and which no running call holds; says of how many users. Safe
        to repeat, and to run on every process at once.
        """
        return len(await self.database.as_operator("expire free credits").fetch(_EXPIRE, {"limit": limit}))


async def adjust(
    connection: TrioConnection, user_id: UUID, amount_usd: Decimal, *, actor: str, reason: str, idempotency_key: str
) -> Decimal:
    """In the operator's transaction that also notes it in the audit log: give paid credits, or take them, and free ones
    after them. Returns the new balance. A key that was booked before changes nothing.

    Raises UserUnknown and AdjustmentRefused; then the transaction has to be left by the exception.
    """
    parameters = {
        "user_id": user_id,
        "amount": amount_usd,
        "actor": actor,
        "reason": reason,
        "key": idempotency_key,
    }
    bind = connection.bind
    rows = await connection.send(bind(LOCK_ACCOUNT + _READ_AVAILABLE, parameters))
    if not rows:
        raise UserUnknown(f"there is no user {user_id}, or no more: nothing was adjusted")
    ((available, is_booked),) = rows
    if amount_usd < 0 and available + amount_usd < 0 and not is_booked:
        raise AdjustmentRefused(f"{-amount_usd} USD cannot be taken: {available} USD are available")
    await connection.send(bind(_ADJUST, parameters))
    ((balance,),) = await connection.send(bind(_READ_BALANCE, parameters))
    return Decimal(balance)


async def refund_call(connection: TrioConnection, request_id: UUID, *, actor: str, reason: str) -> Refunded | None:
    """In the operator's transaction that also notes it in the audit log: give back all that a call was charged, to free
    and paid credits as it was taken. None if there is nothing to give back: unknown, running, free, or given back.
    """
    parameters = {"id": request_id, "actor": actor, "reason": reason}
    bind = connection.bind
    await connection.send(bind(_LOCK_ACCOUNT_OF_CALL, parameters))
    rows = await connection.send(bind(_REFUND, parameters))
    return Refunded(*rows[0]) if rows else None


_EXPIRE: LiteralString = """
    WITH due AS MATERIALIZED (
        SELECT user_id, free_usd - held_free_usd AS amount_usd FROM credit_balances
        WHERE free_expires_at <= now() AND free_usd > held_free_usd AND free_usd > 0 -- as the index says it
        ORDER BY free_expires_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    )
    INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, idempotency_key, description)
    SELECT user_id, 'expiry', -amount_usd, -amount_usd, 'expiry:' || gen_random_uuid(), 'free credits expired' FROM due
    RETURNING user_id
"""

_EXPIRE_USER: LiteralString = """
    INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, idempotency_key, description)
    SELECT user_id, 'expiry', held_free_usd - free_usd, held_free_usd - free_usd, 'expiry:' || gen_random_uuid(),
           'free credits expired'
    FROM credit_balances
    WHERE user_id = %(user_id)s AND free_expires_at <= now() AND free_usd > held_free_usd;
"""

_GRANT_FREE: LiteralString = """
    INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, free_expires_at, idempotency_key, description)
    VALUES (%(user_id)s, 'signup_bonus', %(amount)s, %(amount)s, %(expires_at)s, %(key)s, %(description)s)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING id
"""

_READ_AVAILABLE: LiteralString = """
    SELECT available_usd(credit_balances), EXISTS (SELECT FROM credit_ledger WHERE idempotency_key = %(key)s)
    FROM credit_balances WHERE user_id = %(user_id)s
"""

_ADJUST: LiteralString = """
    INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, idempotency_key, description, actor)
    SELECT user_id, 'adjustment', %(amount)s,
           least(0, greatest(%(amount)s + greatest(balance_usd - free_usd - (held_usd - held_free_usd), 0),
                             -spare_free_usd(credit_balances))),
           %(key)s, %(reason)s, %(actor)s
    FROM credit_balances WHERE user_id = %(user_id)s
    ON CONFLICT (idempotency_key) DO NOTHING
"""

_READ_BALANCE: LiteralString = "SELECT balance_usd FROM credit_balances WHERE user_id = %(user_id)s"

_LOCK_ACCOUNT_OF_CALL: LiteralString = """
    SELECT FROM credit_balances WHERE user_id = (SELECT user_id FROM holds WHERE id = %(id)s) FOR NO KEY UPDATE
"""

# Of a lot of free credits that is over, the part that comes back has expired. A limit counts the call no more, if it
# ended in the limit's period.
_REFUND: LiteralString = """
    WITH call AS MATERIALIZED (
        SELECT holds.*, CASE WHEN holds.free_lot <> account.free_lot THEN charged_free_usd ELSE 0 END AS over_usd
        FROM holds JOIN credit_balances AS account USING (user_id)
        WHERE id = %(id)s AND state <> 'held' AND charged_usd > 0 AND refunded_usd = 0
        FOR NO KEY UPDATE OF holds
    ), closed AS (
        UPDATE holds SET refunded_usd = call.charged_usd FROM call WHERE holds.id = call.id
    ), counted AS (
        UPDATE spending_limits SET spent_usd = spent_usd - charged_usd
        FROM call
        WHERE spending_limits.user_id = call.user_id AND settled_at >= period_start
          AND (spending_limits.api_key_id IS NULL OR spending_limits.api_key_id = call.api_key_id)
    ), booked AS (
        INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, idempotency_key, hold_id, description, actor)
        SELECT user_id, 'refund', charged_usd, charged_free_usd, 'refund:' || id, id, %(reason)s, %(actor)s FROM call
        UNION ALL
        SELECT user_id, 'expiry', -over_usd, -over_usd, 'expiry:refund:' || id, id, 'free credits expired', 'system'
        FROM call WHERE over_usd <> 0
    )
    SELECT user_id, charged_usd, charged_free_usd FROM call
"""
