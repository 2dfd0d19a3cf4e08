"""The catalogue of models, read whole: it is small, and every process keeps it in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, LiteralString

from storage.postgres import Database


@dataclass(frozen=True, slots=True)
class ModelRow:
    """An active model of an active provider. `pricing_info` and `capabilities` are JSON objects."""

    id: str
    name: str
    provider_code: str
    context_window: int
    max_output_tokens: int
    capabilities: Mapping[str, Any]
    pricing_info: Mapping[str, Any]
    provider_models: Mapping[str, str]
    model_type: str = "text"
    description: str | None = None
    created_on: date | None = None


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A provider that is not deprecated. `api_base_url` is the public one; where calls go the settings say."""

    id: int
    code: str
    name: str
    description: str | None
    website_url: str | None
    api_base_url: str | None
    capabilities: Mapping[str, Any]
    status: str


async def read_providers(database: Database) -> list[ProviderRow]:
    """In the order of their names, byte by byte; of those of one name in the order of their codes."""
    rows = await database.as_operator("read the catalogue").fetch(_READ_PROVIDERS)
    return [ProviderRow(*row) for row in rows]


async def read_models(database: Database) -> list[ModelRow]:
    rows = await database.as_operator("read the catalogue").fetch(_READ_MODELS)
    return [ModelRow(*row) for row in rows]


_READ_PROVIDERS: LiteralString = """
    SELECT id, code, name, description, website_url, api_base_url, capabilities, status
    FROM providers WHERE status <> 'deprecated' ORDER BY name COLLATE "C", code
"""

_READ_MODELS: LiteralString = """
    SELECT models.id, models.name, models.provider_code, context_window, max_output_tokens, models.capabilities,
           pricing_info,
           coalesce((SELECT jsonb_object_agg(model_mappings.provider_code, provider_model_id)
                     FROM model_mappings WHERE model_id = models.id), '{}'),
           model_type, models.description, created_on
    FROM models JOIN providers ON providers.code = models.provider_code
    WHERE models.status = 'active' AND providers.status <> 'deprecated'
    ORDER BY models.id
"""
