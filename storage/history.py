"""The history of a user's credits: the ledger as its owner reads it, and what it sums up to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from storage.postgres import Database
from storage.psycopg_trio import TrioConnection


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger. `free_usd` is the part of the amount that is free credits, `balance_usd` the sum of all rows
    up to this one.

    The tokens of a call (prompts with all that was cached of them, writes to the cache of any lifetime) stand on its
    first row alone, so that sums over entries count them once. What was bought is in US dollars before tax.
    """

    id: int
    kind: str
    amount_usd: Decimal
    free_usd: Decimal
    balance_usd: Decimal
    description: str
    created_at: datetime
    hold_id: UUID | None
    model_id: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_write_tokens: int | None
    cache_read_tokens: int | None
    gross_usd: Decimal | None
    fee_usd: Decimal | None
    stripe_charge_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """`total` is how many there are on all pages."""

    entries: Sequence[Entry]
    total: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What the rows of one user add up to, kind by kind; what was taken is negative. `balance_usd` is the sum of all
    others, `returned_usd` what went back to cards, `given_usd` bonuses, grants and adjustments.
    """

    rows: int
    balance_usd: Decimal
    purchased_usd: Decimal
    consumed_usd: Decimal
    refunded_usd: Decimal
    returned_usd: Decimal
    given_usd: Decimal
    expired_usd: Decimal


@dataclass(frozen=True, slots=True)
class Dates:
    """`free_granted_at`: when free credits were given for the first time. An account without any row begins, and was
    changed last, when its user was made.
    """

    free_granted_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Booked:
    """A row of the ledger. `is_new`: the transaction that asks has written it."""

    amount_usd: Decimal
    created_at: datetime
    is_new: bool


@dataclass(frozen=True, slots=True)
class History:
    """With the rights of the user whose history it is."""

    database: Database

    async def list(self, user_id: UUID, *, limit: int, offset: int = 0, search: str = "") -> Page:
        """The newest first; with `search` those that have it in their description, in any case of letters."""
        parameters = {"pattern": build_pattern(search), "limit": limit, "offset": offset}
        rows = await self.database.as_user(user_id).fetch(_LIST, parameters)
        return Page([Entry(*entry) for _, *entry in rows if entry[0] is not None], rows[0][0])

    async def sum_up(self, user_id: UUID) -> Totals:
        rows = await self.database.as_user(user_id).fetch(_SUM_UP)
        return Totals(*rows[0])

    async def find_dates(self, user_id: UUID) -> Dates | None:
        """None if there is no such user any more."""
        row = await self.database.as_user(user_id).fetch_one(_FIND_DATES)
        return Dates(*row) if row else None


async def find_booked(connection: TrioConnection, idempotency_key: str) -> Booked | None:
    """In the transaction that has just booked something with this key, or found it booked."""
    rows = await connection.send(connection.bind(_FIND_BOOKED, [idempotency_key]))
    return Booked(*rows[0]) if rows else None


def build_pattern(search: str) -> str | None:
    """For ILIKE, whose wildcards stand for themselves here. None: everything."""
    escaped = search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%" if search else None


# Balances are told from the sum of all rows downwards: each row of the page less than the one before it by what lies
# between them. So the newest page reads few rows besides those that are counted, and every page reads a row but once.
_LIST: LiteralString = """
    WITH totals AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE %(pattern)s::text IS NULL OR description ILIKE %(pattern)s) AS entries,
               sum(amount_usd) AS balance_usd
        FROM credit_ledger WHERE user_id = app_user_id()
    ), page AS (
        SELECT * FROM credit_ledger
        WHERE user_id = app_user_id() AND (%(pattern)s::text IS NULL OR description ILIKE %(pattern)s)
        ORDER BY id DESC LIMIT %(limit)s OFFSET %(offset)s
    ), found AS MATERIALIZED (
        SELECT *, lag(id, 1, 9223372036854775807) OVER (ORDER BY id DESC) AS newer_id FROM page
    ), entries AS MATERIALIZED (
        SELECT found.*, coalesce(sum(between_usd) OVER (ORDER BY id DESC), 0) AS newer_usd
        FROM found CROSS JOIN LATERAL (
            SELECT sum(amount_usd) AS between_usd FROM credit_ledger AS others
            WHERE user_id = app_user_id() AND others.id > found.id AND others.id <= newer_id
        ) AS newer
    )
    SELECT totals.entries, entries.id, entries.kind, entries.amount_usd, entries.free_usd, balance_usd - newer_usd,
           description, entries.created_at, hold_id, holds.model_id,
           input_tokens + cache_read_tokens + cache_write_tokens + cache_write_1h_tokens + input_audio_tokens,
           output_tokens + reasoning_tokens + output_audio_tokens + output_image_tokens,
           cache_write_tokens + cache_write_1h_tokens, cache_read_tokens,
           gross_cents * 0.01, fee_cents * 0.01, stripe_charge_id
    FROM totals
    LEFT JOIN entries ON true
    LEFT JOIN holds ON holds.id = hold_id
    LEFT JOIN usage ON request_id = hold_id
        AND entries.id = (SELECT min(id) FROM credit_ledger AS others WHERE others.hold_id = entries.hold_id)
    LEFT JOIN purchases ON purchases.id = purchase_id
    ORDER BY entries.id DESC
"""

_SUM_UP: LiteralString = """
    SELECT count(*), coalesce(sum(amount_usd), 0),
           coalesce(sum(amount_usd) FILTER (WHERE kind = 'purchase'), 0),
           coalesce(sum(amount_usd) FILTER (WHERE kind IN ('charge', 'correction')), 0),
           coalesce(sum(amount_usd) FILTER (WHERE kind = 'refund'), 0),
           coalesce(sum(amount_usd) FILTER (WHERE kind IN ('purchase_refund', 'dispute')), 0),
           coalesce(sum(amount_usd) FILTER (WHERE kind IN ('grant', 'signup_bonus', 'adjustment')), 0),
           coalesce(sum(amount_usd) FILTER (WHERE kind = 'expiry'), 0)
    FROM credit_ledger WHERE user_id = app_user_id()
"""

_FIND_DATES: LiteralString = """
    SELECT (SELECT created_at FROM credit_ledger
            WHERE user_id = app_user_id() AND kind = 'signup_bonus' ORDER BY id LIMIT 1),
           coalesce((SELECT created_at FROM credit_ledger WHERE user_id = app_user_id() ORDER BY id LIMIT 1),
                    users.created_at),
           coalesce((SELECT created_at FROM credit_ledger WHERE user_id = app_user_id() ORDER BY id DESC LIMIT 1),
                    users.created_at)
    FROM users WHERE id = app_user_id()
"""

_FIND_BOOKED: LiteralString = """
    SELECT amount_usd, created_at, credit_ledger.xmin = pg_current_xact_id()::xid FROM credit_ledger
    WHERE idempotency_key = %s
"""
