"""Who agreed to which legal document, and when: where each user stands, and every change of that, rows only added.

A change is an event. To accept what is accepted already, or to withdraw what is not, changes nothing and is no event:
the time that stands is the one when somebody first agreed, however often a client repeats its request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, LiteralString
from uuid import UUID

import msgspec

from storage.audit_seal import clean_text
from storage.credits import UserUnknown
from storage.legal_documents import DocType, LegalDocument, LegalRegion
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

ConsentSource = Literal["desktop", "mobile", "website", "api"]


@dataclass(frozen=True, slots=True)
class Consent:
    """Where a user stands with the documents of one type and region. Both are None after a withdrawal."""

    doc_type: DocType
    region: LegalRegion
    accepted_version: str | None
    accepted_at: datetime | None


@dataclass(frozen=True, slots=True)
class ConsentAct:
    """Somebody accepts a document, or withdraws. `metadata` is the client's own, fit for JSON and for jsonb. Texts that
    are too long are cut.
    """

    user_id: UUID
    doc_type: DocType
    region: LegalRegion
    source: ConsentSource
    address: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class AcceptedBetween:
    """Only consents that were given then are counted, both ends included. None is without an end."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class DocumentCount:
    """How many users stand at this version now."""

    doc_type: DocType
    region: LegalRegion
    version: str
    accepted: int


async def read_consents(database: Database, user_id: UUID, region: LegalRegion) -> list[Consent]:
    """Of types that the user has ever accepted there."""
    rows = await database.as_user(user_id).fetch(_READ, {"region": region})
    return [Consent(*row) for row in rows]


async def accept_document(connection: TrioConnection, act: ConsentAct, version: str) -> bool:
    """In the operator's transaction that also notes it in the audit log: whether it changed something. Raises
    UserUnknown. Safe to repeat.
    """
    await _lock_user(connection, act.user_id)
    rows = await connection.send(connection.bind(_ACCEPT, {**_read_act(act), "version": version}))
    return bool(rows)


async def withdraw_consent(connection: TrioConnection, act: ConsentAct) -> str | None:
    """In the operator's transaction that also notes it in the audit log: the version that is accepted no more, or None
    if none was. Raises UserUnknown. Safe to repeat.
    """
    await _lock_user(connection, act.user_id)
    rows = await connection.send(connection.bind(_WITHDRAW, _read_act(act)))
    return rows[0][0] if rows else None


async def count_users(database: Database) -> int:
    rows = await database.as_operator("report on consent").fetch("SELECT count(*) FROM users")
    return int(rows[0][0])


async def count_by_document(
    database: Database, region: LegalRegion | None, doc_type: DocType | None, between: AcceptedBetween
) -> list[DocumentCount]:
    """Every version of the documents, or of those of the region, of the type, or of both."""
    rows = await database.as_operator("report on consent").fetch(
        _COUNT_BY_DOCUMENT, {"region": region, "doc_type": doc_type, **_read_between(between)}
    )
    return [DocumentCount(*row) for row in rows]


async def count_agreed(
    database: Database, documents: Sequence[LegalDocument], needed: int, between: AcceptedBetween
) -> int:
    """Users who stand at the very versions of so many of these documents."""
    named = {
        "doc_types": [document.doc_type for document in documents],
        "regions": [document.region for document in documents],
        "versions": [document.version for document in documents],
    }
    rows = await database.as_operator("report on consent").fetch(
        _COUNT_AGREED, {**named, "needed": needed, **_read_between(between)}
    )
    return int(rows[0][0])


async def _lock_user(connection: TrioConnection, user_id: UUID) -> None:
    """Two who change the same consent at once do so one after the other; a deletion waits, or has been."""
    if not await connection.send(connection.bind(_LOCK_USER, [user_id])):
        raise UserUnknown(f"there is no user {user_id}, or no more: nothing was noted")


def _read_act(act: ConsentAct) -> dict[str, object]:
    return {
        "user_id": act.user_id,
        "doc_type": act.doc_type,
        "region": act.region,
        "source": act.source,
        "address": clean_text(act.address) or None,
        "user_agent": clean_text(act.user_agent) or None,
        "metadata": msgspec.json.encode(act.metadata).decode(),
    }


def _read_between(between: AcceptedBetween) -> dict[str, datetime | None]:
    return {"start": between.start, "end": between.end}


