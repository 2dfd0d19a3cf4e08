"""Migrations: plain SQL, applied in order, each in a transaction of its own, under a lock, once."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from storage.errors import StorageError
from storage.postgres import Database, read_url

_LOCK = 0x636C6F636865  # "cloche"; an advisory lock is a number
_CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


class MigrationsDisagree(StorageError):
    """The database was migrated by other files than these."""


class SchemaOutdated(StorageError):
    """The database lacks migrations that this code needs."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations() -> list[Migration]:
    """All of them, by version. A file is named `0001_what_it_does.sql`."""
    folder = files("storage").joinpath("migrations")
    return [_read(name) for name in sorted(entry.name for entry in folder.iterdir()) if name.endswith(".sql")]


def migrate(owner_database_url: str) -> list[str]:
    """Apply what is missing and name it. Safe to repeat and to run from several places at once.

    The role of the URL comes to own the tables; it needs CREATEROLE the first time. Raises MigrationsDisagree if a file
    that was applied has changed since, DatabaseUnavailable if the URL is none, and psycopg.Error; then the migration at
    hand has left nothing behind.
    """
    read_url("DATABASE_OWNER_URL (or DATABASE_URL)", owner_database_url)
    with psycopg.connect(owner_database_url, autocommit=True, application_name="cloche-migrate") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        connection.execute(_CREATE_TABLE)
        connection.execute("GRANT SELECT ON schema_migrations TO PUBLIC")
        applied: dict[int, str] = dict(connection.execute("SELECT version, sha256 FROM schema_migrations").fetchall())
        return [migration.name for migration in read_migrations() if _apply(connection, migration, applied)]


async def check_schema(database: Database) -> None:
    """Raise SchemaOutdated, with what to do, unless the database has every migration of this code."""
    rights = database.as_operator("check the schema")
    version = 0
    if await rights.fetch_one("SELECT to_regclass('schema_migrations') IS NOT NULL") == (True,):
        found = await rights.fetch_one("SELECT max(version) FROM schema_migrations")
        version = (found and found[0]) or 0
    needed = read_migrations()[-1].version
    if version < needed:
        raise SchemaOutdated(
            f"the database has schema version {version}, this code needs {needed}: run `python -m scripts.migrate`"
        )


def _read(name: str) -> Migration:
    sql = files("storage").joinpath("migrations", name).read_text("utf-8")
    return Migration(int(name.partition("_")[0]), name.removesuffix(".sql"), sql)


def _apply(connection: psycopg.Connection, migration: Migration, applied: dict[int, str]) -> bool:
    if migration.version in applied:
        if applied[migration.version] != migration.sha256:
            raise MigrationsDisagree(f"{migration.name} was applied to this database from another text")
        return False
    with connection.transaction():
        connection.execute(migration.sql.encode())
        connection.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.sha256],
        )
    return True
