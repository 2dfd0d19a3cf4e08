"""The audit log: rows that are only ever added, each sealed over the one before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, LiteralString
from uuid import UUID

import psycopg

from storage.audit_seal import clean_details, clean_text, encode_details, seal_row
from storage.errors import StorageError
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

Status = Literal["success", "refused", "failed"]

MAX_NAME = 100
MAX_USER_AGENT = 200
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AuditNotWritten(StorageError):
    """PostgreSQL refused the row: the schema or the rights of this server are not what they must be."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What happened. `actor` is `user:<id>`, `api_key:<id>`, `system`, `operator` or `anonymous`; `subject_id` the user
    whom it is about. No address of a person's mail, no token, no key. What is too long is cut when it is written.
    """

    action: str
    status: Status
    actor: str
    subject_id: UUID | None = None
    entity_type: str = ""
    entity_id: str = ""
    address: str = ""
    user_agent: str = ""
    request_id: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry as it stands in the log; `at` by PostgreSQL's clock."""

    region: str
    sequence: int
    at: datetime
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class AuditLog:
    """One region's chain."""

    database: Database
    region: str
    secret: str = field(repr=False)

    async def append(self, connection: TrioConnection, entry: AuditEntry) -> None:
        """In the operator's transaction whose effect it tells; the last statement there, for until the end of it all
        other writers wait. Two round trips.

        A row's time is PostgreSQL's, and never earlier than that of the row before it: after a clock that was ahead is
        put back, rows keep the last time until it has caught up.
        """
        bind = connection.bind
        ((last, previous, at),) = await connection.send(
            bind(_MAKE_HEAD, (self.region,)) + bind(_LOCK_HEAD, (self.region,))
        )
        row = {"region": self.region, "sequence": last + 1, "at": at, **_read_entry(entry)}
        seal = seal_row(self.secret, previous, list({**row, "at": write_epoch(at)}.values()))
        await connection.send(bind(_APPEND, {**row, "details": encode_details(row["details"]), "seal": seal}))

    async def record(self, entry: AuditEntry) -> None:
        """In a transaction of its own. Raises StorageError."""
        try:
            async with self.database.as_operator("audit").transaction() as connection:
                await self.append(connection, entry)
        except psycopg.Error as error:
            raise AuditNotWritten(f"PostgreSQL refused a row of the audit log: {error}") from error

    async def find_latest(self, user_id: UUID | None, action: str | None, limit: int) -> list[AuditRow]:
        """The last rows, the oldest first: those about or by the user, of the action, or any."""
        actor = f"user:{user_id}"
        chosen = {"region": self.region, "user_id": user_id, "actor": actor, "action": action, "limit": limit}
        rows = await self.database.as_operator("read the audit log").fetch(_FIND_LATEST, chosen)
        return [AuditRow(self.region, sequence, at, AuditEntry(*entry)) for sequence, at, *entry in reversed(rows)]


def _read_entry(entry: AuditEntry) -> dict[str, object]:
    """As PostgreSQL gives it back, in the order in which it is sealed."""
    return {
        "action": clean_text(entry.action, MAX_NAME),
        "status": entry.status,
        "actor": clean_text(entry.actor, MAX_NAME),
        "subject_id": str(entry.subject_id) if entry.subject_id else None,
        "entity_type": clean_text(entry.entity_type, MAX_NAME),
        "entity_id": clean_text(entry.entity_id),
        "address": clean_text(entry.address, MAX_NAME),
        "user_agent": clean_text(entry.user_agent, MAX_USER_AGENT),
        "request_id": clean_text(entry.request_id),
        "details": clean_details(entry.details),
    }


def write_epoch(at: datetime) -> str:
    """Unix seconds with six places, as PostgreSQL's `extract(epoch FROM at)` writes them."""
    seconds, microseconds = divmod((at - EPOCH) // timedelta(microseconds=1), 1_000_000)
    return f"{seconds}.{microseconds:06}"


# If somebody else is making the same head, this waits until it stands.
_MAKE_HEAD: LiteralString = "INSERT INTO audit_heads (region) VALUES (%s) ON CONFLICT (region) DO NOTHING;"
_LOCK_HEAD: LiteralString = """
    SELECT sequence, seal, greatest(at, clock_timestamp()) FROM audit_heads WHERE region = %s FOR UPDATE
"""
_APPEND: LiteralString = """
    WITH head AS (
        UPDATE audit_heads SET sequence = %(sequence)s, seal = %(seal)s, at = %(at)s WHERE region = %(region)s
    )
    INSERT INTO audit_log (region, sequence, at, action, status, actor, subject_id, entity_type, entity_id, address,
        user_agent, request_id, details, seal)
    VALUES (%(region)s, %(sequence)s, %(at)s, %(action)s, %(status)s, %(actor)s, %(subject_id)s, %(entity_type)s,
        %(entity_id)s, %(address)s, %(user_agent)s, %(request_id)s, %(details)s, %(seal)s)
"""
_FIND_LATEST: LiteralString = """
    SELECT sequence, at, action, status, actor, subject_id, entity_type, entity_id, address, user_agent, request_id,
           details
    FROM audit_log
    WHERE region = %(region)s
      AND (%(user_id)s::uuid IS NULL OR subject_id = %(user_id)s OR actor = %(actor)s)
      AND (%(action)s::text IS NULL OR action = %(action)s)
    ORDER BY sequence DESC LIMIT %(limit)s
"""
