"""Users and their devices."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import trio
from psycopg import errors

from storage.accounts import Accounts, User
from storage.postgres import Database, open_database

NOW = datetime.now(UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=4) as database:
        yield database


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


async def test_a_new_address_is_a_new_user(accounts: Accounts) -> None:
    user = await accounts.make_user("Ann@Example.com")
    assert (user.email, user.role) == ("Ann@Example.com", "user")
    assert await accounts.find_caller(user.id, uuid4(), NOW) == user


async def test_a_user_has_an_account_from_its_first_moment(accounts: Accounts, database: Database) -> None:
    """Whoever changes its money, or deletes it, locks that row first."""
    user = await accounts.make_user("ann@example.com")
    rows = await database.as_operator("test").fetch("SELECT user_id, balance_usd FROM credit_balances")
    assert rows == [(user.id, 0)]


async def test_the_same_address_in_any_case_is_the_same_user(accounts: Accounts) -> None:
    first = await accounts.make_user("ann@example.com")
    assert await accounts.make_user("ANN@example.com") == first


async def test_an_address_used_many_times_at_once_is_one_user(accounts: Accounts) -> None:
    found: list[User] = []

    async def make() -> None:
        found.append(await accounts.make_user("ann@example.com"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(make)
    assert len(set(found)) == 1


async def test_a_role_stays_unless_another_is_given(accounts: Accounts) -> None:
    admin = await accounts.make_user("ann@example.com", "admin")
    assert await accounts.make_user("ann@example.com") == admin
    assert admin.role == "admin"
    assert (await accounts.make_user("ann@example.com", "user")).role == "user"


async def test_a_role_that_does_not_exist_is_refused(accounts: Accounts) -> None:
    with pytest.raises(errors.CheckViolation):
        await accounts.make_user("ann@example.com", "root")


async def test_a_device_is_known_once_and_to_its_user(accounts: Accounts, owner_database_url: str) -> None:
    ann, ben = await accounts.make_user("ann@example.com"), await accounts.make_user("ben@example.com")
    device_id = uuid4()
    for user in (ann, ann, ben):
        await accounts.make_device(user.id, device_id)
    with psycopg.connect(owner_database_url) as owner:
        rows = owner.execute("SELECT user_id, device_id FROM devices").fetchall()
    assert set(rows) == {(ann.id, device_id), (ben.id, device_id)}
    assert len(rows) == 2


async def test_nobody_has_no_device(accounts: Accounts) -> None:
    with pytest.raises(errors.ForeignKeyViolation):
        await accounts.make_device(uuid4(), uuid4())


async def test_a_caller_is_found_by_its_id_or_an_alias(accounts: Accounts, database: Database) -> None:
    ann, ben = await accounts.make_user("ann@example.com"), await accounts.make_user("ben@example.com")
    alias, session = uuid4(), uuid4()
    await database.as_operator("test").fetch("INSERT INTO user_aliases VALUES (%s, %s)", [alias, ann.id])
    assert await accounts.find_caller(ann.id, session, NOW) == ann
    assert await accounts.find_caller(alias, session, NOW) == ann
    assert await accounts.find_caller(ben.id, session, NOW) == ben
    assert await accounts.find_caller(uuid4(), session, NOW) is None


async def test_a_revoked_session_has_no_caller_until_its_tokens_have_ended(
    accounts: Accounts, database: Database
) -> None:
    ann, session, over = await accounts.make_user("ann@example.com"), uuid4(), uuid4()
    for revoked, seconds in ((session, 3600), (over, -1)):
        await database.as_operator("test").fetch(
            "INSERT INTO revoked_tokens (revocation_id, user_id, expires_at) VALUES (%s, %s, %s)",
            [revoked, ann.id, NOW + timedelta(seconds=seconds)],
        )
    assert await accounts.find_caller(ann.id, session, NOW) is None
    assert await accounts.find_caller(ann.id, over, NOW) == ann
    assert await accounts.find_caller(ann.id, uuid4(), NOW) == ann


async def test_a_user_who_came_back_has_no_token_from_before_the_deletion(
    accounts: Accounts, database: Database
) -> None:
    """By its own id or by another's: whatever a token calls it."""
    ann, alias, session = await accounts.make_user("ann@example.com"), uuid4(), uuid4()
    operator = database.as_operator("test")
    await operator.fetch("INSERT INTO user_aliases VALUES (%s, %s)", [alias, ann.id])
    for user_id in (ann.id, alias):
        await operator.fetch(
            "INSERT INTO deleted_accounts (reference, deleted_at) VALUES (%s, %s)", [f"user:{user_id}", NOW]
        )
        assert await accounts.find_caller(user_id, session, NOW) is None
        assert await accounts.find_caller(user_id, session, NOW + timedelta(seconds=1)) == ann


def test_a_user_is_shown_without_address_and_name() -> None:
    assert "ann" not in repr(User(uuid4(), "ann@example.com", "user", "ann"))
