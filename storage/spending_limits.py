"""Limits that users set for what they, or one of their API keys, spend in a day or month of UTC.

Holds and settlements keep the rows (storage/credits.py, storage/settling.py), under the lock of the user's balance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal, LiteralString
from uuid import UUID

from psycopg import errors

from storage.credits import UserUnknown
from storage.errors import StorageError
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection
from storage.settling import LOCK_ACCOUNT

Period = Literal["day", "month"]

PERCENT_STEP = Decimal("0.01")


class ApiKeyUnknown(StorageError):
    """The user has no such API key, or it is live no more."""


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """`api_key_id` None: all that the user spends. `spent_usd` is of the period that ends at `resets_at`. It may be
    more than the limit, which may have been lowered; and a call may cost more than it held.
    """

    id: UUID
    api_key_id: UUID | None
    period: Period
    limit_usd: Decimal
    alert_percents: Sequence[int]
    spent_usd: Decimal
    held_usd: Decimal
    period_start: datetime
    resets_at: datetime
    created_at: datetime
    updated_at: datetime

    @property
    def left_usd(self) -> Decimal:
        """What a new call may hold, never negative."""
        return max(self.limit_usd - self.spent_usd - self.held_usd, Decimal(0))

    @property
    def percent(self) -> Decimal:
        """What of the limit was spent, to two places; also over a hundred. Of a limit of nothing all is spent."""
        if not self.limit_usd:
            return Decimal(100)
        return (self.spent_usd * 100 / self.limit_usd).quantize(PERCENT_STEP, ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class NewLimit:
    """`alert_percents` None: as they are, or the usual ones of a new limit."""

    api_key_id: UUID | None
    period: Period
    limit_usd: Decimal
    alert_percents: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    database: Database

    async def list(self, user_id: UUID) -> "list[SpendingLimit]":
        """Of the user and its live keys: the user's own first."""
        rows = await self.database.as_user(user_id).fetch(_LIST)
        return [SpendingLimit(*row) for row in rows]


async def set_spending_limit(connection: TrioConnection, user_id: UUID, new: NewLimit) -> SpendingLimit:
    """In the operator's transaction that also notes it in the audit log. Replaces the limit of the same key and period;
    a new one knows what was spent in its period before, and what running calls hold. Safe to repeat. Raises
    ApiKeyUnknown and UserUnknown.

    The limits of keys that have ended go, so that there are never more than the live keys have.
    """
    parameters = {
        "user_id": user_id,
        "api_key_id": new.api_key_id,
        "period": new.period,
        "limit": new.limit_usd,
        "percents": None if new.alert_percents is None else [*new.alert_percents],
    }
    bind = connection.bind
    try:
        await connection.send(bind(LOCK_ACCOUNT + _DROP_ENDED, parameters))
        rows = await connection.send(bind(_SET, parameters))
    except errors.ForeignKeyViolation as error:
        raise UserUnknown(f"there is no user {user_id}, or no more: no limit was set") from error
    if not rows:
        raise ApiKeyUnknown("you have no such API key that lives; GET /api/auth/api-keys lists yours")
    return SpendingLimit(*rows[0])


async def remove_spending_limit(connection: TrioConnection, user_id: UUID, limit_id: UUID) -> SpendingLimit | None:
    """In the operator's transaction that also notes it in the audit log: as it was. None if the user has no such limit.
    Safe to repeat.
    """
    parameters = {"user_id": user_id, "id": limit_id}
    rows = await connection.send(connection.bind(LOCK_ACCOUNT + _REMOVE, parameters))
    return SpendingLimit(*rows[0]) if rows else None


# A period that began since the last call ended has nothing spent in it yet.
_COLUMNS: LiteralString = """
    id, api_key_id, period, limit_usd, alert_percents,
    CASE WHEN period_start >= date_trunc(period, now(), 'UTC') THEN spent_usd ELSE 0 END, held_usd,
    greatest(period_start, date_trunc(period, now(), 'UTC')),
    (date_trunc(period, now() AT TIME ZONE 'UTC') + ('1 ' || period)::interval) AT TIME ZONE 'UTC',
    created_at, updated_at
"""

_LIVE_KEYS: LiteralString = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

_LIST: LiteralString = f"""
    SELECT {_COLUMNS} FROM spending_limits
    WHERE user_id = app_user_id()
      AND (api_key_id IS NULL OR api_key_id IN (SELECT api_keys.id FROM api_keys WHERE {_LIVE_KEYS}))
    ORDER BY api_key_id NULLS FIRST, period
"""  # noqa: S608 - made of constants

_DROP_ENDED: LiteralString = f"""
    DELETE FROM spending_limits
    WHERE user_id = %(user_id)s AND api_key_id IN (
        SELECT api_keys.id FROM api_keys WHERE api_keys.user_id = %(user_id)s AND NOT ({_LIVE_KEYS})
    )
"""  # noqa: S608 - made of constants

# The trigger counts what was spent and is held for every row that is to be inserted, and the limit that is there keeps
# its own figures.
_SET: LiteralString = f"""
    INSERT INTO spending_limits (user_id, api_key_id, period, limit_usd, alert_percents)
    SELECT %(user_id)s, %(api_key_id)s::uuid, %(period)s, %(limit)s,
           coalesce(%(percents)s::smallint[], '{{50,80,100}}')
    WHERE %(api_key_id)s::uuid IS NULL OR EXISTS (
        SELECT FROM api_keys WHERE id = %(api_key_id)s::uuid AND user_id = %(user_id)s AND {_LIVE_KEYS}
    )
    ON CONFLICT (user_id, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), period) DO UPDATE SET
        limit_usd = excluded.limit_usd, updated_at = now(),
        alert_percents = coalesce(%(percents)s::smallint[], spending_limits.alert_percents)
    RETURNING {_COLUMNS}
"""  # noqa: S608 - made of constants

_REMOVE: LiteralString = f"""
    DELETE FROM spending_limits WHERE user_id = %(user_id)s AND id = %(id)s
    RETURNING {_COLUMNS}
"""  # noqa: S608 - made of constants
