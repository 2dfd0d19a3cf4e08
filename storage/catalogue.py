"""The catalogue of models, read whole: it is small, and every process keeps it in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
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


async def read_models(database: Database) -> list[ModelRow]:
    rows = await database.as_operator("read the catalogue").fetch(_READ_MODELS)
    return [ModelRow(*row) for row in rows]


_READ_MODELS: LiteralString = """
    SELECT models.id, models.name, models.provider_code, context_window, max_output_tokens, capabilities, pricing_info,
           coalesce((SELECT jsonb_object_agg(model_mappings.provider_code, provider_model_id)
                     FROM model_mappings WHERE model_id = models.id), '{}')
    FROM models JOIN providers ON providers.code = models.provider_code
    WHERE models.status = 'active' AND providers.status <> 'deprecated'
    ORDER BY models.id
"""
