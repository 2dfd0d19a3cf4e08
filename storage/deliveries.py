"""What is on its way to devices: claimed for a while by whoever sends it, and due again if that one is gone.

Claims and notes wait for no lock: what somebody else holds is left out, and told. So they are in no deadlock with those
who delete users, devices, tokens or notifications, whatever order these lock rows in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString
from uuid import UUID

from storage.postgres import Database
from storage.push_tokens import PushEnvironment, PushPlatform

EndState = Literal["sent", "failed", "expired"]
Key = tuple[UUID, UUID]
"""Of a notification and a token."""

MAX_REASON = 500
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notification on its way to one token. `attempts` counts this one; `push_id` is the same at every attempt.
    `claimed_at` and `leased_until` are by PostgreSQL's clock; the latter tells one claim from the next.
    """

    notification_id: UUID
    token_id: UUID
    push_id: UUID
    user_id: UUID
    platform: PushPlatform
    token: str = field(repr=False)
    environment: PushEnvironment | None
    attempts: int
    kind: str
    job_id: str | None
    title: str = field(repr=False)
    body: str = field(repr=False)
    custom_data: Mapping[str, Any] = field(repr=False)
    is_silent: bool
    created_at: datetime
    deliver_until: datetime
    claimed_at: datetime = LONG_AGO
    leased_until: datetime = LONG_AGO

    @property
    def key(self) -> Key:
        return self.notification_id, self.token_id


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one; `environment` is where its token is at home. `reason` is for the operator: no token in it."""

    delivery: Delivery
    state: EndState
    reason: str = ""
    environment: PushEnvironment | None = None


@dataclass(frozen=True, slots=True)
class PutOff:
    """Due again in so many seconds, or when its time is over if that is sooner, unless it was put off or claimed since.
    What was not begun is no attempt.
    """

    delivery: Delivery
    seconds: float
    reason: str
    is_begun: bool = True


@dataclass(frozen=True, slots=True)
class Gone:
    """Its token reaches nobody any more: it goes, with all that was on its way to it. If the device has brought it
    again after `since`, it stays, and the delivery is due again in so many seconds; None: it has failed.
    """

    delivery: Delivery
    since: datetime
    seconds: float | None
    reason: str


Note = Ended | PutOff | Gone


@dataclass(frozen=True, slots=True)
class Traffic:
    """`due` and `late_seconds`, how long the one waits that should have been tried first, by platform; `recent` by
    state, of the notifications of the last hour.
    """

    due: Mapping[str, int]
    late_seconds: Mapping[str, float]
    recent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The operator's alone. Every method may be repeated."""

    database: Database

    async def claim_due(self, platform: PushPlatform, limit: int, lease_seconds: float) -> list[Delivery]:
        """Of those due the longest, the oldest first; nobody else gets them before the lease is over. What was not
        delivered in its time is ended as expired instead. Nothing means that nothing is due.
        """
        parameters = {"platform": platform, "limit": limit, "lease": lease_seconds}
        while rows := await self.database.as_operator("claim deliveries").fetch(_CLAIM, parameters):
            if claimed := [Delivery(*row) for state, *row in rows if state == "due"]:
                return claimed
        return []

    async def note(self, notes: Sequence[Note]) -> frozenset[Key]:
        """What became of a batch, in one round trip. What has ended stays ended. Says which could not be noted, for
        somebody who may delete them has them locked: they are to be noted again.
        """
        rows = await self.database.as_operator("note deliveries").fetch(_NOTE, _build_parameters(notes))
        return frozenset((notification_id, token_id) for notification_id, token_id in rows)

    async def expire(self, limit: int = 1000) -> int:
        """End what was not delivered in its time and is claimed by nobody: its service may be off. Says of how many, at
        most the limit.
        """
        return len(await self.database.as_operator("expire deliveries").fetch(_EXPIRE, {"limit": limit}))

    async def count(self) -> Traffic:
        rows = await self.database.as_operator("count deliveries").fetch(_COUNT)
        due = [(name, count, late) for is_due, name, count, late in rows if is_due]
        return Traffic(
            due={platform: count for platform, count, _ in due},
            late_seconds={platform: late for platform, _, late in due},
            recent={state: count for is_due, state, count, _ in rows if not is_due},
        )


def _build_parameters(notes: Sequence[Note]) -> Mapping[str, Any]:
    return {
        "notifications": [note.delivery.notification_id for note in notes],
        "tokens": [note.delivery.token_id for note in notes],
        "leases": [note.delivery.leased_until for note in notes],
        "limits": [note.delivery.deliver_until for note in notes],
        "states": [_find_state(note) for note in notes],
        "reasons": [_clean(note.reason) for note in notes],
        "environments": [note.environment if isinstance(note, Ended) else None for note in notes],
        "seconds": [0.0 if isinstance(note, Ended) else float(note.seconds or 0) for note in notes],
        "untried": [int(isinstance(note, PutOff) and not note.is_begun) for note in notes],
        "gone_since": [note.since if isinstance(note, Gone) else None for note in notes],
    }


def _find_state(note: Note) -> EndState | None:
    match note:
        case Ended():
            return note.state
        case Gone(seconds=None):
            return "failed"
    return None


def _clean(reason: str) -> str:
    """What PostgreSQL can keep: one reason that it refuses would keep it from noting the whole batch."""
    return reason.encode(errors="replace").decode().replace("\0", "?")[:MAX_REASON]


