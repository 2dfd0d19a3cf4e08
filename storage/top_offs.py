"""Auto top-off as the accounts know it: whose credits are to be topped off, what is under way, and what failed.

An order is opened by whoever finds a user below the threshold, and carried out by whoever gets its lease: the same
process as a rule, another one if that was killed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import errors

from storage.audit import AuditEntry, AuditLog
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

CLAIM_SECONDS = 60
"""Whoever claims a user has this long to open an order; and a user is topped off no more often."""
LEASE_SECONDS = 120
"""Longer than carrying out an order may take. When it is over, whoever had it is taken for dead."""


@dataclass(frozen=True, slots=True)
class DueTopOff:
    """A user who has less paid credits than it wants. `attempts_today` are the orders of the last 24 hours;
    `has_returned`: a payment was refunded or disputed since the settings were saved.
    """

    user_id: UUID
    amount_usd: Decimal
    attempts_today: int
    has_returned: bool = False


@dataclass(frozen=True, slots=True)
class OpenTopOff:
    """An order under way, leased. `customer_id` is Stripe's: that of its invoice, or the user's while there is none.

    With a `failure` it is not to be paid any more, and only waits for its invoice to be void. `is_wanted` is False if
    the user has turned top-offs off since, or set another amount.
    """

    id: UUID
    user_id: UUID
    gross_cents: int
    fee_cents: int
    net_cents: int
    customer_id: str | None
    invoice_id: str | None
    failure: str | None
    is_wanted: bool
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing was bought. `pauses_seconds` are the pauses after the first failure in a row, the second, and so on;
    with the last of them top-offs are turned off. `counts` False: it is nobody's fault, takes the first pause, and is
    no step towards that. `is_told`: the user gets a notice.
    """

    reason: str
    pauses_seconds: Sequence[float]
    counts: bool = True
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """What follows. `failures` in a row; `is_enabled`: top-offs go on, after `pause_seconds`; `turned_off`: no more, by
    this very failure.
    """

    user_id: UUID
    failures: int
    is_enabled: bool
    turned_off: bool
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class TopOffTable:
    """Every method may be repeated, and run in every process at once."""

    database: Database
    audit: AuditLog
    claim_seconds: float = CLAIM_SECONDS
    lease_seconds: float = LEASE_SECONDS

    async def claim_due(self) -> DueTopOff | None:
        """The user who waits for it longest and whom nobody has claimed. What failed before a top-off that was paid
        counts no more.
        """
        parameters = {"claim": self.claim_seconds}
        row = await self.database.as_operator("find credits to top off").fetch_one(_CLAIM, parameters)
        return DueTopOff(*row) if row else None

    async def open(self, purchase_id: UUID, due: DueTopOff, cents: tuple[int, int, int]) -> bool:
        """An order of gross, fee and net cents. False if it is not due any more: it is asked once more under a lock,
        for whoever has claimed the user may have been asleep since, and another has topped its credits off.
        """
        gross, fee, net = cents
        parameters = {
            "id": purchase_id,
            "user_id": due.user_id,
            "amount": due.amount_usd,
            "gross": gross,
            "fee": fee,
            "net": net,
        }
        try:
            async with self.database.as_operator("open a top-off").transaction() as connection:
                await _lock_settings(connection, due.user_id)
                return bool(await connection.send(connection.bind(_OPEN, parameters)))
        except errors.ForeignKeyViolation:  # the user is no more
            return False

    async def lease_open(self) -> OpenTopOff | None:
        """An order that nobody carries out: a new one, or one whose process is gone, or that had to wait."""
        parameters = {"lease": self.lease_seconds}
        row = await self.database.as_operator("carry out a top-off").fetch_one(_LEASE, parameters)
        return OpenTopOff(*row) if row else None

    async def postpone(self, purchase_id: UUID, seconds: float) -> None:
        """The order is leased to nobody for that long."""
        parameters = {"id": purchase_id, "seconds": seconds}
        await self.database.as_operator("postpone a top-off").fetch(_POSTPONE, parameters)

    async def pause(self, user_id: UUID, seconds: float) -> None:
        """Nothing is bought for the user for that long."""
        parameters = {"user_id": user_id, "seconds": seconds}
        await self.database.as_operator("pause top-offs").fetch(_PAUSE, parameters)

    async def fail(self, order: OpenTopOff, failure: Failure, build_entry: Callable[[Failed], AuditEntry]) -> bool:
        """The order is not to be paid any more: counted and told once, in the transaction of its row in the audit log.
        False if it has failed or ended before. Its invoice has to be made void now, and `end` called.
        """
        async with self.database.as_operator("note a failed top-off").transaction() as connection:
            settings = await _lock_settings(connection, order.user_id)
            parameters = {"id": order.id, "reason": failure.reason}
            if settings is None or not await connection.send(connection.bind(_FAIL, parameters)):
                return False
            failed = count_failure(order.user_id, settings, failure)
            await _note(connection, failed, failure, f"top_off:{order.id}", order.gross_cents)
            await self.audit.append(connection, build_entry(failed))
        return True

    async def fail_before(
        self, due: DueTopOff, attempt_id: UUID, failure: Failure, build_entry: Callable[[Failed], AuditEntry]
    ) -> bool:
        """The same where there is no order yet; `attempt_id` is any new id. False if top-offs are off by now."""
        async with self.database.as_operator("note a failed top-off").transaction() as connection:
            settings = await _lock_settings(connection, due.user_id)
            if settings is None or not settings.is_enabled:
                return False
            failed = count_failure(due.user_id, settings, failure)
            await _note(connection, failed, failure, f"top_off:{attempt_id}", int(due.amount_usd * 100))
            await self.audit.append(connection, build_entry(failed))
        return True

    async def end(self, purchase_id: UUID, invoice_id: str | None) -> bool:
        """An order that failed, and whose invoice nobody can pay. False if it has ended, or has another invoice than
        this one by now.
        """
        parameters = {"id": purchase_id, "invoice_id": invoice_id}
        return bool(await self.database.as_operator("end a top-off").fetch(_END, parameters))


