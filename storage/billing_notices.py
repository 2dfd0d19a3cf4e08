"""Notices: what a user is told about money. Each has a key that says what it is about, so that nobody is told twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg import errors

from storage.postgres import Database


@dataclass(frozen=True, slots=True)
class BillingNotice:
    """`details` have camelCase names, amounts as text, and are for the user to see. `read_at` None: not read yet."""

    id: UUID
    kind: str
    details: Mapping[str, Any]
    created_at: datetime
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class BillingNotices:
    """Every method may be repeated."""

    database: Database

    async def add(self, user_id: UUID, kind: str, notice_key: str, details: Mapping[str, object]) -> bool:
        """Tell a user something, once for each key. False if that was done before, or the user is no more."""
        encoded = msgspec.json.encode(details).decode()
        parameters = {"user_id": user_id, "kind": kind, "key": notice_key, "details": encoded}
        try:
            return bool(await self.database.as_operator("tell a user about money").fetch(_ADD, parameters))
        except errors.ForeignKeyViolation:
            return False

    async def list(
        self, user_id: UUID, *, limit: int, offset: int = 0, only_unread: bool = False
    ) -> "list[BillingNotice]":
        """The newest first."""
        parameters = {"limit": limit, "offset": offset, "only_unread": only_unread}
        rows = await self.database.as_user(user_id).fetch(_LIST, parameters)
        return [BillingNotice(*row) for row in rows]

    async def count_unread(self, user_id: UUID) -> int:
        row = await self.database.as_user(user_id).fetch_one(_COUNT_UNREAD)
        return row[0] if row else 0

    async def mark_read(self, user_id: UUID, ids: Sequence[UUID] | None) -> int:
        """Those of the user's notices that have such an id, or all (None). Says how many had not been read."""
        parameters = {"ids": None if ids is None else [*ids]}
        return len(await self.database.as_user(user_id).fetch(_MARK_READ, parameters))


_ADD: LiteralString = """
    INSERT INTO billing_notices (user_id, kind, notice_key, details)
    VALUES (%(user_id)s, %(kind)s, %(key)s, %(details)s::jsonb)
    ON CONFLICT (user_id, notice_key) DO NOTHING
    RETURNING id
"""

_LIST: LiteralString = """
    SELECT id, kind, details, created_at, read_at FROM billing_notices
    WHERE user_id = app_user_id() AND (read_at IS NULL OR NOT %(only_unread)s)
    ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s
"""

_COUNT_UNREAD: LiteralString = """
    SELECT count(*) FROM billing_notices WHERE user_id = app_user_id() AND read_at IS NULL
"""

_MARK_READ: LiteralString = """
    UPDATE billing_notices SET read_at = now()
    WHERE user_id = app_user_id() AND read_at IS NULL AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s::uuid[]))
    RETURNING id
"""
