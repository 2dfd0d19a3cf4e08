"""Users and their devices."""

from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest
import trio
from psycopg import errors

from storage.accounts import Accounts, User
from storage.postgres import Database, open_database


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
    assert await accounts.find_user(user.id) == user


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


async def test_nobody_is_found_by_an_unknown_id(accounts: Accounts) -> None:
    await accounts.make_user("ann@example.com")
    assert await accounts.find_user(uuid4()) is None


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