@dataclass(frozen=True, slots=True)
class _Settings:
    is_enabled: bool
    failures: int


def count_failure(user_id: UUID, settings: _Settings, failure: Failure) -> Failed:
    failures = settings.failures + failure.counts
    pauses = failure.pauses_seconds
    is_last = failure.counts and failures >= len(pauses)
    pause_seconds = pauses[min(failures, len(pauses)) - 1] if failure.counts else pauses[0]
    is_enabled = settings.is_enabled and not is_last
    return Failed(user_id, failures, is_enabled, settings.is_enabled and is_last, pause_seconds)


async def _lock_settings(connection: TrioConnection, user_id: UUID) -> _Settings | None:
    """The user's row first, as a deletion of the account does it: what is inserted afterwards refers to it."""
    parameters = {"user_id": user_id}
    rows = await connection.send(connection.bind(_LOCK_USER, parameters) + connection.bind(_LOCK_SETTINGS, parameters))
    return _Settings(*rows[0]) if rows else None


async def _note(connection: TrioConnection, failed: Failed, failure: Failure, key: str, gross_cents: int) -> None:
    parameters = {
        "user_id": failed.user_id,
        "failures": failed.failures,
        "is_enabled": failed.is_enabled,
        "seconds": failed.pause_seconds,
        "kind": "top_off_disabled" if failed.turned_off else "top_off_failed",
        "key": key,
        "details": _describe(failed, failure, gross_cents),
        "is_told": failure.is_told,
    }
    await connection.send(connection.bind(_NOTE, parameters) + connection.bind(_TELL, parameters))


def _describe(failed: Failed, failure: Failure, gross_cents: int) -> str:
    amount = f"{Decimal(gross_cents) / 100:.2f}"
    details = {"reason": failure.reason, "amountUsd": amount, "failures": failed.failures}
    retry = {} if failed.turned_off else {"retryAfterSeconds": round(failed.pause_seconds)}
    return msgspec.json.encode(details | retry).decode()


_LOCK_USER: LiteralString = "SELECT FROM users WHERE id = %(user_id)s FOR KEY SHARE;"

_LOCK_SETTINGS: LiteralString = """
    SELECT top_off_enabled, top_off_failures FROM billing_customers WHERE user_id = %(user_id)s FOR NO KEY UPDATE
"""

# What was paid and is not booked yet is an open order still.
_IS_LOW: LiteralString = """
    top_off_enabled
    AND top_off_threshold_usd > coalesce(
        (SELECT balance_usd - free_usd FROM credit_balances WHERE user_id = customer.user_id), 0)
    AND NOT EXISTS (
        SELECT FROM purchases WHERE user_id = customer.user_id AND kind = 'top_off' AND state = 'open')
"""

