"""Whether the accounts add up: every balance against the ledger, every hold, call and purchase against its bookings.

All of it is read in one snapshot, in which a running server's accounts add up too, for whatever moves money is one
statement or one transaction. Everything is read: a table of a million calls takes seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

EXAMINE_SECONDS = 300.0
MAX_TOLD = 50
"""The most differences of one kind that are told; the rest is counted."""
KEPT_DAYS = 90


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that does not add up, in US dollars. `subject_id` is of what the kind names."""

    kind: str
    subject_id: str
    expected_usd: Decimal
    found_usd: Decimal


@dataclass(frozen=True, slots=True)
class Total:
    """Of one kind: how many differ, and by how much together, without signs."""

    count: int
    drift_usd: Decimal


@dataclass(frozen=True, slots=True)
class State:
    """What is no drift and yet worth knowing. Debts are balances whose paid part is below zero."""

    accounts: int
    debts: int
    debts_usd: Decimal
    open_holds: int
    held_usd: Decimal
    provisional: int
    open_purchases: int
    stripe_events: Mapping[str, int]
    """By state, but for those that are done."""


@dataclass(frozen=True, slots=True)
class Findings:
    """`totals` has every kind that was looked at, also those without a difference."""

    drifts: Sequence[Drift]
    totals: Mapping[str, Total]
    state: State


@dataclass(frozen=True, slots=True)
class PaidOrder:
    """A purchase that was booked: cents that came in, and of these that have gone back."""

    id: UUID
    payment_intent_id: str
    total_cents: int
    refunded_cents: int
    disputed_cents: int


@dataclass(frozen=True, slots=True)
class Reconciliations:
    """Looking at everybody's accounts, and keeping what was found."""

    database: Database

    async def examine(self, lease_seconds: int) -> Findings:
        """Changes nothing. A hold whose lease ended more than `lease_seconds` ago should have been settled since."""
        async with self.database.as_operator("reconcile the accounts").snapshot(EXAMINE_SECONDS) as connection:
            found = [await _compare(connection, kind, select, lease_seconds) for kind, select in _CHECKS.items()]
            (state,) = await connection.send(connection.bind(_STATE, ()))
        drifts = [drift for some, _ in found for drift in some]
        totals = {kind: total for kind, (_, total) in zip(_CHECKS, found, strict=True)}
        return Findings(drifts, totals, State(*state))

    async def find_paid(self, since: datetime) -> list[PaidOrder]:
        """The purchases that were paid since then."""
        rows = await self.database.as_operator("reconcile purchases").fetch(_FIND_PAID, {"since": since})
        return [PaidOrder(*row) for row in rows]

    async def find_users(self, user_ids: Sequence[UUID]) -> set[UUID]:
        """Those of them that there are."""
        rows = await self.database.as_operator("reconcile purchases").fetch(_FIND_USERS, {"ids": list(user_ids)})
        return {user_id for (user_id,) in rows}

    async def claim(self, period_seconds: float) -> int | None:
        """The number of a reconciliation to be made now; None if one was begun within the period, by any process. One
        that is never kept is made again after it.
        """
        parameters = {"period": period_seconds, "days": KEPT_DAYS}
        async with self.database.as_operator("begin a reconciliation").transaction() as connection:
            bind = connection.bind
            await connection.send(bind(_LOCK, ()))
            await connection.send(bind(_PURGE, parameters))
            rows = await connection.send(bind(_CLAIM, parameters))
        return int(rows[0][0]) if rows else None

    async def keep(self, number: int, figures: Mapping[str, Any]) -> None:
        parameters = {"id": number, "figures": Jsonb(dict(figures))}
        await self.database.as_operator("keep a reconciliation").fetch(_KEEP, parameters)

    async def find_latest(self) -> tuple[float, dict[str, Any]] | None:
        """Its age in seconds, and its figures. One small read."""
        row = await self.database.as_operator("show the latest reconciliation").fetch_one(_LATEST)
        return (float(row[0]), row[1]) if row else None


async def _compare(
    connection: TrioConnection, kind: str, select: LiteralString, lease_seconds: int
) -> tuple[list[Drift], Total]:
    parameters = {"lease": lease_seconds, "limit": MAX_TOLD}
    rows = await connection.send(connection.bind(_DIFFERENT.replace("{select}", select), parameters))
    total = Total(rows[0][3], rows[0][4]) if rows else Total(0, Decimal(0))
    return list(_read_drifts(kind, rows)), total


