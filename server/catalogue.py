"""The catalogue as this process knows it: read at the start, and again when it has changed."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import ModelNotPriced
from proxy.pricing import read_price
from proxy.routing import Model
from storage.catalogue import ModelRow, ProviderRow, read_models, read_providers
from storage.postgres import Database

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Catalogue:
    """The models on offer, by id; `rows` has what the catalogue tells of them besides, also of those without a price,
    which are not offered. Providers stand in the order of their names. `refresh` replaces the whole, and counts
    `version` up if that changed something. It raises StorageError; then all stays as it was.
    """

    database: Database
    models: Mapping[str, Model] = field(default_factory=dict)
    rows: Mapping[str, ModelRow] = field(default_factory=dict)
    providers: Sequence[ProviderRow] = ()
    version: int = 0

    async def refresh(self) -> None:
        providers, rows = await read_providers(self.database), await read_models(self.database)
        found = {row.id: row for row in rows}
        if (providers, found) != (self.providers, self.rows):
            self.models = build_models(rows)
            self.rows, self.providers = found, providers
            self.version += 1


def build_models(rows: Iterable[ModelRow]) -> dict[str, Model]:
    """A model without a usable price is left out and reported: it can't be charged."""
    models = {}
    for row in rows:
        try:
            price = read_price(row.pricing_info)
        except ModelNotPriced:
            logger.exception("a model is not offered, because it has no usable price", extra={"model": row.id})
            continue
        models[row.id] = Model(
            id=row.id,
            name=row.name,
            provider_code=row.provider_code,
            context_window=row.context_window,
            max_output_tokens=row.max_output_tokens,
            price=price,
            sees_images=sees_images(row.capabilities),
            provider_models=row.provider_models,
            capabilities=row.capabilities,
            model_type=row.model_type,
        )
    return models


def sees_images(capabilities: Mapping[str, Any]) -> bool:
    """`vision` decides if it is there; else any of the older ways to say it."""
    if "vision" in capabilities:
        return bool(capabilities["vision"])
    multimodal = capabilities.get("multimodal")
    if isinstance(multimodal, Mapping):
        return bool(multimodal.get("vision"))
    return bool(multimodal) or bool({"image", "vision"} & set(capabilities.get("modalities") or ()))
