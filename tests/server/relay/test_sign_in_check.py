"""Whether what a socket's caller came with still counts."""

import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

import storage.redis
from server.auth.callers import Caller
from server.auth.tokens import AppToken
from server.relay.sign_in_check import SignInCheck, list_names, list_owners
from storage.accounts import Accounts
from storage.api_keys import ApiKeys, NewKey, make_api_key, name_api_key, revoke_api_key
from storage.postgres import Database, open_database
from storage.redis import Redis, session_key, user_key
from storage.sessions import Sessions

ANN, ABROAD = UUID(int=1), UUID(int=2)
NOW = datetime.now(UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


@pytest.fixture
def check(database: Database, client: Redis) -> SignInCheck:
    return SignInCheck(Sessions(client, Accounts(database)), ApiKeys(client, database))


async def sign_in(database: Database) -> Caller:
    user = await Accounts(database).make_user(f"{uuid4()}@example.com")
    return build_caller(user.id, user.id)


def build_caller(user_id: UUID, token_user_id: UUID | None, key_id: UUID | None = None) -> Caller:
    token = None
    if token_user_id is not None:
        auth_time = (datetime.now(UTC) + timedelta(seconds=1)).timestamp()
        token = AppToken(token_user_id, uuid4(), 0, None, None, frozenset(), uuid4(), auth_time)
    return Caller(user_id, "ann@example.com", "user", None, None, frozenset(), token, key_id)


def test_a_sign_in_ends_with_its_session_and_with_either_of_its_users() -> None:
    caller = build_caller(ANN, ABROAD)
    assert caller.token is not None
    session = session_key(ABROAD, caller.token.revocation_id)
    assert list_names(caller) == {session, user_key(ANN), user_key(ABROAD)}
    assert list_owners(caller) == {ANN, ABROAD}


def test_a_key_ends_by_its_name_and_with_its_user() -> None:
    key_id = uuid4()
    caller = build_caller(ANN, None, key_id)
    assert list_names(caller) == {name_api_key(key_id), user_key(ANN)}
    assert list_owners(caller) == {ANN}


async def test_a_sign_in_that_stands_has_not_ended_though_its_token_has_expired(
    check: SignInCheck, database: Database
) -> None:
    caller = await sign_in(database)
    assert caller.token is not None
    assert caller.token.expires_at < math.inf
    assert not await check.has_ended(caller)
    assert not await check.is_buried(caller)


async def test_what_was_buried_has_ended(check: SignInCheck, database: Database) -> None:
    one, other = await sign_in(database), await sign_in(database)
    for caller, number in ((one, 0), (other, 1)):
        assert caller.token is not None
        keys = check.sessions.lookups(caller.token.user_id, caller.token.revocation_id)
        await check.sessions.bury([keys[number]])
        assert await check.is_buried(caller)
        assert await check.has_ended(caller)


async def test_what_redis_has_forgotten_postgresql_knows(check: SignInCheck, database: Database) -> None:
    caller = await sign_in(database)
    gone = build_caller(uuid4(), uuid4())
    assert not await check.is_buried(gone)
    assert await check.has_ended(gone)
    assert not await check.has_ended(caller)


async def test_without_redis_postgresql_is_asked(
    check: SignInCheck, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await sign_in(database)
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    assert not await check.is_buried(caller)
    assert not await check.has_ended(caller)
    assert await check.has_ended(build_caller(uuid4(), uuid4()))


async def test_a_key_ends_when_it_is_revoked_and_not_when_it_expires(check: SignInCheck, database: Database) -> None:
    user = await Accounts(database).make_user("ann@example.com")
    key = NewKey(uuid4(), user.id, "a" * 64, "ck_", "label", ["read"], NOW - timedelta(days=1))
    caller = replace(build_caller(user.id, None, key.id))
    async with database.as_operator("a test").transaction() as connection:
        await make_api_key(connection, key)
    assert not await check.has_ended(caller)
    async with database.as_operator("a test").transaction() as connection:
        await revoke_api_key(connection, user.id, key.id)
    assert await check.has_ended(caller)
    assert await check.has_ended(build_caller(user.id, None, uuid4()))
