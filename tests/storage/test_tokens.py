"""What is remembered of callers: their user for a while, their revoked tokens until these would have ended."""

import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg
import pytest

import storage.redis
from storage.accounts import Accounts, User
from storage.embedded import EmbeddedServers
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.postgres import Database, open_database
from storage.redis import Redis, open_redis, revoked_token_key, user_key
from storage.tokens import USER_SECONDS, Tokens

TOKEN = UUID(int=7)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
def tokens(client: Redis, database: Database) -> Tokens:
    return Tokens(client, Accounts(database))


@pytest.fixture
async def user(database: Database) -> User:
    return await Accounts(database).make_user("ann@example.com", "admin")


def demote(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        connection.execute("UPDATE users SET role = 'user'")


async def test_the_user_behind_a_token_is_found(tokens: Tokens, user: User) -> None:
    assert await tokens.find_user(user.id, TOKEN) == user
    assert await tokens.find_user(user.id, TOKEN) == user


async def test_a_user_is_remembered_for_a_while_without_asking_postgresql(
    tokens: Tokens, user: User, client: Redis, owner_database_url: str
) -> None:
    await tokens.find_user(user.id, TOKEN)
    demote(owner_database_url)
    assert await tokens.find_user(user.id, TOKEN) == user
    assert 0 < await client.ttl(user_key(user.id)) <= USER_SECONDS


async def test_a_forgotten_user_is_read_anew(tokens: Tokens, user: User, owner_database_url: str) -> None:
    await tokens.find_user(user.id, TOKEN)
    demote(owner_database_url)
    await tokens.forget_user(user.id)
    found = await tokens.find_user(user.id, TOKEN)
    assert found is not None
    assert found.role == "user"


async def test_a_revoked_token_finds_nobody_and_another_still_does(tokens: Tokens, user: User) -> None:
    await tokens.find_user(user.id, TOKEN)
    for _ in range(2):
        await tokens.revoke(user.id, TOKEN, time.time() + 60)
    assert await tokens.find_user(user.id, TOKEN) is None
    assert await tokens.find_user(user.id, uuid4()) == user


async def test_a_revocation_lasts_as_long_as_the_token(tokens: Tokens, user: User, client: Redis) -> None:
    await tokens.revoke(user.id, TOKEN, time.time() + 1000)
    assert 995 <= await client.ttl(revoked_token_key(user.id, TOKEN)) <= 1000
    await tokens.revoke(user.id, TOKEN, time.time() - 5)
    assert await client.ttl(revoked_token_key(user.id, TOKEN)) == 1


async def test_nobody_is_not_remembered(tokens: Tokens, client: Redis) -> None:
    unknown = uuid4()
    assert await tokens.find_user(unknown, TOKEN) is None
    assert await client.exists([user_key(unknown)]) == 0


async def test_without_redis_nobody_can_say(
    tokens: Tokens, user: User, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(RedisUnavailable):
        await tokens.find_user(user.id, TOKEN)
    with pytest.raises(RedisUnavailable):
        await tokens.revoke(user.id, TOKEN, time.time() + 60)


async def test_without_postgresql_only_who_is_remembered_is_found(
    servers: EmbeddedServers, database_name: str, database_url: str, client: Redis
) -> None:
    async with open_database(database_url, size=1) as database:
        tokens = Tokens(client, Accounts(database))
        user = await Accounts(database).make_user("ann@example.com")
        await tokens.find_user(user.id, TOKEN)
        with psycopg.connect(servers.owner_database_url, autocommit=True) as owner:
            owner.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false".encode())
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database_name])
        assert await tokens.find_user(user.id, TOKEN) == user
        with pytest.raises(DatabaseUnavailable):
            await tokens.find_user(uuid4(), TOKEN)
