"""The audit log: one chain, however many write and whatever becomes of them; rows that nobody can take back."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import trio
from psycopg import errors

from storage.audit import EPOCH, AuditEntry, AuditLog, AuditNotWritten, write_epoch
from storage.audit_verify import Report, verify_audit_log
from storage.errors import DatabaseUnavailable
from storage.postgres import Database, open_database
from tests.storage.audit_writer import ENTRY, SECRET, append_many

Query = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=2) as database:
            yield database


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database, "eu", SECRET)


@pytest.fixture
def query(owner_database_url: str) -> Iterator[Query]:
    """As the superuser."""
    with psycopg.connect(owner_database_url, autocommit=True) as connection:

        def run(statement: str, *parameters: object) -> list[tuple[object, ...]]:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

        yield run


async def verify(database: Database) -> list[Report]:
    reports = await verify_audit_log(database, [SECRET])
    assert [report.problems for report in reports] == [[]] * len(reports)
    return reports


# What a row holds


async def test_a_row_holds_what_was_told(log: AuditLog, database: Database) -> None:
    entry = AuditEntry(
        "sign_in",
        "success",
        "user:5",
        UUID(int=5),
        "login",
        "7",
        address="::1",
        user_agent="Mozilla/5.0",
        request_id="r-1",
        details={"b": [1, None, {"c": True}], "a": "é"},
    )
    before = datetime.now(UTC)
    await log.record(entry)
    (row,) = await log.find_latest(None, None, 10)
    assert (row.region, row.sequence, row.entry) == ("eu", 1, entry)
    assert before - timedelta(seconds=1) < row.at < before + timedelta(seconds=30)
    await verify(database)


async def test_an_effect_and_its_row_are_one_transaction(log: AuditLog, database: Database, query: Query) -> None:
    with suppress(ZeroDivisionError):
        async with database.as_operator("test").transaction() as connection:
            await connection.execute("INSERT INTO users (email) VALUES ('ann@example.com')")
            await log.append(connection, ENTRY)
            raise ZeroDivisionError
    assert query("SELECT FROM users UNION ALL SELECT FROM audit_log UNION ALL SELECT FROM audit_heads") == []
    async with database.as_operator("test").transaction() as connection:
        await connection.execute("INSERT INTO users (email) VALUES ('ann@example.com')")
        await log.append(connection, ENTRY)
    assert query("SELECT count(*) FROM users") == query("SELECT count(*) FROM audit_log") == [(1,)]


async def test_one_transaction_may_tell_two_things(log: AuditLog, database: Database) -> None:
    async with database.as_operator("test").transaction() as connection:
        await log.append(connection, ENTRY)
        await log.append(connection, ENTRY)
    assert [report.row_count for report in await verify(database)] == [2]


async def test_a_region_has_a_chain_of_its_own(log: AuditLog, database: Database) -> None:
    for region in ("us", "eu", "us"):
        await AuditLog(database, region, SECRET).record(ENTRY)
    assert [(report.region, report.row_count) for report in await verify(database)] == [("eu", 1), ("us", 2)]


async def test_time_never_goes_back_along_the_chain(log: AuditLog, database: Database, query: Query) -> None:
    await log.record(ENTRY)
    query("ALTER TABLE audit_heads DISABLE TRIGGER USER")
    ((ahead,),) = query("UPDATE audit_heads SET at = now() + interval '1 hour' RETURNING at")
    await log.record(ENTRY)
    await log.record(ENTRY)
    assert [row.at for row in await log.find_latest(None, None, 2)] == [ahead, ahead]
    await verify(database)


@pytest.mark.parametrize(
    "text", ["a\x00b", "a\ud800b", "\udfff", "'; DROP TABLE audit_log; --", "%s %(x)s", "\\x00", "é" * 900]
)
async def test_what_clients_write_breaks_nothing(log: AuditLog, database: Database, text: str) -> None:
    details = {text: text, "list": [text, {text: 1.5}], "big": 10**30, "id": UUID(int=1)}
    await log.record(AuditEntry("a", "refused", text, None, text, text, text, text, text, details))
    await verify(database)
    (row,) = await log.find_latest(None, None, 1)
    assert len(row.entry.user_agent) <= 200
    assert row.entry.details["big"] == str(10**30)
    assert row.entry.details["id"] == str(UUID(int=1))


async def test_a_status_that_is_none_is_told_as_a_storage_error(log: AuditLog, database: Database) -> None:
    with pytest.raises(AuditNotWritten):
        await log.record(AuditEntry("a", "unheard-of", "system"))  # type: ignore[arg-type] # what is tested
    await log.record(ENTRY)
    await verify(database)


def test_the_secret_shows_in_no_repr(database_url: str) -> None:
    assert SECRET not in repr(AuditLog(None, "eu", SECRET))  # type: ignore[arg-type] # not asked


async def test_rows_are_found_by_user_and_by_action(log: AuditLog) -> None:
    ann, bob = uuid4(), uuid4()
    await log.record(AuditEntry("sign_in", "success", f"user:{ann}", ann))
    await log.record(AuditEntry("sign_in", "success", f"user:{bob}", bob))
    await log.record(AuditEntry("user_deleted", "success", f"user:{bob}", ann))
    assert [row.sequence for row in await log.find_latest(ann, None, 9)] == [1, 3]
    assert [row.sequence for row in await log.find_latest(bob, None, 9)] == [2, 3]
    assert [row.sequence for row in await log.find_latest(bob, "sign_in", 9)] == [2]
    assert [row.sequence for row in await log.find_latest(None, None, 2)] == [2, 3]


@pytest.mark.parametrize("microseconds", [0, 1, 999_999, 1_000_000, 1_795_418_418_783_434, 253_402_300_799_999_999])
def test_times_are_written_as_postgresql_writes_them(query: Query, microseconds: int) -> None:
    at = EPOCH + timedelta(microseconds=microseconds)
    assert query("SELECT extract(epoch FROM %s::timestamptz)::text", at) == [(write_epoch(at),)]


# Many writers


async def test_many_writers_never_fork_the_chain(database_url: str, database: Database, query: Query) -> None:
    """Eight tasks on four pools; every fifth append is rolled back, and one connection killed while it has the lock."""
    counts: list[int] = []

    async def write(pool: Database, number: int) -> None:
        counts.append(await append_many(AuditLog(pool, "eu", SECRET), 25, number))

    async def kill_one() -> None:
        with suppress(DatabaseUnavailable):
            async with database.as_operator("test").transaction() as connection:
                await AuditLog(database, "eu", SECRET).append(connection, ENTRY)
                query("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
                await connection.execute("SELECT 1")
            raise AssertionError("the connection lives")

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        pools = [await stack.enter_async_context(open_database(database_url, size=2)) for _ in range(4)]
        for number in range(8):
            nursery.start_soon(write, pools[number % 4], number)
        nursery.start_soon(kill_one)
    assert counts == [20] * 8
    assert query("SELECT min(sequence), max(sequence), count(*), count(DISTINCT seal) FROM audit_log") == [
        (1, 160, 160, 160)
    ]
    assert query("SELECT FROM audit_log AS a JOIN audit_log AS b ON b.sequence = a.sequence + 1 AND b.at < a.at") == []
    await verify(database)


async def test_processes_write_one_chain(database_url: str, database: Database) -> None:
    command = [sys.executable, "-m", "tests.storage.audit_writer", database_url, "30"]
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(trio.run_process, command)
        await append_many(AuditLog(database, "eu", SECRET), 30, 0)
    assert [report.row_count for report in await verify(database)] == [3 * 24]


async def test_a_writer_that_is_cancelled_lets_the_others_go_on(log: AuditLog, database: Database) -> None:
    async with database.as_operator("test").transaction() as connection:
        await log.append(connection, ENTRY)
        with trio.move_on_after(0.05) as scope:
            await log.record(ENTRY)
        assert scope.cancelled_caught
    await log.record(ENTRY)
    assert [report.row_count for report in await verify(database)] == [2]


# Nobody takes back


@pytest.mark.parametrize("role", ["cloche_operator", "cloche_request"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET action = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM audit_heads",
        "TRUNCATE audit_heads",
        "UPDATE audit_heads SET region = 'us'",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "SET LOCAL session_replication_role = replica",
        "DROP TABLE audit_log",
    ],
)
async def test_no_role_of_the_server_may(log: AuditLog, database_url: str, role: str, statement: str) -> None:
    await log.record(ENTRY)
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('role', %s, true)", [role])
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    ["SELECT FROM audit_log", "SELECT FROM audit_heads", "INSERT INTO audit_heads (region) VALUES ('us')"],
)
async def test_a_request_does_not_even_see_it(log: AuditLog, database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('role', 'cloche_request', true)")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET action = 'x'",
        "UPDATE audit_log SET action = action WHERE false",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM audit_heads",
        "TRUNCATE audit_heads",
        "UPDATE audit_heads SET sequence = sequence - 1",
        "UPDATE audit_heads SET seal = decode(repeat('11', 32), 'hex')",
        "UPDATE audit_heads SET sequence = sequence + 1, region = 'us'",
        "UPDATE audit_heads SET sequence = sequence + 1, at = at - interval '1 second'",
    ],
)
async def test_not_even_the_owner_rewrites_it(log: AuditLog, query: Query, statement: str) -> None:
    await log.record(ENTRY)
    with pytest.raises(errors.RaiseException, match="append-only"):
        query(statement)


async def test_the_operator_moves_the_head_only_forward(log: AuditLog, database: Database) -> None:
    await log.record(ENTRY)
    for sequence in (0, 1, 3):
        with pytest.raises(errors.RaiseException, match="append-only"):
            await database.as_operator("test").fetch("UPDATE audit_heads SET sequence = %s", (sequence,))


async def test_a_deleted_account_leaves_its_rows(log: AuditLog, database: Database, query: Query) -> None:
    ((user_id,),) = query("INSERT INTO users (email) VALUES ('ann@example.com') RETURNING id")
    assert isinstance(user_id, UUID)
    await log.record(AuditEntry("sign_in", "success", f"user:{user_id}", user_id))
    query("DELETE FROM users")
    assert [row.entry.subject_id for row in await log.find_latest(user_id, None, 9)] == [user_id]
    await verify(database)


async def test_how_many_rows_a_process_appends_in_a_second(log: AuditLog) -> None:
    started = time.perf_counter()
    for _ in range(100):
        await log.record(ENTRY)
    seconds = time.perf_counter() - started
    print(f"{100 / seconds:.0f} rows a second, one after the other")
    assert seconds < 30
