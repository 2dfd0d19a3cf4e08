"""API keys: only a keyed hash of each is stored. Redis remembers whose a key is for half a minute.

What is remembered of the user is as old as that: a role that was changed counts for keys half a minute later. A key
that was revoked, or whose user was deleted, ends at once.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import msgspec
from coredis.tokens import PureToken

from storage.accounts import User
from storage.device_events import events_channel
from storage.errors import StorageError
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection
from storage.rate_limits import TOMBSTONE
from storage.redis import Redis, api_key_key, command
from storage.sessions import REMEMBERED_SECONDS, TOMBSTONE_SECONDS

MAX_LIVE_KEYS = 50
"""Of one user."""


class TooManyKeys(StorageError):
    """The user has as many live keys as one may have."""


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """What a key may do, and as whom. `expires_at` in Unix seconds. One that is not live was revoked or has expired."""

    key_id: UUID
    user: User
    scopes: frozenset[str]
    expires_at: float | None
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it. `hint` is how it begins."""

    id: UUID
    hint: str
    label: str
    scopes: Sequence[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    id: UUID
    user_id: UUID
    key_hash: str = field(repr=False)
    hint: str
    label: str
    scopes: Sequence[str]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """`was_live` is False if it had been revoked before."""

    key_hash: str = field(repr=False)
    was_live: bool


@dataclass(frozen=True, slots=True)
class ApiKeys:
    redis: Redis
    database: Database

    async def find_remembered(self, key_hash: str) -> KeyOwner | None:
        """The owner, if Redis remembers the key and it has not expired. None says nothing. Raises RedisUnavailable."""
        value = await command(self.redis.get(api_key_key(key_hash)))
        return None if value is None or value == TOMBSTONE else _living(msgspec.json.decode(value, type=KeyOwner))

    async def find(self, key_hash: str) -> KeyOwner | None:
        """As PostgreSQL knows it, also if it is live no more; None if it never was a key, or its user is gone.

        Notes that a live key was used: `last_used_at` is right to REMEMBERED_SECONDS, for what Redis remembers is not
        asked here.
        """
        row = await self.database.as_operator("find an API key").fetch_one(_FIND, {"key_hash": key_hash})
        if row is None:
            return None
        key_id, scopes, expires_at, is_live, *user = row
        return KeyOwner(key_id, User(*user), frozenset(scopes), expires_at.timestamp() if expires_at else None, is_live)

    async def remember(self, key_hash: str, owner: KeyOwner) -> None:
        """For the next requests. Writes over nothing, so over no tombstone."""
        value = msgspec.json.encode(owner)
        await command(
            self.redis.set(api_key_key(key_hash), value, condition=PureToken.NX, ex=REMEMBERED_SECONDS)
        )

    async def bury(self, key_hash: str) -> None:
        """A key that was revoked, after PostgreSQL has been told. Safe to repeat."""
        await command(self.redis.set(api_key_key(key_hash), TOMBSTONE, ex=TOMBSTONE_SECONDS))

    async def end(self, user_id: UUID, key_id: UUID, key_hash: str) -> None:
        """Buried, and told to whoever holds a socket by this key. Safe to repeat."""
        await self.bury(key_hash)
        await command(self.redis.publish(events_channel(user_id), f"ended {name_api_key(key_id)}"))

    async def has_ended(self, user_id: UUID, key_id: UUID) -> bool:
        """Revoked, or gone; not one that has merely expired."""
        row = await self.database.as_user(user_id).fetch_one(_FIND_LIVE, {"key_id": key_id})
        return row is None

    async def list(self, user_id: UUID) -> "list[ApiKey]":
        """The user's keys, the newest first, those that are no more among them."""
        rows = await self.database.as_user(user_id).fetch(_LIST)
        return [ApiKey(*row) for row in rows]


def name_api_key(key_id: UUID) -> str:
    """As it is told that the key has ended: its hash is nobody's business."""
    return f"api-key:{key_id}"


async def make_api_key(connection: TrioConnection, key: NewKey) -> ApiKey:
    """In the operator's transaction that also notes it in the audit log. Raises TooManyKeys, also if many make keys at
    once: the lock puts them in order.
    """
    parameters = {
        "id": key.id,
        "user_id": key.user_id,
        "key_hash": key.key_hash,
        "hint": key.hint,
        "label": key.label,
        "scopes": list(key.scopes),
        "expires_at": key.expires_at,
        "most": MAX_LIVE_KEYS,
    }
    rows = await connection.send(connection.bind(_LOCK, [key.user_id]) + connection.bind(_MAKE, parameters))
    if not rows:
        raise TooManyKeys(f"you have {MAX_LIVE_KEYS} API keys that live: revoke one you do not use, then try again")
    return ApiKey(*rows[0])


async def revoke_api_key(connection: TrioConnection, user_id: UUID, key_id: UUID) -> RevokedKey | None:
    """In the operator's transaction that also notes it in the audit log; afterwards the hash has to be buried. None if
    the user has no such key. Safe to repeat.
    """
    rows = await connection.send(connection.bind(_REVOKE, {"key_id": key_id, "user_id": user_id}))
    return RevokedKey(*rows[0]) if rows else None


def _living(owner: KeyOwner) -> KeyOwner | None:
    return owner if owner.expires_at is None or owner.expires_at > time.time() else None


# While Redis is away every request asks: a row is written no more often than every fifteen seconds.
_FIND: LiteralString = """
    WITH found AS (
        SELECT api_keys.id, scopes, expires_at, last_used_at, users.id AS user_id, email, role, name,
               revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS is_live
        FROM api_keys JOIN users ON users.id = api_keys.user_id WHERE key_hash = %(key_hash)s
    ), used AS (
        UPDATE api_keys SET last_used_at = now() FROM found
        WHERE api_keys.id = found.id AND is_live
          AND (found.last_used_at IS NULL OR found.last_used_at < now() - interval '15 seconds')
    )
    SELECT id, scopes, expires_at, is_live, user_id, email, role, name FROM found
"""

_LIST: LiteralString = """
    SELECT id, hint, label, scopes, created_at, last_used_at, expires_at, revoked_at FROM api_keys
    ORDER BY created_at DESC, id
"""

_FIND_LIVE: LiteralString = "SELECT 1 FROM api_keys WHERE id = %(key_id)s AND revoked_at IS NULL"

# Until the transaction ends nobody else makes a key of this user; holds and ledger rows are not kept waiting:
# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-ROWS
_LOCK: LiteralString = "SELECT FROM users WHERE id = %s FOR NO KEY UPDATE;"

# A statement of its own after the lock, so that it sees what those before it have made.
_MAKE: LiteralString = """
    INSERT INTO api_keys (id, user_id, key_hash, hint, label, scopes, expires_at)
    SELECT %(id)s, users.id, %(key_hash)s, %(hint)s, %(label)s, %(scopes)s::text[], %(expires_at)s::timestamptz
    FROM users WHERE users.id = %(user_id)s AND %(most)s > (
        SELECT count(*) FROM api_keys
        WHERE user_id = %(user_id)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    )
    RETURNING id, hint, label, scopes, created_at, last_used_at, expires_at, revoked_at
"""

_REVOKE: LiteralString = """
    WITH key AS (
        SELECT id, revoked_at IS NULL AS was_live FROM api_keys
        WHERE id = %(key_id)s AND user_id = %(user_id)s FOR UPDATE
    )
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) FROM key WHERE api_keys.id = key.id
    RETURNING key_hash, was_live
"""
