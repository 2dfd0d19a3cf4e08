"""The seed: the catalogue as a file under version control, applied with the owner's rights."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from storage.errors import StorageError


class SeedInvalid(StorageError):
    """The file does not describe a catalogue. The message names the place."""


def read_seed(path: Path | None = None) -> Mapping[str, Any]:
    """The file, or the one that comes with the code. Raises SeedInvalid."""
    source = path or files("storage").joinpath("seed_files", "catalogue.toml")
    try:
        catalogue = tomllib.loads(source.read_bytes().decode())
    except ValueError as error:
        raise SeedInvalid(f"the catalogue is no TOML: {error}") from error
    _check_members(catalogue, {"providers": dict, "models": dict}, "the catalogue")
    for model_id, model in catalogue["models"].items():
        _check_members(model, _MODEL_MEMBERS, model_id)
        home = home_of(model_id, model)
        if home not in model["mappings"]:
            raise SeedInvalid(f"{model_id}: its provider {home!r} must be mapped")
        if unlisted := sorted(set(model["mappings"]) - set(catalogue["providers"])):
            raise SeedInvalid(f"{model_id}: its providers {unlisted} must be listed")
    return catalogue


def home_of(model_id: str, model: Mapping[str, Any]) -> str:
    """Who answers for a model first: the member `provider`, else what stands before the slash of its id."""
    home = model.get("provider", model_id.partition("/")[0])
    if not isinstance(home, str):
        raise SeedInvalid(f"{model_id}: provider is of the wrong type")
    return home


def seed(owner_database_url: str, path: Path | None = None) -> int:
    """Write the catalogue and take models that it does not list out of service. Returns their number. Safe to
    repeat.
    """
    catalogue = read_seed(path)
    with psycopg.connect(owner_database_url, application_name="cloche-seed") as connection:
        for code, name in catalogue["providers"].items():
            connection.execute(_WRITE_PROVIDER, [code, name])
        for model_id, model in catalogue["models"].items():
            _write_model(connection, model_id, model)
        connection.execute(
            "UPDATE models SET status = 'inactive' WHERE id <> ALL(%s)", [list(catalogue["models"])]
        )
    return len(catalogue["models"])


def _check_members(table: object, members: Mapping[str, type], where: str) -> None:
    for name, type_ in members.items():
        if not isinstance(table, dict) or not isinstance(table.get(name), type_):
            raise SeedInvalid(f"{where}: {name} is missing or of the wrong type")


_MODEL_MEMBERS: Mapping[str, type] = {
    "name": str,
    "context_window": int,
    "max_output_tokens": int,
    "capabilities": dict,
    "pricing": dict,
    "mappings": dict,
}

_WRITE_PROVIDER: LiteralString = """
    INSERT INTO providers (code, name) VALUES (%s, %s) ON CONFLICT (code) DO UPDATE SET name = excluded.name
"""


def _write_model(connection: psycopg.Connection, model_id: str, model: Mapping[str, Any]) -> None:
    row = {
        "id": model_id,
        "name": model["name"],
        "provider": home_of(model_id, model),
        "window": model["context_window"],
        "max_output": model["max_output_tokens"],
        "capabilities": Jsonb(model["capabilities"]),
        "pricing": Jsonb(model["pricing"]),
    }
    connection.execute(
        """
        INSERT INTO models (id, name, provider_code, context_window, max_output_tokens, capabilities, pricing_info)
        VALUES (%(id)s, %(name)s, %(provider)s, %(window)s, %(max_output)s, %(capabilities)s, %(pricing)s)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, provider_code = excluded.provider_code,
            context_window = excluded.context_window, max_output_tokens = excluded.max_output_tokens,
            capabilities = excluded.capabilities, pricing_info = excluded.pricing_info, status = 'active'
        """,
        row,
    )
    connection.execute("DELETE FROM model_mappings WHERE model_id = %s", [model_id])
    for provider_code, provider_model_id in model["mappings"].items():
        connection.execute(
            "INSERT INTO model_mappings (model_id, provider_code, provider_model_id) VALUES (%s, %s, %s)",
            [model_id, provider_code, provider_model_id],
        )
