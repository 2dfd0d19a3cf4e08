"""Notifications of users: stored before they are answered, delivered from here, and kept for a while to be listed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg import errors

from storage.credits import UserUnknown
from storage.postgres import Database
from storage.push_tokens import PushPlatform

HISTORY_DAYS = 90
MAX_LISTED = 500
"""Of one user; older ones go."""
LOOK_BACK_HOURS = 6
"""Longer than from one purge to the next: whose history has grown since is looked at."""


@dataclass(frozen=True, slots=True)
class NewNotification:
    """`custom_data` is a JSON object. What is silent wakes apps, shows nothing and is in no list. The same idempotency
    key of the same user is the same notification.
    """

    kind: str
    job_id: str | None
    title: str = field(repr=False)
    body: str = field(repr=False)
    custom_data: Mapping[str, Any] = field(repr=False)
    is_silent: bool
    deliver_within_seconds: float
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """`deliveries` is how many tokens it is on its way to: those of the platforms that are delivered to."""

    id: UUID
    deliveries: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Notification:
    id: UUID
    kind: str
    job_id: str | None
    title: str = field(repr=False)
    body: str = field(repr=False)
    custom_data: Mapping[str, Any] = field(repr=False)
    created_at: datetime
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    """Of a notification in the list."""

    created_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Notifications:
    """What is read, marked and deleted is the user's own, and nothing silent. Every method may be repeated."""

    database: Database

    async def store(
        self, user_id: UUID, notification: NewNotification, platforms: Collection[PushPlatform]
    ) -> Stored:
        """With a delivery for each of the user's tokens on these platforms, in one transaction. Safe to repeat with an
        idempotency key. Texts hold nothing that PostgreSQL refuses. Raises UserUnknown if the account has just been
        deleted.
        """
        parameters = {
            **asdict(notification),
            "user_id": user_id,
            "platforms": [*platforms],
            "custom_data": msgspec.json.encode(notification.custom_data).decode(),
        }
        rights = self.database.as_operator("store a notification")
        try:
            row = None
            while row is None:  # what had this key may be deleted before it is found
                row = await rights.fetch_one(_STORE, parameters) or await rights.fetch_one(_FIND_STORED, parameters)
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: no notification was stored") from error
        return Stored(*row)

    async def list(
        self, user_id: UUID, *, limit: int, before: Place | None = None, only_unread: bool = False
    ) -> "list[Notification]":
        """The newest first; those that come after that place, which may be of one that is gone."""
        parameters = {
            "limit": limit,
            "before_at": before and before.created_at,
            "before_id": before and before.id,
            "only_unread": only_unread,
        }
        rows = await self.database.as_user(user_id).fetch(_LIST, parameters)
        return [Notification(*row) for row in rows]

    async def find(self, user_id: UUID, notification_id: UUID) -> Notification | None:
        """None if it is gone, somebody else's, or silent."""
        row = await self.database.as_user(user_id).fetch_one(_FIND, {"id": notification_id})
        return Notification(*row) if row else None

    async def count_unread(self, user_id: UUID) -> int:
        row = await self.database.as_user(user_id).fetch_one(_COUNT_UNREAD)
        return row[0] if row else 0

    async def mark_read(self, user_id: UUID, ids: "Sequence[UUID] | None") -> int:
        """Those that have such an id, or all (None). Says how many had not been read."""
        parameters = {"ids": None if ids is None else [*ids]}
        return len(await self.database.as_user(user_id).fetch(_MARK_READ, parameters))

    async def delete(self, user_id: UUID, ids: "Sequence[UUID] | None") -> int:
        """Those that have such an id, or all (None), with what is still on its way to devices. Says how many."""
        parameters = {"ids": None if ids is None else [*ids]}
        return len(await self.database.as_user(user_id).fetch(_DELETE, parameters))

    async def purge(self, limit: int = 1000) -> int:
        """Drop what is too old, too much for one user, or silent and over, at most so many. Says how many; none means
        that that was all, or that others are at it.
        """
        parameters = {"days": HISTORY_DAYS, "listed": MAX_LISTED, "hours": LOOK_BACK_HOURS, "limit": limit}
        return len(await self.database.as_operator("purge notifications").fetch(_PURGE, parameters))


