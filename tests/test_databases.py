"""A database that is lent again is like the template, whatever was done to it."""

from collections.abc import Mapping

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from storage.embedded import EmbeddedServers
from tests.databases import Databases, Marks, read_definitions, read_marks, read_sequences


def do(servers: EmbeddedServers, name: str, statement: str) -> None:
    with psycopg.connect(make_conninfo(servers.owner_database_url, dbname=name)) as connection:
        connection.execute(statement.encode())


def look(servers: EmbeddedServers, name: str) -> tuple[Marks, Mapping[str, int], object, object]:
    """Definitions, rows of every table, the sequences, and the models to the letter."""
    with psycopg.connect(make_conninfo(servers.owner_database_url, dbname=name)) as connection:
        rows = {table: mark.rows for table, mark in read_marks(connection).items()}
        models = connection.execute("SELECT md5(string_agg(models::text, '' ORDER BY id)) FROM models").fetchone()
        return read_definitions(connection), rows, read_sequences(connection), models


ROWS = [
    "INSERT INTO users (email) VALUES ('ann@example.com')",
    "UPDATE models SET name = 'Another'",
    "DELETE FROM model_mappings",
    "INSERT INTO providers (code, name) VALUES ('new', 'New')",
    "INSERT INTO reconciliations (figures) VALUES ('{}')",
    "SELECT setval('credit_ledger_id_seq', 7)",
    """
    INSERT INTO users (id, email) VALUES ('018f0000-0000-7000-8000-000000000001', 'ann@example.com');
    INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, description)
    VALUES ('018f0000-0000-7000-8000-000000000001', 'grant', 5, 'once', 'test')
    """,
]

DEFINITIONS = [
    "CREATE TABLE another (id int)",
    "ALTER TABLE credit_ledger DISABLE TRIGGER ALL",
    "CREATE OR REPLACE FUNCTION another() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "REVOKE UPDATE ON credit_balances FROM cloche_operator",
    "TRUNCATE models CASCADE",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
    "INSERT INTO users (email) SELECT g || repeat('x', 200) || '@example.com' FROM generate_series(1, 9000) AS g",
]


@pytest.mark.parametrize("statement", ROWS)
def test_rows_that_were_written_are_as_they_were(
    servers: EmbeddedServers, template: str, databases: Databases, statement: str
) -> None:
    for _ in range(2):  # what was restored once is told from what is written to again
        with databases.lend() as name:
            assert look(servers, name) == look(servers, template)
            do(servers, name, statement)
            assert look(servers, name) != look(servers, template)
    with databases.lend() as again:
        assert again == name
        assert look(servers, again) == look(servers, template)


@pytest.mark.parametrize("statement", DEFINITIONS)
def test_a_database_that_cannot_be_as_it_was_is_dropped(
    servers: EmbeddedServers, databases: Databases, statement: str
) -> None:
    with databases.lend() as name:
        do(servers, name, statement)
    with databases.lend() as another:
        assert another != name
    gone = "SELECT FROM pg_database WHERE datname = %s"
    with psycopg.connect(servers.owner_database_url) as connection:
        assert connection.execute(gone, [name]).fetchone() is None


def test_a_database_that_admits_nobody_any_more_is_dropped(servers: EmbeddedServers, databases: Databases) -> None:
    with databases.lend() as name, psycopg.connect(servers.owner_database_url) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
    with databases.lend() as another:
        assert another != name


def test_two_at_once_have_two(databases: Databases) -> None:
    with databases.lend() as one, databases.lend() as other:
        assert one != other


def test_who_is_still_connected_is_sent_away(servers: EmbeddedServers, databases: Databases) -> None:
    with databases.lend() as name:
        left = psycopg.connect(make_conninfo(servers.owner_database_url, dbname=name))
        left.execute("LOCK TABLE users")
    with left, pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    with databases.lend() as again:
        assert again == name
        do(servers, again, "LOCK TABLE users NOWAIT")
