"""Stripe's events as they came: stored before they are answered, worked on until they have ended.

A worker claims events for a while. If it is gone before it has ended them, they are due again when that is over.
"""

from dataclasses import dataclass, field
from typing import Literal, LiteralString

from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

EndState = Literal["done", "ignored", "refused", "failed"]
"""`refused`: it contradicts an order of ours, and somebody has to look. `failed`: tried too often."""

MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """`payload` is the JSON as Stripe sent it. `attempts` counts this one."""

    id: str
    type: str
    payload: bytes = field(repr=False)
    attempts: int


@dataclass(frozen=True, slots=True)
class StripeEvents:
    """The operator's alone: an event names whom it likes. Every method may be repeated."""

    database: Database

    async def store(self, event_id: str, type_: str, payload: bytes) -> bool:
        """Due at once. False if it was stored before, whatever has become of it."""
        parameters = {"id": event_id, "type": type_, "payload": payload}
        return bool(await self.database.as_operator("store an event").fetch(_STORE, parameters))

    async def claim_due(self, limit: int, lease_seconds: float) -> list[StripeEvent]:
        """Those that are due, the longest first; nobody else gets them before the lease is over."""
        parameters = {"limit": limit, "lease": lease_seconds}
        rows = await self.database.as_operator("claim events").fetch(_CLAIM, parameters)
        return [StripeEvent(*row) for row in rows]

    async def finish(self, event_id: str, state: EndState, error: str = "") -> bool:
        """False if it had ended before. `error` is for the operator's eyes: no secrets, no persons."""
        parameters = {"id": event_id, "state": state, "error": error[:MAX_ERROR]}
        return bool(await self.database.as_operator("finish an event").fetch(_FINISH, parameters))

    async def retry_later(self, event_id: str, seconds: float, error: str) -> bool:
        """Due again in so many seconds. False if it has ended."""
        parameters = {"id": event_id, "seconds": seconds, "error": error[:MAX_ERROR]}
        return bool(await self.database.as_operator("put off an event").fetch(_RETRY_LATER, parameters))

    async def purge_payloads(self, older_than_days: int, limit: int = 1000) -> int:
        """Drop what may hold addresses of people, of events that ended that long ago; the rows stay, so that they are
        known if they come again. Says of how many, at most the limit.
        """
        parameters = {"days": older_than_days, "limit": limit}
        return len(await self.database.as_operator("purge events").fetch(_PURGE, parameters))

    async def count(self) -> dict[str, int]:
        """How many there are by state."""
        return dict(await self.database.as_operator("count events").fetch(_COUNT))


async def finish_event(connection: TrioConnection, event_id: str, state: EndState) -> bool:
    """In the operator's transaction that is the event's effect. False if it had ended before: then it has no other."""
    parameters = {"id": event_id, "state": state, "error": ""}
    return bool(await connection.send(connection.bind(_FINISH, parameters)))


_STORE: LiteralString = """
    INSERT INTO stripe_events (id, type, payload) VALUES (%(id)s, %(type)s, %(payload)s)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""

_CLAIM: LiteralString = """
    WITH due AS MATERIALIZED (
        SELECT id FROM stripe_events WHERE state = 'pending' AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE stripe_events
        SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => %(lease)s)
        FROM due WHERE stripe_events.id = due.id
        RETURNING stripe_events.id, type, payload, attempts, received_at
    )
    SELECT id, type, payload, attempts FROM claimed ORDER BY received_at, id
"""

_FINISH: LiteralString = """
    UPDATE stripe_events SET state = %(state)s, error = %(error)s, ended_at = now()
    WHERE id = %(id)s AND state = 'pending'
    RETURNING id
"""

_RETRY_LATER: LiteralString = """
    UPDATE stripe_events SET next_attempt_at = now() + make_interval(secs => %(seconds)s), error = %(error)s
    WHERE id = %(id)s AND state = 'pending'
    RETURNING id
"""

_PURGE: LiteralString = """
    UPDATE stripe_events SET payload = NULL
    WHERE id IN (SELECT id FROM stripe_events
                 WHERE payload IS NOT NULL AND ended_at < now() - make_interval(days => %(days)s) LIMIT %(limit)s)
    RETURNING id
"""

_COUNT: LiteralString = "SELECT state, count(*) FROM stripe_events GROUP BY state"
