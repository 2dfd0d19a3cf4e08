"""Settings that are changed while servers run, and every version that they had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from storage.errors import StorageError
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection


class ConfigurationUnreadable(StorageError):
    """A value that no route has written: PostgreSQL keeps larger numbers and deeper nesting than can be decoded."""


@dataclass(frozen=True, slots=True)
class ConfigurationVersion:
    """What a key said from `updated_at` on. `value` is decoded from JSON, numbers as they stand there (int, float);
    `updated_by` is an actor as the audit log has them, or `seed`.
    """

    version: int
    value: Any
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """Whatever reads a value raises ConfigurationUnreadable."""

    database: Database

    async def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """Those of the keys that have a value, decoded from JSON; numbers as they stand there (int, float)."""
        rows = await self.database.as_operator("read the configuration").fetch(_READ, {"keys": list(keys)})
        return {key: _decode(value, key) for key, value in rows}

    async def read_all(self) -> dict[str, Any]:
        """All that has a value, in the order of the keys."""
        rows = await self.database.as_operator("read the configuration").fetch(_READ_ALL)
        return {key: _decode(value, key) for key, value in rows}

    async def find(self, key: str) -> ConfigurationVersion | None:
        """As it stands now; None if the key has no value."""
        row = await self.database.as_operator("read the configuration").fetch_one(_FIND, {"key": key})
        return None if row is None else _build_version(key, row)

    async def list_versions(self, key: str, before: int | None, limit: int) -> list[ConfigurationVersion]:
        """The newest first, of those that are older than `before`."""
        parameters = {"key": key, "before": before, "limit": limit}
        rows = await self.database.as_operator("read the configuration").fetch(_LIST_VERSIONS, parameters)
        return [_build_version(key, row) for row in rows]


async def lock_configuration(connection: TrioConnection) -> None:
    """Until the transaction ends nobody else writes; everybody reads. For who decides by what stands there."""
    await connection.send(_LOCK.encode())


async def find_configuration(connection: TrioConnection, key: str) -> ConfigurationVersion | None:
    """What stands there, as this transaction sees it."""
    rows = await connection.send(connection.bind(_FIND, {"key": key}))
    return _build_version(key, rows[0]) if rows else None


async def find_configuration_version(
    connection: TrioConnection, key: str, version: int
) -> ConfigurationVersion | None:
    rows = await connection.send(connection.bind(_FIND_VERSION, {"key": key, "version": version}))
    return _build_version(key, rows[0]) if rows else None


async def write_configuration(
    connection: TrioConnection, values: Mapping[str, Any], updated_by: str
) -> dict[str, ConfigurationVersion]:
    """In the operator's transaction that also notes it in the audit log. Returns what has changed, each with the next
    version; the same value again changes nothing, nor who wrote it. Raises TypeError for what is no JSON.
    """
    if not values:
        return {}
    encoded = {key: msgspec.json.encode(value).decode() for key, value in values.items()}
    parameters = {"keys": list(encoded), "values": list(encoded.values()), "updated_by": updated_by}
    rows = await connection.send(connection.bind(_WRITE, parameters))
    return {key: _build_version(key, tuple(rest)) for key, *rest in rows}


def _build_version(key: str, row: tuple[Any, ...]) -> ConfigurationVersion:
    version, value, updated_at, updated_by = row
    return ConfigurationVersion(version, _decode(value, key), updated_at, updated_by)


def _decode(value: str, key: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationUnreadable(f"the value of {key} in the configuration cannot be read: {error}") from error


_READ: LiteralString = "SELECT key, value::text FROM configuration WHERE key = ANY(%(keys)s)"

_READ_ALL: LiteralString = 'SELECT key, value::text FROM configuration ORDER BY key COLLATE "C"'

_FIND: LiteralString = "SELECT version, value::text, updated_at, updated_by FROM configuration WHERE key = %(key)s"

_FIND_VERSION: LiteralString = """
    SELECT version, value::text, updated_at, updated_by FROM configuration_versions
    WHERE key = %(key)s AND version = %(version)s
"""

_LIST_VERSIONS: LiteralString = """
    SELECT version, value::text, updated_at, updated_by FROM configuration_versions
    WHERE key = %(key)s AND (%(before)s::integer IS NULL OR version < %(before)s::integer)
    ORDER BY version DESC LIMIT %(limit)s
"""

_LOCK: LiteralString = "LOCK TABLE configuration IN SHARE ROW EXCLUSIVE MODE"

# In the order of the keys, so that two who write the same ones wait for each other, and do not lock each other out.
_WRITE: LiteralString = """
    INSERT INTO configuration (key, value, updated_by)
    SELECT key, value::jsonb, %(updated_by)s
    FROM unnest(%(keys)s::text[], %(values)s::text[]) AS given (key, value) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now(), updated_by = excluded.updated_by
    WHERE configuration.value IS DISTINCT FROM excluded.value
    RETURNING key, version, value::text, updated_at, updated_by
"""
