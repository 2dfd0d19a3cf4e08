"""Users and the identity of their devices."""

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from storage.postgres import Database


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    email: str
    role: str


@dataclass(frozen=True, slots=True)
class Accounts:
    database: Database

    async def find_user(self, user_id: UUID) -> User | None:
        """The user, as seen with the user's own rights."""
        row = await self.database.as_user(user_id).fetch_one("SELECT id, email, role FROM users")
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
    RETURNING id, email, role
"""
