"""What is remembered of callers for a while, and what was ended and is not remembered again by anybody."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest

import storage.redis
from storage.accounts import Accounts, User
from storage.device_events import events_channel
from storage.errors import RedisUnavailable
from storage.postgres import Database, open_database
from storage.rate_limits import TOMBSTONE
from storage.redis import Redis, session_key, user_key
from storage.sessions import REMEMBERED_SECONDS, TOMBSTONE_SECONDS, Sessions
from tests.storage.told import open_told

SESSION, OTHER = UUID(int=7), UUID(int=8)
NOW = datetime.now(UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


@pytest.fixture
def sessions(client: Redis, database: Database) -> Sessions:
    return Sessions(client, Accounts(database))


@pytest.fixture
async def user(database: Database) -> User:
    return await Accounts(database).make_user("ann@example.com", "admin")


async def look_up(sessions: Sessions, user: User, session: UUID = SESSION) -> list[bytes | None]:
    return list(await sessions.redis.mget(sessions.lookups(user.id, session)))


async def sign_out(sessions: Sessions, user: User) -> None:
    """PostgreSQL is told first."""
    await revoke(sessions, user)
    await sessions.bury([session_key(user.id, SESSION)])


async def revoke(sessions: Sessions, user: User) -> None:
    await sessions.accounts.database.as_operator("test").fetch(
        "INSERT INTO revoked_tokens VALUES (%s, %s, now(), now() + interval '1 day') ON CONFLICT DO NOTHING",
        [SESSION, user.id],
    )


async def test_whoever_is_remembered_is_read_back(sessions: Sessions, user: User) -> None:
    assert sessions.read(await look_up(sessions, user)) is None
    assert await sessions.find(user.id, SESSION, NOW) == user
    await sessions.remember(user.id, SESSION, user)
    assert sessions.read(await look_up(sessions, user)) == user


async def test_another_session_of_the_same_user_is_asked_for_by_itself(sessions: Sessions, user: User) -> None:
    await sessions.remember(user.id, SESSION, user)
    assert sessions.read(await look_up(sessions, user, OTHER)) is None
    await sessions.remember(user.id, OTHER, user)
    assert sessions.read(await look_up(sessions, user, OTHER)) == user


async def test_both_are_remembered_for_half_a_minute_and_in_one_slot(sessions: Sessions, user: User) -> None:
    await sessions.remember(user.id, SESSION, user)
    for key in sessions.lookups(user.id, SESSION):
        assert 0 < await sessions.redis.ttl(key) <= REMEMBERED_SECONDS
        assert key.startswith(f"{{{user.id}}}:")


async def test_what_is_remembered_is_not_prolonged_by_remembering(sessions: Sessions, user: User) -> None:
    await sessions.remember(user.id, SESSION, user)
    for key in sessions.lookups(user.id, SESSION):
        await sessions.redis.expire(key, 5)
    await sessions.remember(user.id, SESSION, user)
    for key in sessions.lookups(user.id, SESSION):
        assert await sessions.redis.ttl(key) <= 5


async def test_a_forgotten_user_is_read_anew(sessions: Sessions, user: User, owner_database_url: str) -> None:
    await sessions.remember(user.id, SESSION, user)
    with psycopg.connect(owner_database_url) as connection:
        connection.execute("UPDATE users SET role = 'user'")
    await sessions.forget_user(user.id)
    assert sessions.read(await look_up(sessions, user)) is None
    found = await sessions.find(user.id, SESSION, NOW)
    assert found is not None
    assert found.role == "user"


async def test_a_user_who_is_forgotten_keeps_its_tombstone(sessions: Sessions, user: User) -> None:
    await sessions.bury([user_key(user.id)])
    await sessions.forget_user(user.id)
    assert (await look_up(sessions, user))[1] == TOMBSTONE


async def test_a_revoked_session_finds_nobody_and_another_still_does(sessions: Sessions, user: User) -> None:
    await sessions.remember(user.id, SESSION, user)
    for _ in range(2):
        await sign_out(sessions, user)
    assert (await look_up(sessions, user))[0] == TOMBSTONE
    assert sessions.read(await look_up(sessions, user)) is None
    assert await sessions.find(user.id, SESSION, NOW) is None
    assert await sessions.find(user.id, OTHER, NOW) == user


async def test_a_reader_that_is_slower_than_a_sign_out_writes_over_no_tombstone(sessions: Sessions, user: User) -> None:
    slow = await sessions.find(user.id, SESSION, NOW)
    await sign_out(sessions, user)
    assert slow is not None
    await sessions.remember(user.id, SESSION, slow)
    assert (await look_up(sessions, user))[0] == TOMBSTONE


async def test_a_reader_that_remembers_between_the_stores_is_buried(sessions: Sessions, user: User) -> None:
    """PostgreSQL has been told, Redis not yet."""
    slow = await sessions.find(user.id, SESSION, NOW)
    await revoke(sessions, user)
    assert slow is not None
    await sessions.remember(user.id, SESSION, slow)
    await sign_out(sessions, user)
    assert (await look_up(sessions, user))[0] == TOMBSTONE


async def test_a_reader_that_is_slower_than_a_deletion_brings_no_user_back(
    sessions: Sessions, user: User, owner_database_url: str
) -> None:
    slow = await sessions.find(user.id, SESSION, NOW)
    with psycopg.connect(owner_database_url) as connection:
        connection.execute("DELETE FROM users")
    await sessions.bury([user_key(user.id)])
    assert slow is not None
    await sessions.remember(user.id, SESSION, slow)
    session, who = await look_up(sessions, user)
    assert who == TOMBSTONE
    assert sessions.read(await look_up(sessions, user, OTHER)) is None
    assert session != TOMBSTONE, "only what was buried is: the user's tombstone ends every session"


async def test_a_tombstone_stays_longer_than_any_reader_takes(sessions: Sessions, user: User) -> None:
    await sessions.bury([user_key(user.id), session_key(uuid4(), SESSION)])
    assert REMEMBERED_SECONDS < await sessions.redis.ttl(user_key(user.id)) <= TOMBSTONE_SECONDS


async def test_a_user_with_a_tombstone_is_never_read(sessions: Sessions, user: User) -> None:
    await sessions.remember(user.id, SESSION, user)
    await sessions.bury([session_key(user.id, SESSION)])
    assert sessions.read(await look_up(sessions, user)) is None


async def test_without_redis_a_revocation_stands_in_postgresql_and_is_told_as_unfinished(
    sessions: Sessions, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(RedisUnavailable):
        await sessions.remember(user.id, SESSION, user)
    with pytest.raises(RedisUnavailable):
        await sign_out(sessions, user)
    assert await sessions.find(user.id, SESSION, NOW) is None


async def test_whoever_holds_a_socket_hears_of_what_was_buried(
    sessions: Sessions, user: User, redis_url: str
) -> None:
    keys = [session_key(user.id, SESSION), user_key(OTHER)]
    with open_told(redis_url) as told:
        await sessions.bury(keys)
        assert told(2) == [(events_channel(user.id), f"ended {keys[0]}"), (events_channel(OTHER), f"ended {keys[1]}")]