_CLAIM: LiteralString = """
    WITH due AS MATERIALIZED (
        SELECT notification_id, token_id FROM notification_deliveries
        WHERE state = 'due' AND platform = %(platform)s AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE notification_deliveries AS delivery
        SET state = CASE WHEN is_over THEN 'expired' ELSE 'due' END,
            ended_at = CASE WHEN is_over THEN now() END,
            attempts = delivery.attempts + (NOT is_over)::int,
            next_attempt_at = now() + make_interval(secs => %(lease)s)
        FROM due
        JOIN notifications AS notification ON notification.id = due.notification_id
        JOIN push_tokens AS token ON token.id = due.token_id
        CROSS JOIN LATERAL (SELECT notification.deliver_until <= now() AS is_over) AS time
        WHERE delivery.notification_id = due.notification_id AND delivery.token_id = due.token_id
        RETURNING delivery.state, delivery.notification_id, delivery.token_id, push_id, delivery.user_id,
            delivery.platform, token.token, token.environment, attempts, kind, job_id, title, body,
            custom_data, is_silent, delivery.created_at, deliver_until, now() AS claimed_at, next_attempt_at
    )
    SELECT * FROM claimed ORDER BY created_at, notification_id, token_id
"""

# Rows are locked first, as far as nobody has them; only then is decided. A token goes if all that is on its way to it
# could be locked too, for the cascade would wait for the rest. Its deliveries are found token by token, by their index,
# whatever PostgreSQL expects of their number: without LATERAL and the counts it reads all that there are.
_NOTE: LiteralString = """
    WITH told AS MATERIALIZED (
        SELECT * FROM unnest(
            %(notifications)s::uuid[], %(tokens)s::uuid[], %(leases)s::timestamptz[], %(limits)s::timestamptz[],
            %(states)s::text[], %(reasons)s::text[], %(environments)s::text[], %(seconds)s::float8[],
            %(untried)s::int[], %(gone_since)s::timestamptz[]
        ) AS told (
            notification_id, token_id, leased_until, deliver_until, state, reason, environment, seconds, untried,
            gone_since
        )
    ), gone AS MATERIALIZED (
        SELECT push_tokens.id FROM push_tokens
        JOIN (SELECT token_id, max(gone_since) AS since FROM told GROUP BY token_id) AS said ON token_id = id
        WHERE registered_at < since
        FOR UPDATE OF push_tokens SKIP LOCKED
    ), locked AS MATERIALIZED (
        SELECT notification_id, token_id FROM notification_deliveries AS delivery
        JOIN told USING (notification_id, token_id)
        FOR UPDATE OF delivery SKIP LOCKED
    ), bound AS MATERIALIZED (
        SELECT gone.id FROM gone CROSS JOIN LATERAL (
            SELECT FROM notification_deliveries WHERE token_id = gone.id FOR UPDATE SKIP LOCKED
        ) AS delivery
    ), doomed AS MATERIALIZED (
        SELECT id FROM gone
        WHERE (SELECT count(*) FROM notification_deliveries WHERE token_id = gone.id)
            = (SELECT count(*) FROM bound WHERE bound.id = gone.id)
    ), removed AS (
        DELETE FROM push_tokens WHERE id IN (SELECT id FROM doomed)
    ), reached AS MATERIALIZED (
        SELECT id, home FROM push_tokens
        JOIN (SELECT token_id, max(environment) AS home FROM told WHERE state = 'sent' GROUP BY token_id) AS said
            ON token_id = id
        WHERE id NOT IN (SELECT id FROM gone)
            AND (coalesce(last_success_at < now() - interval '1 minute', true) OR environment IS DISTINCT FROM home)
        FOR NO KEY UPDATE OF push_tokens SKIP LOCKED
    ), praised AS (
        UPDATE push_tokens
        SET last_success_at = now(), environment = coalesce(home, environment)
        FROM reached WHERE push_tokens.id = reached.id
    ), noted AS (
        UPDATE notification_deliveries AS delivery
        SET state = coalesce(told.state, 'due'),
            reason = told.reason,
            ended_at = CASE WHEN told.state IS NOT NULL THEN now() END,
            attempts = delivery.attempts - told.untried,
            next_attempt_at = least(now() + make_interval(secs => told.seconds), told.deliver_until)
        FROM told JOIN locked USING (notification_id, token_id)
        WHERE delivery.notification_id = told.notification_id AND delivery.token_id = told.token_id
            AND delivery.state = 'due' AND told.token_id NOT IN (SELECT id FROM doomed)
            AND (told.state IS NOT NULL OR delivery.next_attempt_at = told.leased_until)
    )
    SELECT notification_id, token_id FROM notification_deliveries AS delivery
    JOIN told USING (notification_id, token_id)
    WHERE delivery.state = 'due' AND (notification_id, token_id) NOT IN (SELECT * FROM locked)
"""

_EXPIRE: LiteralString = """
    WITH late AS MATERIALIZED (
        SELECT notification_id, token_id FROM notification_deliveries AS delivery
        JOIN notifications ON notifications.id = notification_id
        WHERE state = 'due' AND next_attempt_at <= now() AND deliver_until <= now()
        LIMIT %(limit)s FOR NO KEY UPDATE OF delivery SKIP LOCKED
    )
    UPDATE notification_deliveries AS delivery SET state = 'expired', ended_at = now()
    FROM late WHERE delivery.notification_id = late.notification_id AND delivery.token_id = late.token_id
    RETURNING 1
"""

_COUNT: LiteralString = """
    SELECT true, platform, count(*), greatest(extract(epoch FROM now() - min(next_attempt_at)), 0)::float8
    FROM notification_deliveries WHERE state = 'due' GROUP BY platform
    UNION ALL
    SELECT false, state, count(*), 0 FROM notifications
    JOIN notification_deliveries ON notification_id = notifications.id
    WHERE notifications.created_at > now() - interval '1 hour' GROUP BY state
"""