# The user is locked first, as who deletes an account does it; else the two could wait for each other. Tokens are locked
# in the order in which those who drop them do it, and those that are being dropped are left out.
_STORE: LiteralString = """
    SELECT FROM users WHERE id = %(user_id)s FOR KEY SHARE;
    WITH stored AS (
        INSERT INTO notifications (
            user_id, kind, job_id, title, body, custom_data, is_silent, idempotency_key, deliver_until
        )
        VALUES (
            %(user_id)s, %(kind)s, %(job_id)s, %(title)s, %(body)s, %(custom_data)s::jsonb, %(is_silent)s,
            %(idempotency_key)s, now() + make_interval(secs => %(deliver_within_seconds)s)
        )
        ON CONFLICT (user_id, idempotency_key) DO NOTHING
        RETURNING id
    ), tokens AS MATERIALIZED (
        SELECT id, platform FROM push_tokens
        WHERE user_id = %(user_id)s AND platform = ANY(%(platforms)s::text[]) AND EXISTS (SELECT FROM stored)
        ORDER BY id FOR KEY SHARE
    ), queued AS (
        INSERT INTO notification_deliveries (notification_id, token_id, user_id, platform)
        SELECT stored.id, tokens.id, %(user_id)s, tokens.platform FROM stored CROSS JOIN tokens
        RETURNING 1
    )
    SELECT id, (SELECT count(*) FROM queued), true FROM stored
"""

_FIND_STORED: LiteralString = """
    SELECT id, (SELECT count(*) FROM notification_deliveries WHERE notification_id = notifications.id), false
    FROM notifications WHERE user_id = %(user_id)s AND idempotency_key = %(idempotency_key)s
"""

_LIST: LiteralString = """
    SELECT id, kind, job_id, title, body, custom_data, created_at, read_at FROM notifications
    WHERE user_id = app_user_id() AND NOT is_silent AND (read_at IS NULL OR NOT %(only_unread)s)
      AND (%(before_at)s::timestamptz IS NULL OR (created_at, id) < (%(before_at)s::timestamptz, %(before_id)s::uuid))
    ORDER BY created_at DESC, id DESC LIMIT %(limit)s
"""

_FIND: LiteralString = """
    SELECT id, kind, job_id, title, body, custom_data, created_at, read_at FROM notifications
    WHERE user_id = app_user_id() AND id = %(id)s AND NOT is_silent
"""

_COUNT_UNREAD: LiteralString = """
    SELECT count(*) FROM notifications WHERE user_id = app_user_id() AND NOT is_silent AND read_at IS NULL
"""

# Rows are locked in one order, so that two of the user's devices never wait for each other.
_MARK_READ: LiteralString = """
    WITH found AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE user_id = app_user_id() AND NOT is_silent AND read_at IS NULL
          AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s::uuid[]))
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE notifications SET read_at = now() FROM found WHERE notifications.id = found.id
    RETURNING 1
"""

_DELETE: LiteralString = """
    WITH found AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE user_id = app_user_id() AND NOT is_silent AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s::uuid[]))
        ORDER BY id FOR UPDATE
    )
    DELETE FROM notifications USING found WHERE notifications.id = found.id
    RETURNING 1
"""

# Who has stored nothing since an earlier round has no more than then. What is silent stays until it has been noted that
# it came too late.
_PURGE: LiteralString = """
    WITH recent AS (
        SELECT user_id FROM notifications WHERE created_at > now() - make_interval(hours => %(hours)s) GROUP BY user_id
    ), old AS (
        SELECT id FROM notifications WHERE created_at < now() - make_interval(days => %(days)s)
        UNION ALL
        SELECT id FROM notifications WHERE is_silent AND deliver_until < now() - interval '10 minutes'
        UNION ALL
        SELECT beyond.id FROM recent CROSS JOIN LATERAL (
            SELECT id FROM notifications WHERE user_id = recent.user_id AND NOT is_silent
            ORDER BY created_at DESC, id DESC OFFSET %(listed)s
        ) AS beyond
    ), locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE id IN (SELECT id FROM old LIMIT %(limit)s) FOR UPDATE SKIP LOCKED
    )
    DELETE FROM notifications USING locked WHERE notifications.id = locked.id
    RETURNING 1
"""
