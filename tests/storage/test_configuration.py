"""The configuration: values that are read as they stand now, written with what else their transaction does, and kept in
every version that they had.
"""

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from functools import partial
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
import trio
from psycopg import errors

from storage.configuration import (
    Configuration,
    ConfigurationUnreadable,
    ConfigurationVersion,
    find_configuration,
    find_configuration_version,
    lock_configuration,
    write_configuration,
)
from storage.postgres import Database, open_database


@pytest.fixture
async def database(database_url: str, owner_database_url: str) -> AsyncIterator[Database]:
    """Without what the seed has set."""
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("DELETE FROM configuration; DELETE FROM configuration_versions")
    async with open_database(database_url, size=2) as database:
        yield database


async def write(database: Database, **values: object) -> dict[str, ConfigurationVersion]:
    return await write_as("test", database, values)


async def write_as(actor: str, database: Database, values: Mapping[str, object]) -> dict[str, ConfigurationVersion]:
    async with database.as_operator("test").transaction() as connection:
        return await write_configuration(connection, values, actor)


async def find(database: Database, key: str) -> tuple[int, object, str]:
    found = await Configuration(database).find(key)
    assert found is not None
    return found.version, found.value, found.updated_by


async def test_what_was_written_is_read_with_its_type(database: Database) -> None:
    values = {"text": "2.00", "number": 180, "fraction": 0.1, "nothing": None, "list": [{"max": None, "é": "\\"}]}
    await write(database, **values)
    assert await Configuration(database).read(list(values)) == values


async def test_only_what_is_asked_for_and_there_is_told(database: Database) -> None:
    await write(database, one=1, two=2)
    assert await Configuration(database).read(["two", "three"]) == {"two": 2}
    assert await Configuration(database).read([]) == {}


async def test_all_of_it_comes_in_the_order_of_the_keys(database: Database) -> None:
    await write(database, two=2, a_b=1, ab=0)
    assert list((await Configuration(database).read_all()).items()) == [("a_b", 1), ("ab", 0), ("two", 2)]


async def test_a_later_value_replaces_an_earlier_one_at_once(database: Database) -> None:
    configuration = Configuration(database)
    for value in ("2.00", Decimal("3.50")):
        await write(database, amount=value)
        assert await configuration.read(["amount"]) == {"amount": str(value)}
    rows = await database.as_operator("test").fetch("SELECT updated_at > now() - interval '1 hour' FROM configuration")
    assert rows == [(True,)]


async def test_each_change_is_a_version_and_the_same_again_is_none(database: Database) -> None:
    first = await write_as("ann", database, {"amount": 1, "other": 1})
    assert {key: (found.version, found.updated_by) for key, found in first.items()} == {
        "amount": (1, "ann"),
        "other": (1, "ann"),
    }
    assert await write_as("bob", database, {"amount": 1}) == {}
    assert await find(database, "amount") == (1, 1, "ann")
    changed = await write_as("bob", database, {"amount": {"a": 2}, "other": 1})
    assert list(changed) == ["amount"]
    assert await find(database, "amount") == (2, {"a": 2}, "bob")
    assert changed["amount"] == await Configuration(database).find("amount")
    assert await Configuration(database).find("unset") is None


async def test_versions_come_the_newest_first_and_page_by_page(database: Database) -> None:
    for number in range(5):
        await write_as(f"user-{number}", database, {"amount": number, "other": number})
    configuration = Configuration(database)
    found = await configuration.list_versions("amount", None, 3)
    assert [(version.version, version.value, version.updated_by) for version in found] == [
        (5, 4, "user-4"),
        (4, 3, "user-3"),
        (3, 2, "user-2"),
    ]
    assert [version.version for version in await configuration.list_versions("amount", 3, 3)] == [2, 1]
    assert await configuration.list_versions("unset", None, 3) == []


async def test_an_earlier_version_is_found_also_in_the_transaction_that_replaced_it(database: Database) -> None:
    await write(database, amount=1)
    async with database.as_operator("test").transaction() as connection:
        await write_configuration(connection, {"amount": 2}, "test")
        present = await find_configuration(connection, "amount")
        earlier = await find_configuration_version(connection, "amount", 1)
        assert present is not None
        assert earlier is not None
        assert (present.version, present.value, earlier.version, earlier.value) == (2, 2, 1, 1)
        assert await find_configuration_version(connection, "amount", 3) is None
        assert await find_configuration(connection, "unset") is None


async def test_who_has_locked_it_decides_before_anybody_else_writes(database: Database) -> None:
    order = []

    async def change() -> None:
        await write(database, amount=2)
        order.append("another")

    async with trio.open_nursery() as nursery, database.as_operator("test").transaction() as connection:
        await lock_configuration(connection)
        nursery.start_soon(change)
        await wait_for_a_lock(connection)
        await write_configuration(connection, {"amount": 1}, "test")
        order.append("first")
    assert order == ["first", "another"]
    assert await find(database, "amount") == (2, 2, "test")


async def wait_for_a_lock(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    waiting = b"SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'configuration'::regclass"
    with trio.fail_after(5):
        while not await (await connection.execute(waiting)).fetchall():
            await trio.sleep(0.005)


async def test_what_fails_afterwards_takes_it_back(database: Database) -> None:
    await write(database, amount="2.00")
    with pytest.raises(errors.CheckViolation):
        await write(database, amount="9.00", **{"No such name": 1})
    assert await find(database, "amount") == (1, "2.00", "test")
    assert len(await Configuration(database).list_versions("amount", None, 10)) == 1


async def test_nothing_is_no_statement(database: Database) -> None:
    assert await write(database) == {}
    assert await database.as_operator("test").fetch("SELECT key FROM configuration") == []


async def test_a_request_may_read_it_and_not_write_it(database: Database) -> None:
    await write(database, amount="2.00")
    rights = database.as_user(uuid4())
    assert await rights.fetch("SELECT key FROM configuration") == [("amount",)]
    statements: list[LiteralString] = ["UPDATE configuration SET value = '1'", "DELETE FROM configuration"]
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            await rights.fetch(statement)


async def test_a_value_that_was_deleted_by_hand_goes_on_counting_when_it_is_back(
    database: Database, owner_database_url: str
) -> None:
    await write(database, amount=1)
    await write(database, amount=2)
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("DELETE FROM configuration")
    assert (await write(database, amount=3))["amount"].version == 3
    found = await Configuration(database).list_versions("amount", None, 10)
    assert [(version.version, version.value) for version in found] == [(3, 3), (2, 2), (1, 1)]


@pytest.mark.parametrize("value", ["9" * 6000, "[" * 3000 + "]" * 3000])
async def test_what_only_postgresql_can_read_is_told_with_its_key(
    database: Database, owner_database_url: str, value: str
) -> None:
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("INSERT INTO configuration (key, value) VALUES ('amount', %s)", [value])
    configuration = Configuration(database)
    reads = (
        configuration.read_all,
        partial(configuration.read, ["amount"]),
        partial(configuration.find, "amount"),
        partial(configuration.list_versions, "amount", None, 1),
    )
    for read in reads:
        with pytest.raises(ConfigurationUnreadable, match="the value of amount"):
            await read()


async def test_nobody_alters_a_version(database: Database) -> None:
    await write(database, amount="2.00")
    statements: list[LiteralString] = [
        "UPDATE configuration_versions SET value = '1'",
        "DELETE FROM configuration_versions",
        "INSERT INTO configuration_versions VALUES ('amount', 2, '1', 'test', now())",
    ]
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            await database.as_operator("test").fetch(statement)
