"""`python -m scripts.migrate`, as an operator types it."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from storage.embedded import EmbeddedServers
from storage.migrate import read_migrations
from tests.conftest import with_database
from tests.scripts.commands import run_command


@pytest.fixture
def empty_url(servers: EmbeddedServers) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(servers.owner_database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield with_database(servers.owner_database_url, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_it_names_what_it_applies_and_has_nothing_to_do_afterwards(empty_url: str) -> None:
    first = run_command("migrate", environment={"DATABASE_OWNER_URL": empty_url, "DATABASE_URL": "postgresql:///x"})
    assert (first.status, first.errors) == (0, "")
    assert first.output.splitlines() == [f"applied {migration.name}" for migration in read_migrations()]
    assert run_command("migrate", environment={"DATABASE_URL": empty_url}).output == "nothing to do\n"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "DATABASE_OWNER_URL (or DATABASE_URL) is missing"),
        ({"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}, "the database could not be migrated: "),
        ({"DATABASE_URL": "postgres//x:hunter2@y/z"}, "the database could not be migrated: DATABASE_OWNER_URL (or"),
    ],
)
def test_what_is_wrong_is_one_sentence(environment: dict[str, str], message: str) -> None:
    done = run_command("migrate", environment=environment)
    assert (done.status, done.output) == (1, "")
    assert done.errors.startswith(message)
    assert "Traceback" not in done.errors
    assert "hunter2" not in done.errors


def test_a_changed_file_is_told(owner_database_url: str) -> None:
    with psycopg.connect(owner_database_url) as connection:
        connection.execute("UPDATE schema_migrations SET sha256 = 'x' WHERE version = 1")
    done = run_command("migrate", environment={"DATABASE_URL": owner_database_url})
    assert done.status == 1
    assert "0001_accounts was applied to this database from another text" in done.errors
