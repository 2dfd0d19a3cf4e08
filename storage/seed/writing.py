"""The seed in the database: what is there, and writing what differs, with the owner's rights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from storage.postgres import read_url
from storage.seed.checking import check_seed
from storage.seed.difference import Change, Kind, Row, build_rows, find_changes
from storage.seed.reading import read_seed

Connection = psycopg.Connection[dict[str, Any]]

SEED = "seed"
"""Who has written a row, as long as no administrator has changed it."""
_LOCK = 0x636C6F636873
"""An advisory lock is a number."""


def seed(owner_database_url: str, path: Path | None = None) -> int:
    """Make the database say what the file says, all or nothing. Returns how many models are on offer.

    Safe to repeat: only what differs is written. What an administrator has changed is kept. Raises SeedInvalid,
    DatabaseUnavailable, OSError and psycopg.Error.
    """
    wanted = read_seed(path)
    check_seed(wanted)
    with open_seeding(owner_database_url) as connection:
        write_changes(connection, find_changes(build_rows(wanted), read_rows(connection)))
    return len(wanted.models)


@contextmanager
def open_seeding(owner_database_url: str) -> Iterator[Connection]:
    """A transaction that no other seeding shares: it ends with the block. Raises DatabaseUnavailable if the URL is
    none, and psycopg.Error.
    """
    read_url("DATABASE_OWNER_URL (or DATABASE_URL)", owner_database_url)
    with psycopg.connect(owner_database_url, application_name="cloche-seed", row_factory=dict_row) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        yield connection


def read_rows(connection: Connection) -> dict[tuple[Kind, str], Row]:
    """What the database has. Nobody changes settings and prompts, or adds one, until the transaction ends."""
    connection.execute(_LOCK_TABLES)
    rows: dict[tuple[Kind, str], Row] = {}
    for kind, statement in _READ.items():
        for values in connection.execute(statement):
            is_ours = values.pop("updated_by", SEED) == SEED
            rows[kind, values.pop("key")] = Row(values, is_ours)
    return rows


def write_changes(connection: Connection, changes: Sequence[Change]) -> None:
    for change in changes:
        if change.action == "remove":
            connection.execute(_REMOVE[change.kind], {"key": change.key})
        elif change.action != "keep":
            connection.execute(_WRITE[change.kind], _as_parameters(change))
            if change.kind == "model":
                _write_mappings(connection, change)


def _as_parameters(change: Change) -> dict[str, Any]:
    columns = {name: Jsonb(value) if name in _JSON else value for name, value in change.values.items()}
    return {**columns, "key": change.key, "seed": SEED}


def _write_mappings(connection: Connection, change: Change) -> None:
    parameters = {"key": change.key, "mappings": Jsonb(change.values["mappings"])}
    connection.execute("DELETE FROM model_mappings WHERE model_id = %(key)s", parameters)
    connection.execute(_WRITE_MAPPINGS, parameters)


_JSON = frozenset({"capabilities", "pricing", "mappings", "value"})

# As administrators lock the configuration: with rows locked instead, we would wait for their table, and they for our
# rows.
_LOCK_TABLES: LiteralString = "LOCK TABLE configuration, system_prompts IN SHARE ROW EXCLUSIVE MODE"

_READ: Mapping[Kind, LiteralString] = {
    "provider": """
        SELECT code AS key, code, name, description, website_url, api_base_url, capabilities, status
        FROM providers ORDER BY code
    """,
    "model": """
        SELECT id AS key, id, name, provider_code AS provider, context_window, max_output_tokens, capabilities,
               pricing_info AS pricing, model_type, description, created_on, status,
               coalesce((SELECT jsonb_object_agg(model_mappings.provider_code, provider_model_id)
                         FROM model_mappings WHERE model_id = models.id), '{}') AS mappings
        FROM models ORDER BY id
    """,
    "setting": "SELECT key, value, updated_by FROM configuration ORDER BY key",
    "prompt": """
        SELECT task_type AS key, task_type, version, system_prompt, description, updated_by
        FROM system_prompts ORDER BY task_type
    """,
    "region": "SELECT label AS key, label, url, is_default FROM regions ORDER BY label",
    "document": """
        SELECT concat_ws(' ', doc_type, region, version) AS key, doc_type, region, version, effective_at, url,
               content_hash, material_change
        FROM legal_documents ORDER BY doc_type, region, version
    """,
}

_WRITE: Mapping[Kind, LiteralString] = {
    "provider": """
        INSERT INTO providers (code, name, description, website_url, api_base_url, capabilities, status)
        VALUES (%(code)s, %(name)s, %(description)s, %(website_url)s, %(api_base_url)s, %(capabilities)s, %(status)s)
        ON CONFLICT (code) DO UPDATE SET name = excluded.name, description = excluded.description,
            website_url = excluded.website_url, api_base_url = excluded.api_base_url,
            capabilities = excluded.capabilities, status = excluded.status
    """,
    "model": """
        INSERT INTO models (id, name, provider_code, context_window, max_output_tokens, capabilities, pricing_info,
                            model_type, description, created_on, status)
        VALUES (%(id)s, %(name)s, %(provider)s, %(context_window)s, %(max_output_tokens)s, %(capabilities)s,
                %(pricing)s, %(model_type)s, %(description)s, %(created_on)s, %(status)s)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, provider_code = excluded.provider_code,
            context_window = excluded.context_window, max_output_tokens = excluded.max_output_tokens,
            capabilities = excluded.capabilities, pricing_info = excluded.pricing_info,
            model_type = excluded.model_type, description = excluded.description, created_on = excluded.created_on,
            status = excluded.status
    """,
    "setting": """
        INSERT INTO configuration (key, value, updated_by) VALUES (%(key)s, %(value)s, %(seed)s)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_by = excluded.updated_by
    """,
    "prompt": """
        INSERT INTO system_prompts (task_type, version, system_prompt, description, updated_by)
        VALUES (%(task_type)s, %(version)s, %(system_prompt)s, %(description)s, %(seed)s)
        ON CONFLICT (task_type) DO UPDATE SET version = excluded.version, system_prompt = excluded.system_prompt,
            description = excluded.description, updated_by = excluded.updated_by
    """,
    "region": """
        INSERT INTO regions (label, url, is_default) VALUES (%(label)s, %(url)s, %(is_default)s)
        ON CONFLICT (label) DO UPDATE SET url = excluded.url, is_default = excluded.is_default, updated_at = now()
    """,
    "document": """
        INSERT INTO legal_documents (doc_type, region, version, effective_at, url, content_hash, material_change)
        VALUES (%(doc_type)s, %(region)s, %(version)s, %(effective_at)s, %(url)s, %(content_hash)s,
                %(material_change)s)
        ON CONFLICT (doc_type, region, version) DO UPDATE SET effective_at = excluded.effective_at, url = excluded.url,
            content_hash = excluded.content_hash, material_change = excluded.material_change, updated_at = now()
    """,
}

_WRITE_MAPPINGS: LiteralString = """
    INSERT INTO model_mappings (model_id, provider_code, provider_model_id)
    SELECT %(key)s, key, value FROM jsonb_each_text(%(mappings)s)
"""

_REMOVE: Mapping[Kind, LiteralString] = {
    "provider": "UPDATE providers SET status = 'deprecated' WHERE code = %(key)s",
    "model": "UPDATE models SET status = 'inactive' WHERE id = %(key)s",
    "region": "DELETE FROM regions WHERE label = %(key)s",
}
