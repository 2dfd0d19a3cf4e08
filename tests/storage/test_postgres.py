"""The pool and the rights: who sees what, what stays behind, and what is left after every kind of ending."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

import storage.postgres
from storage.errors import DatabaseUnavailable
from storage.postgres import Database, Rights, open_database
from storage.psycopg_trio import TrioConnection
from tests.storage.test_psycopg_trio import open_connection

ALICE, BOB = UUID(int=1), UUID(int=2)
SIZE = 4

CREATE_NOTES = b"""
    CREATE TABLE notes (id int PRIMARY KEY, user_id uuid NOT NULL, body text NOT NULL DEFAULT '');
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY owned ON notes TO cloche_request
        USING (user_id = nullif(current_setting('app.user_id', true), '')::uuid);
    CREATE POLICY all_for_a_reason ON notes TO cloche_operator USING (current_setting('app.reason', true) <> '');
    GRANT ALL ON notes TO cloche_request, cloche_operator;
"""
INSERT_NOTE = "INSERT INTO notes (id, user_id) VALUES (%s, %s)"
WHO_AM_I = (
    "SELECT current_user::text, coalesce(current_setting('app.user_id', true), ''),"
    " coalesce(current_setting('app.reason', true), '')"
)
COUNT_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cloche' AND datname = current_database()"
)


@pytest.fixture
async def owner(owner_database_url: str) -> AsyncIterator[TrioConnection]:
    async with open_connection(owner_database_url) as connection:
        await connection.send(CREATE_NOTES)
        yield connection


@pytest.fixture
async def database(owner: TrioConnection, database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=SIZE) as database:
            yield database


@pytest.fixture
def alice(database: Database) -> Rights:
    return database.as_user(ALICE)


@pytest.fixture
def operator(database: Database) -> Rights:
    return database.as_operator("test")


async def test_users_see_their_own_rows_and_operators_see_all(database: Database) -> None:
    await database.as_user(ALICE).fetch(INSERT_NOTE, (1, ALICE))
    await database.as_user(BOB).fetch(INSERT_NOTE, (2, BOB))
    assert await database.as_user(ALICE).fetch("SELECT id FROM notes") == [(1,)]
    assert await database.as_operator("audit").fetch("SELECT id FROM notes ORDER BY id") == [(1,), (2,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await database.as_user(ALICE).fetch(INSERT_NOTE, (3, BOB))


async def test_the_rights_are_those_asked_for(database: Database) -> None:
    for rights, expected in (
        (database.as_user(ALICE), ("cloche_request", str(ALICE), "")),
        (database.as_operator("it's \\ 100 %s"), ("cloche_operator", "", "it's \\ 100 %s")),
    ):
        assert await rights.fetch_one(WHO_AM_I) == expected
        async with rights.transaction() as connection:
            assert await (await connection.execute(WHO_AM_I)).fetchone() == expected


async def test_a_superuser_drops_its_powers(owner: TrioConnection, owner_database_url: str) -> None:
    async with open_database(owner_database_url, size=1) as database:
        await database.as_user(ALICE).fetch(INSERT_NOTE, (1, ALICE))
        assert await database.as_user(BOB).fetch("SELECT * FROM notes") == []
        async with database.as_user(BOB).transaction() as connection:
            assert await (await connection.execute("SELECT * FROM notes")).fetchall() == []


async def test_nothing_stays_on_the_connection(owner: TrioConnection, owner_database_url: str) -> None:
    async with open_database(owner_database_url, size=1) as database:
        login_role = (await owner.send(b"SELECT current_user::text"))[0][0]
        for statement in ("SELECT 1", "SELECT 1 / 0", "SELECT pg_sleep(20)"):
            with trio.move_on_after(0.05), suppress(psycopg.errors.DivisionByZero):
                await database.as_user(ALICE).fetch(statement)
            with trio.move_on_after(0.05), suppress(psycopg.errors.DivisionByZero):
                async with database.as_operator("secret").transaction() as connection:
                    await connection.execute(statement)
            async with database._pool.lend() as connection:  # without rights there is no other way in
                assert await connection.send(WHO_AM_I.encode()) == [(login_role, "", "")]


async def test_an_error_leaves_the_connection_in_order(alice: Rights, owner: TrioConnection) -> None:
    await alice.fetch(INSERT_NOTE, (1, ALICE))
    before = await alice.fetch_one("SELECT pg_backend_pid()")
    for _ in range(3):
        with pytest.raises(psycopg.errors.UniqueViolation):
            await alice.fetch(INSERT_NOTE, (1, ALICE))
        with pytest.raises(psycopg.errors.SyntaxError):
            await alice.fetch("SELEKT")
        with pytest.raises(psycopg.ProgrammingError):
            await alice.fetch("SELECT %s", (1, 2))
        assert await alice.fetch_one("SELECT pg_backend_pid()") == before
    assert await owner.send(COUNT_SESSIONS.encode()) == [(1,)]


async def test_a_statement_that_fails_at_its_commit_has_not_happened(alice: Rights, owner: TrioConnection) -> None:
    await owner.send(b"ALTER TABLE notes ADD CONSTRAINT late UNIQUE (body) DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await alice.fetch("INSERT INTO notes SELECT n, %s FROM generate_series(1, 2) AS n RETURNING id", (ALICE,))
    assert await alice.fetch("SELECT id FROM notes") == []


async def test_a_statement_without_rows_returns_none(alice: Rights) -> None:
    assert await alice.fetch(INSERT_NOTE, (1, ALICE)) == []
    assert await alice.fetch_one("SELECT id FROM notes WHERE id = %(id)s", {"id": 9}) is None
    assert await alice.fetch_one("SELECT id FROM notes WHERE id = %(id)s", {"id": 1}) == (1,)


async def test_a_percent_sign_stands_for_itself_without_parameters(alice: Rights) -> None:
    assert await alice.fetch("SELECT 'a' LIKE 'a%'") == [(True,)]
    assert await alice.fetch("SELECT 'a' LIKE 'a%%' AND %s", (True,)) == [(True,)]


VALUES: list[tuple[str, object]] = [
    ("uuid", ALICE),
    ("numeric", Decimal("-0.000001")),
    ("numeric", Decimal("12345678901234567890.123456")),
    ("timestamptz", datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC)),
    ("timestamptz", datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=-8)))),
    ("int", 5),
    ("int", -70_000),
    ("bigint", -(2**63)),
    ("smallint", -(2**15)),
    ("float8", 0.1),
    ("float8", float("inf")),
    ("text", "it's \\ \u2028 \N{BELL} -- %s $1 ;"),
    ("text", ""),
    ("bytea", bytes(range(256))),
    ("bool", True),
    ("bool", False),
    ("text", None),
    ("uuid[]", [ALICE, BOB, None]),
    ("text[]", ['"', "{", "\\", ",", "NULL", ""]),
    ("int[]", [1, 2**31 - 1]),
    ("bytea[]", [b"\0\xff"]),
    ("uuid[]", []),
]


@pytest.mark.parametrize(("type_name", "value"), VALUES)
async def test_values_pass_both_ways_alike(alice: Rights, type_name: str, value: object) -> None:
    statement = f"SELECT %s::{type_name}"
    answer = await alice.fetch_one(statement, (value,))
    assert answer == (value,)
    assert type(answer[0]) is type(value)
    async with alice.transaction() as connection:
        assert repr(await (await connection.execute(statement, (value,))).fetchone()) == repr(answer)


@pytest.mark.parametrize("value", [5, -5, 2**31, 2**63, 1.5, Decimal("1.5"), True, ALICE, b"x", [1], Jsonb({})])
async def test_parameters_have_the_same_type_both_ways(alice: Rights, value: object) -> None:
    statement = "SELECT pg_typeof(%s)::text"
    answer = await alice.fetch_one(statement, (value,))
    async with alice.transaction() as connection:
        assert await (await connection.execute(statement, (value,))).fetchone() == answer


@pytest.mark.parametrize("value", [-5, -(2**40), -(2**70), Decimal("-1.5"), -1.5])
async def test_a_negative_number_can_be_cast(alice: Rights, value: object) -> None:
    assert await alice.fetch("SELECT %s::text, 1 -%s < 0", (value, value)) == [(str(value), False)]


async def test_times_come_back_in_utc(alice: Rights) -> None:
    ((now,),) = await alice.fetch("SELECT now()")
    assert now.tzinfo is UTC


async def test_json_passes_both_ways_alike(alice: Rights) -> None:
    document = {"a": [1, 2.5, None, "it's \\ \"%s\" \u2028"], "b": {}}
    assert await alice.fetch("SELECT %s, %s", (Jsonb(document), Jsonb([]))) == [(document, [])]
    async with alice.transaction() as connection:
        assert await (await connection.execute("SELECT %s", (Jsonb(document),))).fetchone() == (document,)
    with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type 'dict'"):
        await alice.fetch("SELECT %s", (document,))


async def test_arrays_can_be_unnested(alice: Rights) -> None:
    rows = [(1, ALICE, "it's"), (2, ALICE, "{\\}")]
    ids, users, bodies = (list(column) for column in zip(*rows, strict=True))
    statement = "INSERT INTO notes SELECT * FROM unnest(%s::int[], %s::uuid[], %s::text[]) RETURNING id, user_id, body"
    assert await alice.fetch(statement, (ids, users, bodies)) == rows


async def test_a_parameter_is_never_read_as_sql(alice: Rights, owner: TrioConnection) -> None:
    pieces = ["'", '"', "\\", ";", "--", "/*", "$$", "%s", "\n", "é", "😀", "x'; DROP TABLE notes; --", " E'", "\\'"]
    draw = random.Random(3)  # noqa: S311  # no secret
    words = ["".join(draw.choices(pieces, k=draw.randint(1, 8))) for _ in range(300)]
    for encoding in (b"on", b"off"):
        async with alice._pool.lend() as connection:
            await connection.send(b"SET standard_conforming_strings = " + encoding)
        for word in words:
            assert await alice.fetch("SELECT %s::text, %s::bytea", (word, word.encode())) == [(word, word.encode())]
        assert await alice.fetch("SELECT %s::text[]", (words,)) == [(words,)]
    with pytest.raises(psycopg.DataError, match="NUL"):
        await alice.fetch("SELECT %s", ("a\0'; DROP TABLE notes; --",))


async def test_a_transaction_commits_when_its_block_ends_well(alice: Rights) -> None:
    async with alice.transaction() as connection:
        await connection.execute(INSERT_NOTE, (1, ALICE))
        await connection.execute(INSERT_NOTE, (2, ALICE))
    assert await alice.fetch("SELECT count(*) FROM notes") == [(2,)]


async def test_a_transaction_rolls_back_on_an_error_and_when_cancelled(alice: Rights) -> None:
    before = await alice.fetch("SELECT pg_backend_pid()")
    with suppress(ZeroDivisionError):
        async with alice.transaction() as connection:
            await connection.execute(INSERT_NOTE, (1, ALICE))
            raise ZeroDivisionError
    with trio.CancelScope() as scope:
        async with alice.transaction() as connection:
            await connection.execute(INSERT_NOTE, (2, ALICE))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await alice.fetch("SELECT count(*) FROM notes") == [(0,)]
    assert await alice.fetch("SELECT pg_backend_pid()") == before


async def test_a_transaction_whose_block_ended_well_is_committed_though_cancelled(alice: Rights) -> None:
    with trio.CancelScope() as scope:
        async with alice.transaction() as connection:
            await connection.execute(INSERT_NOTE, (1, ALICE))
            scope.cancel()
    assert await alice.fetch("SELECT count(*) FROM notes") == [(1,)]


async def test_a_transaction_that_takes_too_long_is_given_up_and_rolled_back(
    alice: Rights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs keeps no limit of its own."""
    monkeypatch.setattr(storage.postgres, "TRANSACTION_SECONDS", 0.2)

    async def hang() -> None:
        async with alice.transaction() as connection:
            await connection.execute(INSERT_NOTE, (1, ALICE))
            await trio.sleep_forever()

    with trio.fail_after(5), pytest.raises(DatabaseUnavailable, match="did not answer"):
        await hang()
    assert await alice.fetch("SELECT count(*) FROM notes") == [(0,)]


