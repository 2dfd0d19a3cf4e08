"""API keys in PostgreSQL and Redis: made within a limit, found, remembered, listed, and ended at once."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

import storage.redis
from storage.accounts import Accounts, User
from storage.api_keys import (
    MAX_LIVE_KEYS,
    ApiKey,
    ApiKeys,
    KeyOwner,
    NewKey,
    RevokedKey,
    TooManyKeys,
    make_api_key,
    revoke_api_key,
)
from storage.device_events import events_channel
from storage.errors import RedisUnavailable
from storage.postgres import Database, open_database
from storage.rate_limits import TOMBSTONE
from storage.redis import Redis, api_key_key
from storage.sessions import REMEMBERED_SECONDS
from tests.storage.told import open_told

HASH = "a" * 64


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=8) as database:
        yield database


@pytest.fixture
def keys(client: Redis, database: Database) -> ApiKeys:
    return ApiKeys(client, database)


@pytest.fixture
async def user(database: Database) -> User:
    return await Accounts(database).make_user("ann@example.com")


async def make(
    keys: ApiKeys,
    user: User,
    key_hash: str = HASH,
    *,
    scopes: Sequence[str] = ("read", "write"),
    expires_at: datetime | None = None,
) -> ApiKey:
    new = NewKey(uuid4(), user.id, key_hash, "012345", "laptop", scopes, expires_at)
    async with keys.database.as_operator("test").transaction() as connection:
        return await make_api_key(connection, new)


async def revoke(keys: ApiKeys, user_id: UUID, key_id: UUID) -> RevokedKey | None:
    async with keys.database.as_operator("test").transaction() as connection:
        return await revoke_api_key(connection, user_id, key_id)


def run(owner_url: str, statement: str) -> None:
    with psycopg.connect(owner_url) as owner:
        owner.execute(statement.encode())


async def wait_for_lock(owner_url: str) -> None:
    """Until somebody waits for a row of this database."""
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with trio.fail_after(10), psycopg.connect(owner_url, autocommit=True) as owner:
        while owner.execute(waiting).fetchone() is None:
            await trio.sleep(0.01)


def in_the_past() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


# Making


async def test_a_key_is_made_and_listed_without_what_it_is(keys: ApiKeys, user: User) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    made = await make(keys, user, expires_at=expires_at)
    assert (made.hint, made.label, made.scopes, made.expires_at) == ("012345", "laptop", ["read", "write"], expires_at)
    assert (made.last_used_at, made.revoked_at) == (None, None)
    assert made.created_at <= datetime.now(UTC)
    assert await keys.list(user.id) == [made]


async def test_a_user_sees_its_own_keys_alone_the_newest_first(keys: ApiKeys, database: Database, user: User) -> None:
    other = await Accounts(database).make_user("bob@example.com")
    first, second = await make(keys, user), await make(keys, user, "b" * 64)
    await make(keys, other, "c" * 64)
    assert [key.id for key in await keys.list(user.id)] == [second.id, first.id]


def test_a_hash_shows_in_no_repr() -> None:
    new = NewKey(uuid4(), uuid4(), HASH, "012345", "laptop", ("read",), None)
    assert HASH not in repr(new) + repr(RevokedKey(HASH, was_live=True))


async def test_a_user_has_as_many_live_keys_as_the_limit_says(keys: ApiKeys, user: User) -> None:
    made = [await make(keys, user, f"{number:064x}") for number in range(MAX_LIVE_KEYS)]
    with pytest.raises(TooManyKeys, match="revoke one"):
        await make(keys, user)
    await revoke(keys, user.id, made[0].id)
    await make(keys, user)
    with pytest.raises(TooManyKeys):
        await make(keys, user, "b" * 64)


async def test_an_expired_key_leaves_room_for_another(keys: ApiKeys, user: User) -> None:
    for number in range(MAX_LIVE_KEYS + 1):
        await make(keys, user, f"{number:064x}", expires_at=in_the_past())
    await make(keys, user)


async def test_somebody_elses_keys_take_no_room(keys: ApiKeys, database: Database, user: User) -> None:
    for number in range(MAX_LIVE_KEYS):
        await make(keys, user, f"{number:064x}")
    await make(keys, await Accounts(database).make_user("bob@example.com"))


async def test_the_limit_holds_when_many_are_made_at_once(keys: ApiKeys, user: User) -> None:
    for number in range(MAX_LIVE_KEYS - 3):
        await make(keys, user, f"{number:064x}")
    refused: list[Exception] = []

    async def try_to_make(number: int) -> None:
        try:
            await make(keys, user, f"{number:064x}")
        except TooManyKeys as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(100, 116):
            nursery.start_soon(try_to_make, number)
    assert len(refused) == 13
    assert len(await keys.list(user.id)) == MAX_LIVE_KEYS


# Finding


async def test_a_key_is_found_by_its_hash_as_it_was_made(keys: ApiKeys, user: User) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    made = await make(keys, user, scopes=("read",), expires_at=expires_at)
    expected = KeyOwner(made.id, user, frozenset({"read"}), expires_at.timestamp(), is_live=True)
    assert await keys.find(HASH) == expected
    assert await keys.find("b" * 64) is None


async def test_a_key_that_is_used_says_when_and_one_that_is_not_live_does_not(keys: ApiKeys, user: User) -> None:
    await make(keys, user)
    await make(keys, user, "b" * 64, expires_at=in_the_past())
    before = datetime.now(UTC)
    await keys.find(HASH)
    await keys.find("b" * 64)
    used = {key.expires_at is None: key.last_used_at for key in await keys.list(user.id)}
    at = used[True]
    assert at is not None
    assert before <= at <= datetime.now(UTC)
    assert used[False] is None


async def test_the_time_of_use_is_noted_again_after_a_while_and_not_at_every_request(
    keys: ApiKeys, user: User, owner_database_url: str
) -> None:
    async def used_at() -> datetime | None:
        await keys.find(HASH)
        return (await keys.list(user.id))[0].last_used_at

    await make(keys, user)
    first = await used_at()
    assert await used_at() == first
    run(owner_database_url, "UPDATE api_keys SET last_used_at = now() - interval '30 seconds'")
    assert await used_at() > first  # type: ignore[operator] # both are there


async def test_an_expired_or_revoked_key_is_found_as_such(keys: ApiKeys, user: User) -> None:
    expired, revoked = await make(keys, user, expires_at=in_the_past()), await make(keys, user, "b" * 64)
    await revoke(keys, user.id, revoked.id)
    for key_hash, key_id in ((HASH, expired.id), ("b" * 64, revoked.id)):
        owner = await keys.find(key_hash)
        assert owner is not None
        assert (owner.key_id, owner.is_live) == (key_id, False)


# Remembering


async def test_a_key_is_remembered_for_a_while(keys: ApiKeys, user: User, client: Redis) -> None:
    await make(keys, user)
    assert await keys.find_remembered(HASH) is None
    owner = await keys.find(HASH)
    assert owner is not None
    await keys.remember(HASH, owner)
    assert await keys.find_remembered(HASH) == owner
    assert 0 < await client.ttl(api_key_key(HASH)) <= REMEMBERED_SECONDS


async def test_an_expired_key_is_not_remembered_any_more(keys: ApiKeys, user: User) -> None:
    now = datetime.now(UTC).timestamp()
    await keys.remember(HASH, KeyOwner(uuid4(), user, frozenset(), now - 1))
    await keys.remember("b" * 64, KeyOwner(uuid4(), user, frozenset(), now + 60))
    assert await keys.find_remembered(HASH) is None
    assert await keys.find_remembered("b" * 64) is not None


async def test_a_tombstone_is_not_written_over_by_a_slower_reader(keys: ApiKeys, user: User, client: Redis) -> None:
    await make(keys, user)
    owner = await keys.find(HASH)
    assert owner is not None
    await keys.bury(HASH)
    await keys.remember(HASH, owner)
    assert await client.get(api_key_key(HASH)) == TOMBSTONE
    assert await keys.find_remembered(HASH) is None


async def test_a_tombstone_outlives_what_is_remembered(keys: ApiKeys, user: User, client: Redis) -> None:
    await keys.remember(HASH, KeyOwner(uuid4(), user, frozenset(), None))
    await keys.bury(HASH)
    await keys.bury("b" * 64)
    assert [await client.get(api_key_key(key)) for key in (HASH, "b" * 64)] == [TOMBSTONE, TOMBSTONE]
    assert await client.ttl(api_key_key(HASH)) > REMEMBERED_SECONDS


async def test_without_redis_nothing_is_remembered_or_buried(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(RedisUnavailable):
        await keys.find_remembered(HASH)
    with pytest.raises(RedisUnavailable):
        await keys.bury(HASH)


# Ending


async def test_a_key_is_revoked_once_and_its_hash_told_as_often_as_asked(keys: ApiKeys, user: User) -> None:
    made = await make(keys, user)
    assert await revoke(keys, user.id, made.id) == RevokedKey(HASH, was_live=True)
    revoked_at = (await keys.list(user.id))[0].revoked_at
    assert revoked_at is not None
    assert await revoke(keys, user.id, made.id) == RevokedKey(HASH, was_live=False)
    assert (await keys.list(user.id))[0].revoked_at == revoked_at


async def test_a_key_that_has_ended_is_buried_and_told_without_its_hash(
    keys: ApiKeys, user: User, client: Redis, redis_url: str
) -> None:
    made = await make(keys, user)
    assert not await keys.has_ended(user.id, made.id)
    await revoke(keys, user.id, made.id)
    with open_told(redis_url) as told:
        await keys.end(user.id, made.id, HASH)
        assert told(1) == [(events_channel(user.id), f"ended api-key:{made.id}")]
    assert await client.get(api_key_key(HASH)) == TOMBSTONE
    assert await keys.has_ended(user.id, made.id)
    assert await keys.has_ended(user.id, uuid4())


async def test_of_two_who_revoke_at_once_one_did(keys: ApiKeys, user: User, owner_database_url: str) -> None:
    made = await make(keys, user)
    revoked: list[RevokedKey | None] = []

    async def note() -> None:
        revoked.append(await revoke(keys, user.id, made.id))

    async with trio.open_nursery() as nursery, keys.database.as_operator("test").transaction() as connection:
        revoked.append(await revoke_api_key(connection, user.id, made.id))
        nursery.start_soon(note)
        await wait_for_lock(owner_database_url)
    assert revoked == [RevokedKey(HASH, was_live=True), RevokedKey(HASH, was_live=False)]


async def test_nobody_revokes_what_is_somebody_elses_or_nobodys(
    keys: ApiKeys, database: Database, user: User
) -> None:
    other = await Accounts(database).make_user("bob@example.com")
    made = await make(keys, user)
    assert await revoke(keys, other.id, made.id) is None
    assert await revoke(keys, user.id, uuid4()) is None
    owner = await keys.find(HASH)
    assert owner is not None
    assert owner.is_live


async def test_the_keys_of_a_deleted_user_are_gone(keys: ApiKeys, user: User, owner_database_url: str) -> None:
    await make(keys, user)
    run(owner_database_url, "DELETE FROM users")
    assert await keys.find(HASH) is None
    assert await keys.list(user.id) == []
