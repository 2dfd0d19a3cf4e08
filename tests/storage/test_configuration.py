"""The configuration: values that are read as they stand now, and written with what else their transaction does."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import LiteralString
from uuid import uuid4

import pytest
from psycopg import errors

from storage.configuration import Configuration, write_configuration
from storage.postgres import Database, open_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


async def write(database: Database, **values: object) -> None:
    async with database.as_operator("test").transaction() as connection:
        await write_configuration(connection, values)


async def test_what_was_written_is_read_with_its_type(database: Database) -> None:
    values = {"text": "2.00", "number": 180, "fraction": 0.1, "nothing": None, "list": [{"max": None, "é": "\\"}]}
    await write(database, **values)
    assert await Configuration(database).read(list(values)) == values


async def test_only_what_is_asked_for_and_there_is_told(database: Database) -> None:
    await write(database, one=1, two=2)
    assert await Configuration(database).read(["two", "three"]) == {"two": 2}
    assert await Configuration(database).read([]) == {}


async def test_a_later_value_replaces_an_earlier_one_at_once(database: Database) -> None:
    configuration = Configuration(database)
    for value in ("2.00", Decimal("3.50")):
        await write(database, amount=value)
        assert await configuration.read(["amount"]) == {"amount": str(value)}
    rows = await database.as_operator("test").fetch("SELECT updated_at > now() - interval '1 hour' FROM configuration")
    assert rows == [(True,)]


async def test_what_fails_afterwards_takes_it_back(database: Database) -> None:
    await write(database, amount="2.00")
    with pytest.raises(errors.CheckViolation):
        await write(database, amount="9.00", **{"No such name": 1})
    assert await Configuration(database).read(["amount"]) == {"amount": "2.00"}


async def test_nothing_is_no_statement(database: Database) -> None:
    await write(database)
    assert await database.as_operator("test").fetch("SELECT key FROM configuration") == []


async def test_a_request_may_read_it_and_not_write_it(database: Database) -> None:
    await write(database, amount="2.00")
    rights = database.as_user(uuid4())
    assert await rights.fetch("SELECT key FROM configuration") == [("amount",)]
    statements: list[LiteralString] = ["UPDATE configuration SET value = '1'", "DELETE FROM configuration"]
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            await rights.fetch(statement)
