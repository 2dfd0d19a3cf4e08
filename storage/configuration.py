"""Settings that are changed while servers run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import msgspec

from storage.postgres import Database
from storage.psycopg_trio import TrioConnection


@dataclass(frozen=True, slots=True)
class Configuration:
    database: Database

    async def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """Those of the keys that have a value, decoded from JSON; numbers as they stand there (int, float)."""
        rows = await self.database.as_operator("read the configuration").fetch(_READ, {"keys": list(keys)})
        return {key: msgspec.json.decode(value) for key, value in rows}


async def write_configuration(connection: TrioConnection, values: Mapping[str, Any]) -> None:
    """In the operator's transaction that also notes it in the audit log. Raises TypeError for what is no JSON."""
    if not values:
        return
    encoded = {key: msgspec.json.encode(value).decode() for key, value in values.items()}
    await connection.send(connection.bind(_WRITE, {"keys": list(encoded), "values": list(encoded.values())}))


_READ: LiteralString = "SELECT key, value::text FROM configuration WHERE key = ANY(%(keys)s)"

# In the order of the keys, so that two who write the same ones wait for each other, and do not lock each other out.
_WRITE: LiteralString = """
    INSERT INTO configuration (key, value)
    SELECT key, value::jsonb FROM unnest(%(keys)s::text[], %(values)s::text[]) AS given (key, value) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
"""
