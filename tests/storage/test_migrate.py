"""Migrations: in order, once, alone, and without a trace of one that failed."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql

import storage.migrate
from storage.embedded import EmbeddedServers
from storage.migrate import Migration, MigrationsDisagree, SchemaOutdated, check_schema, migrate, read_migrations
from storage.postgres import open_database
from tests.conftest import with_database
from tests.storage.calls import make_user

BROKEN = Migration(9999, "9999_broken", "CREATE TABLE half (); SELECT 1/0;")


@pytest.fixture
def empty_name(servers: EmbeddedServers) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(servers.owner_database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_url(servers: EmbeddedServers, empty_name: str) -> str:
    """As the owner of a database in which there is nothing."""
    return with_database(servers.owner_database_url, empty_name)


def fetch(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def add_migration(monkeypatch: pytest.MonkeyPatch, migration: Migration) -> None:
    monkeypatch.setattr(storage.migrate, "read_migrations", lambda: [*read_migrations(), migration])


def test_the_files_are_numbered_without_gaps() -> None:
    migrations = read_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", migration.name) for migration in migrations)


def test_all_are_applied_in_order_and_only_once(empty_url: str) -> None:
    names = [migration.name for migration in read_migrations()]
    assert migrate(empty_url) == names
    assert migrate(empty_url) == []
    recorded = fetch(empty_url, "SELECT version, name, sha256 FROM schema_migrations ORDER BY applied_at")
    assert recorded == [(one.version, one.name, one.sha256) for one in read_migrations()]


def test_from_two_places_at_once_each_is_applied_once(empty_url: str) -> None:
    with ThreadPoolExecutor() as pool:
        applied = list(pool.map(migrate, [empty_url] * 3))
    assert sorted(applied) == [[], [], [migration.name for migration in read_migrations()]]


def test_a_file_that_changed_after_it_was_applied_is_refused(owner_database_url: str) -> None:
    with psycopg.connect(owner_database_url) as connection:
        connection.execute("UPDATE schema_migrations SET sha256 = 'another' WHERE version = 2")
    with pytest.raises(MigrationsDisagree, match="0002_catalogue"):
        migrate(owner_database_url)


def test_one_that_fails_leaves_nothing_and_blocks_nobody(
    owner_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_migration(monkeypatch, BROKEN)
    with pytest.raises(errors.DivisionByZero):
        migrate(owner_database_url)
    assert fetch(owner_database_url, "SELECT to_regclass('half')") == [(None,)]
    assert fetch(owner_database_url, "SELECT max(version) FROM schema_migrations") == [(len(read_migrations()),)]
    monkeypatch.undo()
    assert migrate(owner_database_url) == []


def test_usage_from_before_there_were_more_buckets_is_kept(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.migrate, "read_migrations", lambda: read_migrations()[:3])
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO users (email) VALUES ('a@example.com')")
        connection.execute(
            "INSERT INTO usage SELECT gen_random_uuid(), id, 'm', 'openai', 'general', 'completed', false,"
            " 5, 4, 3, 2, 1, 0.5, now() FROM users"
        )
    monkeypatch.undo()
    migrate(empty_url)
    columns = "input_tokens, reasoning_tokens, cache_write_1h_tokens, input_audio_tokens, output_image_tokens, searches"
    assert fetch(empty_url, f"SELECT {columns} FROM usage") == [(5, 1, 0, 0, 0, 0)]  # noqa: S608 - our own columns


async def test_an_owner_who_is_no_superuser_is_enough(
    servers: EmbeddedServers, empty_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies bind the owner as well: the triggers that act as it have to have some of their own, and so do
    migrations that read rows. As whoever has made the roles, it may grant them and does not inherit what they may do.
    """
    role = f"owner_{uuid4().hex}"
    with psycopg.connect(with_database(servers.owner_database_url, empty_name), autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN CREATEROLE".encode())
        superuser.execute(f"GRANT cloche_request, cloche_operator TO {role} WITH ADMIN TRUE, INHERIT FALSE".encode())
        superuser.execute(f"ALTER DATABASE {empty_name} OWNER TO {role}".encode())
        try:
            url = with_database(servers.owner_database_url, empty_name).replace("cloche_owner@", f"{role}@")
            monkeypatch.setattr(storage.migrate, "read_migrations", lambda: read_migrations()[:7])
            migrate(url)
            superuser.execute("INSERT INTO users (email) VALUES ('from.before@example.com')")
            monkeypatch.undo()
            migrate(url)
            assert superuser.execute("SELECT balance_usd FROM credit_balances").fetchall() == [(0,)]
            async with open_database(with_database(servers.database_url, empty_name), size=1) as database:
                user_id = await make_user(database, "10")
                rows = await database.as_user(user_id).fetch("SELECT balance_usd::text FROM credit_balances")
                operator = database.as_operator("test")
                await operator.fetch("INSERT INTO identities VALUES ('i', 's', %s, NULL, false)", [user_id])
                await operator.fetch("INSERT INTO user_aliases VALUES (gen_random_uuid(), %s)", [user_id])
                await operator.fetch("DELETE FROM users")
                tombstones = await operator.fetch("SELECT split_part(reference, ':', 1) FROM deleted_accounts")
            assert rows == [("10.000000",)]
            assert sorted(tombstones) == [("subject",), ("user",), ("user",), ("user",)]
        finally:
            superuser.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            superuser.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER".encode())
            superuser.execute(f"DROP OWNED BY {role} CASCADE".encode())
            superuser.execute(f"DROP ROLE {role}".encode())


async def test_an_empty_database_is_refused_with_what_to_do(servers: EmbeddedServers, empty_name: str) -> None:
    needed = len(read_migrations())
    message = f"has schema version 0, this code needs {needed}: run `python -m scripts.migrate`"
    async with open_database(with_database(servers.database_url, empty_name), size=1) as database:
        with pytest.raises(SchemaOutdated, match=re.escape(message)):
            await check_schema(database)


async def test_a_database_that_lacks_the_last_one_is_refused(
    owner_database_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(database_url, size=1) as database:
        await check_schema(database)
        add_migration(monkeypatch, Migration(len(read_migrations()) + 1, "x", ""))
        with pytest.raises(SchemaOutdated):
            await check_schema(database)


async def test_a_database_that_is_ahead_is_accepted(owner_database_url: str, database_url: str) -> None:
    """So that the new code's migrations can be applied while the old code still serves."""
    with psycopg.connect(owner_database_url) as connection:
        connection.execute("INSERT INTO schema_migrations (version, name, sha256) VALUES (9999, 'x', 'x')")
    async with open_database(database_url, size=1) as database:
        await check_schema(database)