_LOCK_USER: LiteralString = "SELECT 1 FROM users WHERE id = %s FOR NO KEY UPDATE"

_READ: LiteralString = """
    SELECT doc_type, region, accepted_version, accepted_at FROM user_consents
    WHERE user_id = app_user_id() AND region = %(region)s ORDER BY doc_type
"""

# The time is that of the change: a transaction may have begun earlier than the one that it waited for.
_ACCEPT: LiteralString = """
    WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS at),
    changed AS (
        INSERT INTO user_consents AS consents
            (user_id, doc_type, region, accepted_version, accepted_at, source, metadata, updated_at)
        SELECT %(user_id)s, %(doc_type)s, %(region)s, %(version)s, at, %(source)s, %(metadata)s::jsonb, at FROM moment
        ON CONFLICT (user_id, doc_type, region) DO UPDATE SET
            accepted_version = excluded.accepted_version, accepted_at = excluded.accepted_at,
            source = excluded.source, metadata = excluded.metadata, updated_at = excluded.updated_at
        WHERE consents.accepted_version IS DISTINCT FROM excluded.accepted_version
        RETURNING accepted_at
    )
    INSERT INTO user_consent_events
        (user_id, doc_type, region, version, action, source, address, user_agent, metadata, created_at)
    SELECT %(user_id)s, %(doc_type)s, %(region)s, %(version)s, 'accepted', %(source)s, %(address)s, %(user_agent)s,
           %(metadata)s::jsonb, accepted_at FROM changed
    RETURNING 1
"""

# The event names the version that had been accepted. All parts of the statement see the rows as they were before it.
_WITHDRAW: LiteralString = """
    WITH stood AS (
        SELECT accepted_version, clock_timestamp() AS at FROM user_consents
        WHERE user_id = %(user_id)s AND doc_type = %(doc_type)s AND region = %(region)s
          AND accepted_version IS NOT NULL
    ),
    changed AS (
        UPDATE user_consents AS consents SET accepted_version = NULL, accepted_at = NULL, source = %(source)s,
            metadata = %(metadata)s::jsonb, updated_at = at
        FROM stood
        WHERE user_id = %(user_id)s AND doc_type = %(doc_type)s AND region = %(region)s
    )
    INSERT INTO user_consent_events
        (user_id, doc_type, region, version, action, source, address, user_agent, metadata, created_at)
    SELECT %(user_id)s, %(doc_type)s, %(region)s, accepted_version, 'withdrawn', %(source)s, %(address)s,
           %(user_agent)s, %(metadata)s::jsonb, at FROM stood
    RETURNING version
"""

_COUNT_BY_DOCUMENT: LiteralString = """
    SELECT documents.doc_type, documents.region, documents.version, coalesce(counted.users, 0)
    FROM legal_documents AS documents LEFT JOIN (
        SELECT doc_type, region, accepted_version, count(*) AS users FROM user_consents
        WHERE (%(start)s::timestamptz IS NULL OR accepted_at >= %(start)s)
          AND (%(end)s::timestamptz IS NULL OR accepted_at <= %(end)s)
        GROUP BY doc_type, region, accepted_version
    ) AS counted ON (counted.doc_type, counted.region, counted.accepted_version)
        = (documents.doc_type, documents.region, documents.version)
    WHERE (%(region)s::text IS NULL OR documents.region = %(region)s)
      AND (%(doc_type)s::text IS NULL OR documents.doc_type = %(doc_type)s)
    ORDER BY documents.doc_type, documents.region, documents.effective_at, documents.created_at, documents.id
"""

_COUNT_AGREED: LiteralString = """
    SELECT count(*) FROM (
        SELECT user_id FROM user_consents AS consents
        JOIN unnest(%(doc_types)s::text[], %(regions)s::text[], %(versions)s::text[])
            AS named (doc_type, region, version)
            ON (consents.doc_type, consents.region, accepted_version) = (named.doc_type, named.region, named.version)
        WHERE (%(start)s::timestamptz IS NULL OR accepted_at >= %(start)s)
          AND (%(end)s::timestamptz IS NULL OR accepted_at <= %(end)s)
        GROUP BY user_id HAVING count(*) >= %(needed)s
    ) AS agreed
"""
