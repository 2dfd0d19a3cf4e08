"""Statements that are planned once for a connection."""

from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
import trio
from psycopg import errors

from storage.accounts import Accounts
from storage.postgres import AS_OPERATOR, Database, Rights, open_database
from storage.prepared import Prepared
from storage.psycopg_trio import TrioConnection

ADD = Prepared("test_add", "SELECT %(left)s + 1::numeric, %(left)s, upper(%(text)s)")
SLEEP = Prepared("test_sleep", "SELECT pg_sleep(%(seconds)s)")
ROLE = Prepared("test_role", "SELECT current_user::text, app_user_id() = %(user_id)s")
COUNT_PREPARED = "SELECT count(*) FROM pg_prepared_statements"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=1) as database:
            yield database


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[TrioConnection]:
    connection = await TrioConnection.connect(database_url)
    yield connection
    connection.close_nowait()


async def test_parameters_come_as_they_are(database: Database) -> None:
    given = {"left": Decimal("1.500000"), "text": "it's; %s $1 \\ 🙂", "unused": 1}
    rows = await database.as_operator("test").fetch_prepared(ADD, given)
    assert rows == [(Decimal("2.500000"), Decimal("1.500000"), "IT'S; %S $1 \\ 🙂")]


async def test_nothing_is_null(database: Database) -> None:
    rows = await database.as_operator("test").fetch_prepared(ADD, {"left": None, "text": None})
    assert rows == [(None, None, None)]


async def test_a_connection_prepares_once(database: Database) -> None:
    operator = database.as_operator("test")
    for number in range(3):
        await operator.fetch_prepared(ADD, {"left": Decimal(number), "text": ""})
    assert await operator.fetch_one(COUNT_PREPARED) == (1,)


async def test_it_runs_with_the_rights_of_who_asks(database: Database) -> None:
    one, other = uuid4(), uuid4()
    for user_id in (one, other):
        assert await database.as_user(user_id).fetch_prepared(ROLE, {"user_id": one}) == [
            ("cloche_request", user_id == one)
        ]
    rows = await database.as_operator("test").fetch_prepared(ROLE, {"user_id": UUID(int=0)})
    assert rows == [("cloche_operator", None)]


async def test_a_cancelled_first_run_does_not_keep_it_from_running_later(connection: TrioConnection) -> None:
    settings = connection.bind(AS_OPERATOR, ["test"])
    with trio.move_on_after(0.2) as scope:
        await SLEEP.run(connection, settings, {"seconds": 30})
    assert scope.cancelled_caught
    connection.prepared.clear()  # as if the answer to the preparation had not been waited for
    assert await SLEEP.run(connection, settings, {"seconds": 0}) == [("",)]
    assert await SLEEP.run(connection, settings, {"seconds": 0}) == [("",)]


async def test_behind_a_pooler_that_changes_sessions_it_runs_unprepared(connection: TrioConnection) -> None:
    settings = connection.bind(AS_OPERATOR, ["test"])
    for _ in range(2):
        await ADD.run(connection, settings, {"left": Decimal(1), "text": "a"})
        await connection.send(b"DEALLOCATE ALL")
    assert await ADD.run(connection, settings, {"left": Decimal(1), "text": "a"}) == [(2, 1, "A")]


async def test_a_session_that_another_version_of_us_has_used_runs_our_statement(connection: TrioConnection) -> None:
    settings = connection.bind(AS_OPERATOR, ["test"])
    ours = Prepared("test_same_name", "SELECT 'ours', %(value)s::int")
    theirs = Prepared("test_same_name", "SELECT 'theirs', %(value)s::int")
    await theirs.run(connection, settings, {"value": 1})
    connection.prepared.clear()  # it was another connection to the pooler
    assert await ours.run(connection, settings, {"value": 2}) == [("ours", 2)]


async def test_a_table_that_changes_while_we_run_does_not_stop_its_statements(
    database: Database, owner_database_url: str
) -> None:
    read = Prepared("test_read", "WITH found AS (SELECT * FROM users) SELECT email, %(value)s::int FROM found")
    operator = database.as_operator("test")
    await Accounts(database).make_user("ann@example.com")
    for value in range(7):  # so often that it is planned for all values
        assert await operator.fetch_prepared(read, {"value": value}) == [("ann@example.com", value)]
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("ALTER TABLE users ADD COLUMN later integer, DROP COLUMN updated_at")
    assert await operator.fetch_prepared(read, {"value": 7}) == [("ann@example.com", 7)]


async def test_an_error_is_that_of_the_statement(connection: TrioConnection) -> None:
    divide = Prepared("test_divide", "SELECT 1 / %(by)s::int")
    settings = connection.bind(AS_OPERATOR, ["test"])
    with pytest.raises(errors.DivisionByZero):
        await divide.run(connection, settings, {"by": 0})
    assert await divide.run(connection, settings, {"by": 1}) == [(1,)]


async def test_a_statement_sees_what_was_done_while_it_waited_for_the_lock_that_comes_first(database_url: str) -> None:
    lock = Prepared("test_lock", "SELECT FROM users WHERE id = %(id)s FOR NO KEY UPDATE")
    count = Prepared("test_count_devices", "SELECT count(*) FROM devices WHERE user_id = %(id)s", first=lock)
    counted: list[tuple[object, ...]] = []

    async def count_devices(operator: Rights, user_id: UUID) -> None:
        counted.extend(await operator.fetch_prepared(count, {"id": user_id}))

    with trio.fail_after(60):
        async with open_database(database_url, size=3) as database, trio.open_nursery() as nursery:
            user, operator = await Accounts(database).make_user("ann@example.com"), database.as_operator("test")
            await count_devices(operator, user.id)
            async with operator.transaction() as connection:
                await connection.send(connection.bind(lock.statement, {"id": user.id}))
                nursery.start_soon(count_devices, operator, user.id)
                await wait_until_somebody_waits(operator)
                await connection.send(b"INSERT INTO devices SELECT id, gen_random_uuid() FROM users")
    assert counted == [(0,), (1,)]


async def wait_until_somebody_waits(operator: Rights) -> None:
    while not await operator.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"):
        await trio.sleep(0.01)
