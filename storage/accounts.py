"""Users and the identity of their devices."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from storage.postgres import Database


@dataclass(frozen=True, slots=True)
class User:
    """`email` is verified, or a placeholder without meaning to the post."""

    id: UUID
    email: str = field(repr=False)
    role: str
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Accounts:
    database: Database

    async def find_caller(self, user_id: UUID, revocation_id: UUID, auth_time: datetime) -> User | None:
        """Who is behind a token, also one of another region, which may know the user by another id. None if that
        session was revoked, or there is no such user, or its user was deleted after `auth_time`: a newer sign-in
        elsewhere brings a user of the same id back, and no older token with it.
        """
        parameters = {"user_id": user_id, "revocation_id": revocation_id, "auth_time": auth_time}
        row = await self.database.as_operator("find the caller").fetch_one(_FIND_CALLER, parameters)
        return User(*row) if row else None

    async def make_user(self, email: str, role: str | None = None) -> User:
        """The user of that address, made if new. A role given replaces the one it has. Safe to repeat."""
        parameters = {"email": email, "role": role}
        rows = await self.database.as_operator("make a user").fetch(_MAKE_USER, parameters)
        return User(*rows[0])

    async def make_device(self, user_id: UUID, device_id: UUID) -> None:
        """Know a device of the user. Safe to repeat."""
        await self.database.as_user(user_id).fetch(
            "INSERT INTO devices (user_id, device_id) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1",
            [user_id, device_id],
        )


_MAKE_USER: LiteralString = """
    INSERT INTO users (email, role) VALUES (%(email)s, coalesce(%(role)s::text, 'user'))
    ON CONFLICT (lower(email)) DO UPDATE SET role = coalesce(%(role)s::text, users.role), updated_at = now()
    RETURNING id, email, role, name
"""

_FIND_CALLER: LiteralString = """
    SELECT id, email, role, name FROM users
    WHERE id = coalesce((SELECT user_id FROM user_aliases WHERE alias_id = %(user_id)s), %(user_id)s)
      AND NOT EXISTS (SELECT FROM revoked_tokens WHERE revocation_id = %(revocation_id)s AND expires_at > now())
      AND NOT EXISTS (
          SELECT FROM deleted_accounts WHERE reference = 'user:' || %(user_id)s AND deleted_at >= %(auth_time)s
      )
"""