def _read_drifts(kind: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[Drift]:
    for subject_id, expected_usd, found_usd, *_ in rows:
        yield Drift(kind, str(subject_id), expected_usd, found_usd)


_DIFFERENT: LiteralString = """
    SELECT id, expected, found, count(*) OVER (), sum(abs(found - expected)) OVER ()
    FROM ({select}) AS compared (id, expected, found)
    WHERE found <> expected
    ORDER BY id LIMIT %(limit)s
"""

# Each selects an id, what it should be, and what it is.
_BOOKED: LiteralString = """
    SELECT user_id, coalesce(booked, 0), coalesce({column}, 0)
    FROM credit_balances FULL JOIN (
        SELECT user_id, sum({part}) AS booked FROM credit_ledger GROUP BY user_id
    ) AS entries USING (user_id)
"""
_HELD: LiteralString = """
    SELECT user_id, coalesce(holding, 0), coalesce({column}, 0)
    FROM credit_balances FULL JOIN (
        SELECT user_id, sum({part}) AS holding FROM holds WHERE state = 'held' GROUP BY user_id
    ) AS running USING (user_id)
"""
_CHARGED: LiteralString = """
    SELECT id, coalesce(charged, 0), coalesce({column}, 0)
    FROM holds FULL JOIN (
        SELECT hold_id AS id, -sum({part}) AS charged FROM credit_ledger
        WHERE kind IN ('charge', 'correction') GROUP BY hold_id
    ) AS entries USING (id)
"""
_CHECKS: Mapping[str, LiteralString] = {
    "balance": _BOOKED.replace("{column}", "balance_usd").replace("{part}", "amount_usd"),
    "free_balance": _BOOKED.replace("{column}", "credit_balances.free_usd").replace("{part}", "free_usd"),
    "held": _HELD.replace("{column}", "held_usd").replace("{part}", "amount_usd"),
    "held_free": _HELD.replace("{column}", "held_free_usd").replace("{part}", "free_usd"),
    "hold": _CHARGED.replace("{column}", "charged_usd").replace("{part}", "amount_usd"),
    "hold_free": _CHARGED.replace("{column}", "charged_free_usd").replace("{part}", "free_usd"),
    "usage": """
        SELECT id, coalesce(charged_usd, 0), coalesce(cost_usd, 0)
        FROM holds FULL JOIN usage ON usage.request_id = holds.id
    """,
    "refund": """
        SELECT id, coalesce(refunded_usd, 0), coalesce(refunded, 0)
        FROM holds FULL JOIN (
            SELECT hold_id AS id, sum(amount_usd) AS refunded FROM credit_ledger WHERE kind = 'refund' GROUP BY hold_id
        ) AS entries USING (id)
    """,
    "spending_limit": """
        SELECT id, coalesce((
                SELECT sum(amount_usd) FROM holds
                WHERE holds.user_id = wanted.user_id AND state = 'held'
                  AND (wanted.api_key_id IS NULL OR wanted.api_key_id = holds.api_key_id)
            ), 0), held_usd
        FROM spending_limits AS wanted
    """,
    "overdue_hold": """
        SELECT id, 0::numeric, amount_usd FROM holds
        WHERE state = 'held' AND expires_at < now() - make_interval(secs => %(lease)s)
    """,
    "purchase": """
        SELECT id, CASE state WHEN 'paid' THEN net_cents / 100.0 ELSE 0 END, coalesce(booked, 0)
        FROM purchases FULL JOIN (
            SELECT purchase_id AS id, sum(amount_usd) AS booked FROM credit_ledger
            WHERE kind = 'purchase' GROUP BY purchase_id
        ) AS entries USING (id)
    """,
    "purchase_returned": """
        SELECT id, coalesce(taken_back_usd, 0), coalesce(taken, 0)
        FROM purchases FULL JOIN (
            SELECT purchase_id AS id, -sum(amount_usd) AS taken FROM credit_ledger
            WHERE kind IN ('purchase_refund', 'dispute') GROUP BY purchase_id
        ) AS entries USING (id)
    """,
}
KINDS: Sequence[str] = tuple(_CHECKS)

_STATE: LiteralString = """
    SELECT count(*), count(*) FILTER (WHERE balance_usd < free_usd),
           coalesce(sum(free_usd - balance_usd) FILTER (WHERE balance_usd < free_usd), 0),
           (SELECT count(*) FROM holds WHERE state = 'held'), coalesce(sum(held_usd), 0),
           (SELECT count(*) FROM usage WHERE provisional),
           (SELECT count(*) FROM purchases WHERE state = 'open'),
           (SELECT coalesce(jsonb_object_agg(state, number), '{}') FROM (
               SELECT state, count(*) AS number FROM stripe_events WHERE state <> 'done' GROUP BY state
           ) AS counted)
    FROM credit_balances
"""

_FIND_PAID: LiteralString = """
    SELECT id, stripe_payment_intent_id, total_cents, refunded_cents, disputed_cents FROM purchases
    WHERE state = 'paid' AND paid_at >= %(since)s AND stripe_payment_intent_id IS NOT NULL AND total_cents IS NOT NULL
    ORDER BY paid_at
"""

_FIND_USERS: LiteralString = "SELECT id FROM users WHERE id = ANY(%(ids)s)"

# In a statement of its own: what follows sees what the one before it has begun.
_LOCK: LiteralString = "SELECT pg_advisory_xact_lock(hashtext('cloche reconciliation'))"
_PURGE: LiteralString = "DELETE FROM reconciliations WHERE at < now() - make_interval(days => %(days)s)"
_CLAIM: LiteralString = """
    INSERT INTO reconciliations (figures) SELECT '{}'
    WHERE NOT EXISTS (SELECT FROM reconciliations WHERE at > now() - make_interval(secs => %(period)s))
    RETURNING id
"""
_KEEP: LiteralString = "UPDATE reconciliations SET figures = %(figures)s WHERE id = %(id)s"
_LATEST: LiteralString = """
    SELECT extract(epoch FROM now() - at), figures FROM reconciliations
    WHERE figures <> '{}' ORDER BY id DESC LIMIT 1
"""
