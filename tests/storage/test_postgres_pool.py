"""The pool of `storage/postgres.py`: no slot is ever lost, whatever is cancelled, killed, cut off or closed."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import psycopg
import pytest
import trio
import trio.testing
from psycopg.conninfo import make_conninfo

from storage.errors import DatabaseUnavailable
from storage.postgres import Database, Rights, open_database
from storage.psycopg_trio import TrioConnection
from tests.storage.test_postgres import ALICE, COUNT_SESSIONS, SIZE
from tests.storage.test_psycopg_trio import open_connection, open_relay, takes_at_most, wait_running


@pytest.fixture
async def owner(owner_database_url: str) -> AsyncIterator[TrioConnection]:
    async with open_connection(owner_database_url) as connection:
        yield connection


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=SIZE) as database:
            yield database


@pytest.fixture
def alice(database: Database) -> Rights:
    return database.as_user(ALICE)


async def lends_all_at_once(database: Database) -> bool:
    """Every slot is there: that many transactions are open at the same time."""
    arrived, leave = 0, trio.Event()

    async def hold() -> None:
        nonlocal arrived
        async with database.as_user(ALICE).transaction() as connection:
            await connection.execute("SELECT 1")
            arrived += 1
            if arrived == SIZE:
                leave.set()
            await leave.wait()

    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(SIZE):
                nursery.start_soon(hold)
    return arrived == SIZE


async def terminate_all(owner: TrioConnection) -> None:
    await owner.send(
        b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        b" WHERE application_name = 'cloche' AND datname = current_database()"
    )


async def test_no_slot_is_lost_in_a_storm_of_cancels(database: Database, owner: TrioConnection) -> None:
    draw = random.Random(7)  # noqa: S311  # no secret

    async def ask(number: int) -> None:
        rights = database.as_user(UUID(int=number))
        with trio.move_on_after(draw.choice([0, 0.0005, 0.002, 0.01, 0.03]) * draw.random() * 2):
            if draw.random() < 0.5:
                answer = await rights.fetch("SELECT %s::int, pg_sleep(%s)", (number, draw.random() / 500))
                assert answer == [(number, "")]
            else:
                async with rights.transaction() as connection:
                    row = await (await connection.execute("SELECT %s::int", (number,))).fetchone()
                    assert row == (number,)
                    await connection.execute("SELECT pg_sleep(0.001)")

    for _ in range(10):
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask, number)
    assert await lends_all_at_once(database)
    ((sessions,),) = await owner.send(COUNT_SESSIONS.encode())
    assert sessions <= SIZE


async def test_no_slot_is_lost_while_connections_are_made_and_killed(database: Database, owner: TrioConnection) -> None:
    draw = random.Random(11)  # noqa: S311  # no secret

    async def ask() -> None:
        with trio.move_on_after(draw.random() / 50), suppress(DatabaseUnavailable):
            await database.as_user(ALICE).fetch("SELECT pg_sleep(0.001)")

    for _ in range(15):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            nursery.start_soon(terminate_all, owner)
    await database.check()
    assert await lends_all_at_once(database)


async def test_answers_are_never_mixed_up(database: Database, owner: TrioConnection) -> None:
    async def ask(number: int) -> None:
        rights = database.as_user(UUID(int=number))
        for attempt in range(40):
            row = await rights.fetch_one("SELECT %s::int, %s::int, current_setting('app.user_id')", (number, attempt))
            assert row == (number, attempt, str(UUID(int=number)))

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(ask, number)
    assert await owner.send(COUNT_SESSIONS.encode()) == [(SIZE,)]


async def test_connections_are_made_as_needed(alice: Rights, owner: TrioConnection) -> None:
    for _ in range(10):
        await alice.fetch("SELECT 1")
    assert await owner.send(COUNT_SESSIONS.encode()) == [(1,)]


async def test_the_connection_that_came_back_last_is_lent_first(database: Database, alice: Rights) -> None:
    assert await lends_all_at_once(database)
    assert len({(await alice.fetch("SELECT pg_backend_pid()"))[0] for _ in range(10)}) == 1


async def test_a_connection_that_cannot_be_put_in_order_is_not_lent_again(
    alice: Rights, owner: TrioConnection
) -> None:
    await owner.send(b"CREATE TABLE copied (number int); GRANT ALL ON copied TO cloche_request")
    with trio.CancelScope() as scope:
        async with alice.transaction() as connection, connection.cursor().copy("COPY copied FROM STDIN") as copy:
            await copy.write_row((1,))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await alice.fetch("SELECT * FROM copied") == []


async def test_waiting_for_a_slot_is_fair_and_can_be_cancelled(owner: TrioConnection, database_url: str) -> None:
    served: list[int] = []
    async with open_database(database_url, size=1) as database, trio.open_nursery() as nursery:
        alice = database.as_user(ALICE)

        async def ask(number: int) -> None:
            await alice.fetch("SELECT 1")
            served.append(number)

        async with alice.transaction():
            for number in range(5):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.01) as scope:
                await alice.fetch("SELECT 1")
            assert scope.cancelled_caught
        await alice.fetch("SELECT 1")
        assert served == [0, 1, 2, 3, 4]


async def test_connections_that_died_idle_are_replaced_before_lending(
    database: Database, owner: TrioConnection
) -> None:
    assert await lends_all_at_once(database)
    for _ in range(3):
        await terminate_all(owner)
        await database.check()
        assert await lends_all_at_once(database)


async def test_a_connection_lost_in_mid_statement_is_database_unavailable(
    alice: Rights, owner: TrioConnection
) -> None:
    async def lose() -> None:
        with pytest.raises(DatabaseUnavailable):
            await alice.fetch("SELECT pg_sleep(20)")

    async def lose_in_transaction() -> None:
        with pytest.raises(DatabaseUnavailable):
            async with alice.transaction() as connection:
                await connection.execute("SELECT pg_sleep(20)")

    for task in (lose, lose_in_transaction):
        ((pid,),) = await alice.fetch("SELECT pg_backend_pid()")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            await wait_running(owner, pid)
            await terminate_all(owner)
        assert await alice.fetch("SELECT 1") == [(1,)]


async def test_errors_of_a_statement_pass_through(owner: TrioConnection, database_url: str) -> None:
    async with open_database(database_url, size=1) as database:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await database.as_user(ALICE).fetch("SELECT 1 / 0")


async def test_a_statement_that_got_no_time_is_the_databases_fault(owner: TrioConnection, database_url: str) -> None:
    async with open_database(make_conninfo(database_url, options="-c statement_timeout=20ms"), size=1) as database:
        alice = database.as_user(ALICE)
        with pytest.raises(DatabaseUnavailable) as caught:
            await alice.fetch("SELECT pg_sleep(5)")
        assert isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)
        async with alice.transaction() as connection:
            with pytest.raises(psycopg.errors.QueryCanceled):
                async with connection.transaction():
                    await connection.execute("SELECT pg_sleep(5)")


async def test_an_outage_heals_without_a_restart(owner: TrioConnection, database_url: str) -> None:
    async with open_relay(database_url) as relay, open_database(relay.url, size=2) as database:
        for _ in range(2):
            relay.refuse()
            relay.cut()
            for _ in range(3):
                with takes_at_most(1), pytest.raises(DatabaseUnavailable):
                    await database.as_user(ALICE).fetch("SELECT 1")
                with pytest.raises(DatabaseUnavailable):
                    await database.check()
            await relay.listen()
            assert await database.as_user(ALICE).fetch("SELECT 1") == [(1,)]


async def test_leaving_closes_all_connections(owner: TrioConnection, database_url: str) -> None:
    async with open_database(database_url, size=SIZE) as database:
        assert await lends_all_at_once(database)
    with trio.fail_after(5):
        await owner.send(
            b"DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cloche' AND datname ="
            b" current_database()) LOOP PERFORM pg_sleep(0.002), pg_stat_clear_snapshot(); END LOOP; END $$"
        )
    with pytest.raises(DatabaseUnavailable, match="was closed"):
        await database.check()


async def test_leaving_does_not_wait_for_ever_for_a_connection_that_is_not_returned(
    owner: TrioConnection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.postgres.CLOSE_SECONDS", 0.1)

    arrived = trio.Event()

    async def keep(rights: Rights) -> None:
        async with rights.transaction() as connection:
            arrived.set()
            await connection.execute("SELECT pg_sleep(20)")

    async def expect_broken(rights: Rights) -> None:
        with pytest.raises(DatabaseUnavailable):
            await keep(rights)

    opened = AsyncExitStack()
    database = await opened.enter_async_context(open_database(database_url, size=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, database.as_user(ALICE))
        await arrived.wait()
        with takes_at_most(3):
            await opened.aclose()


async def test_an_unreachable_database_says_what_to_check_and_no_password(database_url: str) -> None:
    async with open_relay(database_url) as relay:
        relay.refuse()
        urls = (make_conninfo(relay.url, password="open sesame"), "postgresql://a:open sesame@[/b", "open sesame")
    for url in urls:
        with pytest.raises(DatabaseUnavailable, match="DATABASE_URL") as caught:
            async with open_database(url, size=1):
                pytest.fail("nobody is there")
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "sesame" not in repr(chain)
            chain = chain.__cause__
        assert caught.value.__suppress_context__
