"""Databases for tests. Making one takes a third of a second, clearing one a fiftieth of that: so they are used again.

A database is as good as new if its tables have the template's rows, its sequences the template's numbers, and nobody
has changed a definition. A change shows in xmin, the transaction that wrote a row, in our tables and in PostgreSQL's
catalogs alike. Where a definition has changed, or much was written, the database is dropped.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composable, Identifier, Literal

MOST_BYTES = 4 << 20
"""Of all tables with their indexes; a new database has less than one megabyte. Deleted rows still take room."""
LEAVE_SECONDS = 10.0

# PostgreSQL's own definitions have smaller numbers. ALTER DATABASE writes to the last two.
DEFINITIONS = """
    SELECT 'pg_class', count(*), max(xmin::text::bigint) FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT 'pg_attribute', count(*), max(xmin::text::bigint) FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT 'pg_attrdef', count(*), max(xmin::text::bigint) FROM pg_attrdef
    UNION ALL SELECT 'pg_constraint', count(*), max(xmin::text::bigint) FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT 'pg_index', count(*), max(xmin::text::bigint) FROM pg_index WHERE indexrelid >= 16384
    UNION ALL SELECT 'pg_trigger', count(*), max(xmin::text::bigint) FROM pg_trigger
    UNION ALL SELECT 'pg_policy', count(*), max(xmin::text::bigint) FROM pg_policy
    UNION ALL SELECT 'pg_proc', count(*), max(xmin::text::bigint) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'pg_type', count(*), max(xmin::text::bigint) FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT 'pg_namespace', count(*), max(xmin::text::bigint) FROM pg_namespace
    UNION ALL SELECT 'pg_default_acl', count(*), max(xmin::text::bigint) FROM pg_default_acl
    UNION ALL SELECT 'pg_extension', count(*), max(xmin::text::bigint) FROM pg_extension
    UNION ALL SELECT 'pg_db_role_setting', count(*), NULL FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()
    UNION ALL SELECT 'pg_database', count(*), NULL FROM pg_database
        WHERE datname = current_database() AND datallowconn AND datconnlimit = -1
"""

OUR_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
OUR_BYTES = """
    SELECT sum(pg_total_relation_size(oid)) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    HAVING sum(pg_total_relation_size(oid)) > %s
"""


class Mark(NamedTuple):
    """Of a table: no write leaves both as they are."""

    rows: int
    last_write: int | None


Marks = Mapping[str, Mark]


class Original(NamedTuple):
    """What the template is like."""

    definitions: Marks
    tables: Marks
    contents: Mapping[str, bytes]  # as COPY gives and takes them; of tables that are not empty
    sequences: Mapping[str, int | None]


class Databases:
    """Copies of a template: one for each who asks for it at the same time."""

    def __init__(self, server: psycopg.Connection, owner_database_url: str, template: str) -> None:
        self._server = server
        self._url = owner_database_url
        self._template = template
        with self._open(template) as connection:
            self._original = read_original(connection)
        self._idle: list[tuple[str, Marks]] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        """The name of a database like the template. Behind the block nobody may use it."""
        name, marks = self._idle.pop() if self._idle else self._make()
        yield name
        cleared = self._clear(name, marks)
        if cleared is None:
            self._server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
        else:
            self._idle.append((name, cleared))

    def _make(self) -> tuple[str, Marks]:
        name = f"test_{uuid4().hex}"
        words = SQL("CREATE DATABASE {} TEMPLATE {}")
        self._server.execute(words.format(Identifier(name), Identifier(self._template)))
        return name, self._original.tables

    def _clear(self, name: str, marks: Marks) -> Marks | None:
        """The marks of its tables from now on, or None if it cannot be as it was."""
        try:
            with self._open(name) as connection:
                end_others(connection)
                return restore(connection, self._original, marks)
        except psycopg.OperationalError:  # it admits nobody any more
            return None

    def _open(self, name: str) -> psycopg.Connection:
        return psycopg.connect(make_conninfo(self._url, dbname=name), autocommit=True)


@contextmanager
def open_databases(owner_database_url: str, template: str) -> Iterator[Databases]:
    with psycopg.connect(owner_database_url, autocommit=True) as server:
        yield Databases(server, owner_database_url, template)


def read_original(connection: psycopg.Connection) -> Original:
    tables = read_marks(connection)
    return Original(
        definitions=read_definitions(connection),
        tables=tables,
        contents={name: copy_out(connection, name) for name, mark in tables.items() if mark.rows},
        sequences=read_sequences(connection),
    )


def restore(connection: psycopg.Connection, original: Original, marks: Marks) -> Marks | None:
    """Give all tables and sequences the template's contents; None if that does not make it like the template."""
    has_grown = connection.execute(OUR_BYTES, [MOST_BYTES]).fetchone() is not None
    if has_grown or read_definitions(connection) != original.definitions:
        return None
    found = read_marks(connection)
    written = [name for name, mark in found.items() if mark != marks[name]]
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # neither triggers nor foreign keys
        for name in written:
            connection.execute(SQL("DELETE FROM {}").format(Identifier(name)))
            if name in original.contents:
                copy_in(connection, name, original.contents[name])
    restore_sequences(connection, original.sequences)
    return read_marks(connection) if written else found


def end_others(connection: psycopg.Connection) -> None:
    """End all other connections to this database, and wait until they have let go of it."""
    give_up = time.monotonic() + LEAVE_SECONDS
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while connection.execute(f"SELECT pg_terminate_backend(pid) {others}".encode()).fetchall():
        assert time.monotonic() < give_up, "somebody goes on using the database of a test that has ended"
        time.sleep(0.001)  # noqa: TID251 - what runs here is no task of Trio


def read_definitions(connection: psycopg.Connection) -> Marks:
    return {name: Mark(rows, last) for name, rows, last in connection.execute(DEFINITIONS)}


def read_marks(connection: psycopg.Connection) -> Marks:
    mark = SQL("SELECT {}, count(*), max(xmin::text::bigint) FROM {}")
    names = [name for (name,) in connection.execute(OUR_TABLES)]
    marks: list[Composable] = [mark.format(Literal(name), Identifier(name)) for name in names]
    return {name: Mark(rows, last) for name, rows, last in connection.execute(SQL(" UNION ALL ").join(marks))}


def copy_out(connection: psycopg.Connection, table: str) -> bytes:
    with connection.cursor().copy(SQL("COPY {} TO STDOUT").format(Identifier(table))) as copy:
        return b"".join(bytes(block) for block in copy)


def copy_in(connection: psycopg.Connection, table: str, contents: bytes) -> None:
    with connection.cursor().copy(SQL("COPY {} FROM STDIN").format(Identifier(table))) as copy:
        copy.write(contents)


def read_sequences(connection: psycopg.Connection) -> Mapping[str, int | None]:
    """The last number that each has given, None where it has given none."""
    return dict(connection.execute("SELECT sequencename, last_value FROM pg_sequences").fetchall())


def restore_sequences(connection: psycopg.Connection, original: Mapping[str, int | None]) -> None:
    for name, number in read_sequences(connection).items():
        if number != original[name]:
            words = "SELECT setval(%s, coalesce(%s, 1), %s)"
            connection.execute(words, [name, original[name], original[name] is not None])
