"""Callers: found from real stores, or refused, and never signed out because a store is away."""

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from werkzeug.datastructures import Headers

import storage.redis
from server.auth.callers import Caller, Callers, check_scopes, read_bearer
from server.auth.tokens import AppToken, issue_token, read_token
from server.errors import NotAllowed, NotAuthenticated, describe
from storage.accounts import Accounts, User
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.postgres import Database, open_database
from storage.redis import open_redis
from storage.tokens import Tokens

SECRET = "a" * 32
DEVICE = UUID(int=5)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


@pytest.fixture
async def tokens(database: Database, redis_url: str) -> AsyncIterator[Tokens]:
    async with open_redis(redis_url) as redis:
        yield Tokens(redis, Accounts(database))


@pytest.fixture
def callers(tokens: Tokens) -> Callers:
    return Callers(tokens, [SECRET])


@pytest.fixture
async def user(database: Database) -> User:
    return await Accounts(database).make_user("ann@example.com")


def issue(user: User, **changes: Any) -> str:
    options: dict[str, Any] = {"user_id": user.id, "email": user.email, "role": user.role, "device_id": DEVICE}
    return issue_token(SECRET, **(options | {"now": time.time(), "days": 1} | changes))


def build_headers(text: str) -> Headers:
    return Headers({"Authorization": f"Bearer {text}", "X-Device-ID": str(DEVICE), "X-Token-Binding": str(DEVICE)})


def build_token(*scopes: str) -> AppToken:
    return AppToken(UUID(int=1), uuid4(), 0, None, None, frozenset(scopes))


# Credentials


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c  "])
def test_the_token_is_read_in_any_case(value: str) -> None:
    assert read_bearer(Headers({"authorization": value})) == "a.b.c"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing credentials"),
        ({"Authorization": ""}, "Missing credentials"),
        ({"Authorization": "Bearer"}, "Unsupported credentials"),
        ({"Authorization": "Bearer "}, "Unsupported credentials"),
        ({"Authorization": "Basic YTpi"}, "Unsupported credentials"),
        ({"Authorization": "a.b.c"}, "Unsupported credentials"),
    ],
)
def test_without_a_token_nobody_is_there(headers: Mapping[str, str], message: str) -> None:
    with pytest.raises(NotAuthenticated, match=message):
        read_bearer(Headers(headers))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_needs_the_scope_to_read(method: str) -> None:
    check_scopes(build_token("read"), method)
    with pytest.raises(NotAllowed, match="the scope read"):
        check_scopes(build_token("write"), method)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_anything_else_needs_the_scope_to_write_as_well(method: str) -> None:
    check_scopes(build_token("read", "write"), method)
    with pytest.raises(NotAllowed, match="the scope write"):
        check_scopes(build_token("read", "rpc"), method)
    with pytest.raises(NotAllowed, match="the scope read"):
        check_scopes(build_token("write"), method)


# Finding


async def test_a_caller_is_found(callers: Callers, user: User) -> None:
    text = issue(user)
    token_id = read_token([SECRET], text).token_id
    expected = Caller(user.id, "ann@example.com", "user", str(DEVICE), token_id)
    assert await callers.find("POST", build_headers(text)) == expected


async def test_identity_and_role_are_those_of_the_row(callers: Callers, user: User) -> None:
    caller = await callers.find("GET", build_headers(issue(user, email="old@example.com", role="admin")))
    assert (caller.email, caller.role) == ("ann@example.com", "user")


async def test_a_role_that_was_taken_away_is_gone_as_soon_as_the_user_is_read_anew(
    callers: Callers, tokens: Tokens, database: Database
) -> None:
    admin = await Accounts(database).make_user("bob@example.com", "admin")
    headers = build_headers(issue(admin))
    assert (await callers.find("GET", headers)).role == "admin"
    await Accounts(database).make_user("bob@example.com", "user")
    await tokens.forget_user(admin.id)
    assert (await callers.find("GET", headers)).role == "user"


async def test_a_revoked_token_is_refused_and_another_of_the_same_user_is_not(
    callers: Callers, tokens: Tokens, user: User
) -> None:
    text = issue(user)
    await callers.find("GET", build_headers(text))
    await tokens.revoke(user.id, read_token([SECRET], text).token_id, time.time() + 60)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await callers.find("GET", build_headers(text))
    assert (await callers.find("GET", build_headers(issue(user)))).user_id == user.id


async def test_a_user_who_does_not_exist_is_refused_and_not_made(
    callers: Callers, user: User, owner_database_url: str
) -> None:
    with pytest.raises(NotAuthenticated, match="unknown"):
        await callers.find("GET", build_headers(issue(replace(user, id=uuid4()))))
    with psycopg.connect(owner_database_url) as owner:
        assert owner.execute("SELECT count(*) FROM users").fetchone() == (1,)


async def test_a_token_from_another_device_never_reaches_the_stores(
    callers: Callers, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    headers = build_headers(issue(user, device_id=UUID(int=6)))
    with pytest.raises(NotAuthenticated, match="Device ID mismatch"):
        await callers.find("GET", headers)


async def test_while_redis_is_away_nobody_is_signed_out(
    callers: Callers, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(RedisUnavailable) as caught:
        await callers.find("GET", build_headers(issue(user)))
    assert_to_be_tried_again(caught.value)


async def test_while_postgresql_is_away_nobody_is_signed_out(tokens: Tokens, user: User, database_url: str) -> None:
    async with open_database(database_url, size=1) as closed:
        pass
    callers = Callers(replace(tokens, accounts=Accounts(closed)), [SECRET])
    with pytest.raises(DatabaseUnavailable) as caught:
        await callers.find("GET", build_headers(issue(user)))
    assert_to_be_tried_again(caught.value)


def assert_to_be_tried_again(error: Exception) -> None:
    problem = describe(error)
    assert problem is not None
    assert problem.status == 503
    assert "Retry-After" in problem.headers