async def test_a_swallowed_error_is_not_mistaken_for_a_commit(alice: Rights) -> None:
    async def swallow() -> None:
        async with alice.transaction() as connection:
            await connection.execute(INSERT_NOTE, (1, ALICE))
            with suppress(psycopg.errors.UniqueViolation):
                await connection.execute(INSERT_NOTE, (1, ALICE))

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        await swallow()
    assert await alice.fetch("SELECT count(*) FROM notes") == [(0,)]


async def test_a_snapshot_sees_one_moment_and_changes_nothing(owner: TrioConnection, alice: Rights) -> None:
    async with alice.snapshot(10) as connection:
        assert await connection.send(b"SELECT count(*) FROM notes") == [(0,)]
        await owner.execute(INSERT_NOTE, (1, ALICE))
        assert await connection.send(b"SELECT count(*) FROM notes") == [(0,)]
    assert await alice.fetch("SELECT count(*) FROM notes") == [(1,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        async with alice.snapshot(10) as connection:
            await connection.execute(INSERT_NOTE, (2, ALICE))


async def test_a_snapshot_has_as_long_as_it_is_given(owner: TrioConnection, alice: Rights) -> None:
    async with alice.snapshot(60) as connection:
        assert await connection.send(b"SELECT current_setting('statement_timeout')") == [("1min",)]
    with pytest.raises(DatabaseUnavailable):
        async with alice.snapshot(0.2) as connection:
            await connection.send(b"SELECT pg_sleep(5)")
    assert await alice.fetch("SELECT current_setting('statement_timeout')") == [("10s",)]


async def test_the_session_is_set_up(alice: Rights) -> None:
    settings: dict[str, Any] = {
        "application_name": "cloche",
        "TimeZone": "UTC",
        "statement_timeout": "10s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "15s",
        "client_encoding": "UTF8",
    }
    for name, value in settings.items():
        assert await alice.fetch("SELECT current_setting(%s)", (name,)) == [(value,)]


async def test_options_in_the_url_win(owner: TrioConnection, database_url: str) -> None:
    url = make_conninfo(database_url, options="-c statement_timeout=7s", application_name="other")
    async with open_database(url, size=1) as database:
        rows = await database.as_user(ALICE).fetch(
            "SELECT current_setting(name)"
            " FROM unnest(ARRAY['statement_timeout', 'application_name', 'TimeZone']) AS name"
        )
    assert rows == [("7s",), ("other",), ("UTC",)]


async def test_notices_of_the_server_are_not_printed(alice: Rights, capfd: pytest.CaptureFixture[str]) -> None:
    await alice.fetch("DO $$ BEGIN RAISE WARNING 'secret'; END $$")
    async with alice.transaction() as connection:
        await connection.execute("DO $$ BEGIN RAISE WARNING 'secret'; END $$")
    assert capfd.readouterr() == ("", "")
