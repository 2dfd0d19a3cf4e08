"""Models of a catalogue for tests, as rows and as what routing makes of them."""

from collections.abc import Mapping
from typing import Any

from proxy.routing import Model
from server.catalogue import build_models
from storage.catalogue import ModelRow

PRICES: Mapping[str, Any] = {"input_per_million": "1", "output_per_million": "2"}


def build_row(id_: str, **changes: Any) -> ModelRow:
    """Of the provider that its id names, and mapped to it."""
    provider = id_.partition("/")[0]
    members: dict[str, Any] = {
        "id": id_,
        "name": id_.partition("/")[2].upper(),
        "provider_code": provider,
        "context_window": 1000,
        "max_output_tokens": 100,
        "capabilities": {},
        "pricing_info": PRICES,
        "provider_models": {provider: id_},
    }
    return ModelRow(**(members | changes))


def build_offered(*rows: ModelRow) -> tuple[dict[str, ModelRow], dict[str, Model]]:
    return {row.id: row for row in rows}, build_models(rows)
