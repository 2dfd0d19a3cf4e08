"""People who sign in, for tests: who they are to an issuer, with which device, and what the log is told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import trio

from storage.audit import AuditEntry
from storage.sign_ins import Identity, Login, SignedIn

Query = Callable[..., list[tuple[Any, ...]]]

ISSUER = "https://issuer.example/"
ENTRY = AuditEntry("sign_out", "success", "system")


def now() -> datetime:
    return datetime.now(UTC)


def build_identity(
    subject: str = "auth0|ann",
    email: str | None = "ann@example.com",
    *,
    verified: bool = True,
    name: str | None = "Ann",
) -> Identity:
    return Identity(ISSUER, subject, email, verified, name)


def build_login(
    device_id: str | None = None,
    refresh_token: bytes | None = None,
    *,
    login_id: UUID | None = None,
    days: float = 30,
) -> Login:
    began = now().replace(microsecond=0)
    return Login(login_id or uuid4(), device_id, refresh_token, began, began + timedelta(days=days))


def build_entry(signed_in: SignedIn) -> AuditEntry:
    user = signed_in.user
    return AuditEntry("sign_in", "success", f"user:{user.id}", user.id, details={"is_new": signed_in.is_new})


@contextmanager
def open_query(owner_database_url: str) -> Iterator[Query]:
    """SQL as the superuser, each statement a transaction. Select something: rows without columns are not told."""
    with psycopg.connect(owner_database_url, autocommit=True) as connection:

        def run(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

        yield run


async def wait_until_somebody_waits(query: Query) -> None:
    """For a lock, anywhere in the cluster."""
    with trio.fail_after(5):
        while not query("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await trio.sleep(0.01)