# Of two who find the same row the second sees, once it has the lock, that it was claimed:
# https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
_CLAIM: LiteralString = f"""
    WITH due AS MATERIALIZED (
        SELECT user_id FROM billing_customers AS customer
        WHERE next_top_off_at <= now() AND {_IS_LOW}
        ORDER BY next_top_off_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ), latest AS (
        SELECT state FROM purchases WHERE user_id = (SELECT user_id FROM due) AND kind = 'top_off'
        ORDER BY created_at DESC LIMIT 1
    )
    UPDATE billing_customers AS customer
    SET next_top_off_at = now() + make_interval(secs => %(claim)s),
        top_off_failures = CASE WHEN EXISTS (SELECT FROM latest WHERE state = 'paid') THEN 0 ELSE top_off_failures END
    FROM due WHERE customer.user_id = due.user_id
    RETURNING customer.user_id, top_off_amount_usd,
        (SELECT count(*) FROM purchases
         WHERE purchases.user_id = customer.user_id AND kind = 'top_off' AND created_at > now() - interval '1 day'),
        EXISTS (
            SELECT FROM purchases JOIN credit_ledger AS entry ON entry.purchase_id = purchases.id
            WHERE purchases.user_id = customer.user_id AND refunded_cents + disputed_cents > 0
              AND entry.kind IN ('purchase_refund', 'dispute') AND amount_usd < 0
              AND entry.created_at > customer.updated_at)
"""  # noqa: S608 - made of constants

# A statement of its own after the lock, so that it sees what those before it have done.
_OPEN: LiteralString = f"""
    INSERT INTO purchases (id, user_id, kind, gross_cents, fee_cents, net_cents)
    SELECT %(id)s, user_id, 'top_off', %(gross)s, %(fee)s, %(net)s FROM billing_customers AS customer
    WHERE user_id = %(user_id)s AND top_off_amount_usd = %(amount)s AND {_IS_LOW}
    ON CONFLICT DO NOTHING
    RETURNING id
"""  # noqa: S608 - made of constants

_LEASE: LiteralString = """
    WITH free AS MATERIALIZED (
        SELECT id FROM purchases WHERE kind = 'top_off' AND state = 'open' AND leased_until < now()
        ORDER BY leased_until LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE purchases AS purchase SET leased_until = now() + make_interval(secs => %(lease)s)
    FROM free, billing_customers AS customer
    WHERE purchase.id = free.id AND customer.user_id = purchase.user_id
    RETURNING purchase.id, purchase.user_id, gross_cents, fee_cents, net_cents,
        coalesce(purchase.stripe_customer_id, customer.stripe_customer_id), stripe_invoice_id, failure,
        top_off_enabled AND top_off_amount_usd * 100 = gross_cents,
        extract(epoch FROM now() - purchase.created_at)::float8
"""

_POSTPONE: LiteralString = """
    UPDATE purchases SET leased_until = now() + make_interval(secs => %(seconds)s)
    WHERE id = %(id)s AND state = 'open'
"""

_PAUSE: LiteralString = """
    UPDATE billing_customers SET next_top_off_at = now() + make_interval(secs => %(seconds)s)
    WHERE user_id = %(user_id)s
"""

_FAIL: LiteralString = """
    UPDATE purchases SET failure = %(reason)s WHERE id = %(id)s AND state = 'open' AND failure IS NULL RETURNING id
"""

_NOTE: LiteralString = """
    UPDATE billing_customers
    SET top_off_failures = %(failures)s, top_off_enabled = %(is_enabled)s,
        next_top_off_at = now() + make_interval(secs => %(seconds)s)
    WHERE user_id = %(user_id)s;
"""

_TELL: LiteralString = """
    INSERT INTO billing_notices (user_id, kind, notice_key, details)
    SELECT %(user_id)s, %(kind)s, %(key)s, %(details)s::jsonb WHERE %(is_told)s
    ON CONFLICT (user_id, notice_key) DO NOTHING
"""

_END: LiteralString = """
    UPDATE purchases SET state = 'failed', ended_at = now()
    WHERE id = %(id)s AND state = 'open' AND failure IS NOT NULL
      AND stripe_invoice_id IS NOT DISTINCT FROM %(invoice_id)s
    RETURNING id
"""
