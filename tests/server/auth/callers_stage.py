"""Callers on real stores, for the tests: who they ask, and what they find."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import redis
from werkzeug.datastructures import Headers

from server.auditor import Auditor
from server.auth.callers import Callers
from server.auth.credentials import hash_api_key
from server.auth.provisioning import Provisioning
from server.auth.tokens import issue_token
from server.budgets import read_budgets
from server.limits import Limits
from server.outage import Outage
from server.settings import Settings
from storage.accounts import Accounts, User
from storage.api_keys import ApiKeys, NewKey, make_api_key
from storage.audit import AuditLog
from storage.postgres import Database, open_database
from storage.rate_limits import RateLimits
from storage.redis import Redis, open_redis
from storage.sessions import Sessions
from storage.sign_ins import SignIns

SECRET, KEY_SECRET = "a" * 32, "k" * 32
DEVICE = UUID(int=5)
KEY = "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Stage:
    """What callers are found with. `owner_url` and `redis_url` are for looking at what they left."""

    callers: Callers
    user: User
    database: Database
    redis: Redis
    owner_url: str
    redis_url: str

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """As the superuser."""
        with psycopg.connect(self.owner_url) as owner:
            cursor = owner.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def refusals(self) -> list[tuple[str, str, UUID, str, str, str]]:
        """What the audit log has: action, actor, subject, entity and the reason."""
        told = "action, actor, subject_id, entity_type, entity_id, details->>'reason'"
        return self.query(f"SELECT {told} FROM audit_log ORDER BY sequence")  # noqa: S608 - a constant

    async def make_key(
        self, key: str = KEY, *, scopes: tuple[str, ...] = ("read", "write"), expires_at: datetime | None = None
    ) -> UUID:
        new = NewKey(uuid4(), self.user.id, hash_api_key(KEY_SECRET, key), key[:6], "laptop", scopes, expires_at)
        async with self.database.as_operator("test").transaction() as connection:
            return (await make_api_key(connection, new)).id

    async def without_postgresql(self) -> Callers:
        """The same callers, who remember what Redis does, and cannot ask PostgreSQL."""
        async with open_database(self.owner_url, size=1) as closed:
            pass
        return build_callers(closed, self.redis, self.callers.limits)


@asynccontextmanager
async def open_stage(database_url: str, owner_url: str, redis_url: str, **settings: str) -> AsyncIterator[Stage]:
    """`settings` are those of the budgets."""
    async with open_database(database_url, size=4) as database, open_redis(redis_url) as client:
        limits = Limits(RateLimits(client), read_budgets(Settings(settings)), Outage())
        user = await Accounts(database).make_user("ann@example.com")
        yield Stage(build_callers(database, client, limits), user, database, client, owner_url, redis_url)


def build_callers(database: Database, client: Redis, limits: Limits) -> Callers:
    audit = AuditLog(database, "test", "s" * 32)
    return Callers(
        Sessions(client, Accounts(database)),
        ApiKeys(client, database),
        Provisioning(SignIns(database, audit), "https://issuer.example/"),
        limits,
        Auditor(audit),
        [SECRET],
        KEY_SECRET,
    )


def issue(user: User, **changes: Any) -> str:
    options: dict[str, Any] = {"user_id": user.id, "email": user.email, "role": user.role, "device_id": DEVICE}
    return issue_token(SECRET, **(options | {"now": time.time(), "days": 1} | changes))


def build_headers(text: str, **changes: str) -> Headers:
    """A token as the clients send it."""
    named = {"Authorization": f"Bearer {text}", "X-Device-ID": str(DEVICE), "X-Token-Binding": str(DEVICE)}
    return Headers(named | changes)


def someone_else(user: User) -> User:
    return replace(user, id=uuid4())


@contextmanager
def watch_redis(url: str) -> Iterator[Callable[[], list[str]]]:
    """Calls tell which commands Redis was sent since the last call: those of scripts are not among them."""
    watching: Any = redis.Redis.from_url(url)
    with redis.Redis.from_url(url) as client, watching, watching.monitor() as monitor:
        list(_read_commands(client, monitor))
        yield lambda: list(_read_commands(client, monitor))


def _read_commands(client: redis.Redis, monitor: Any) -> Iterator[str]:
    mark = uuid4().hex
    client.echo(mark)
    while mark not in (seen := monitor.next_command())["command"]:
        if seen["client_type"] != "lua":
            yield seen["command"].split()[0].upper()
