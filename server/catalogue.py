"""The catalogue as this process knows it: read at the start, and again every so often."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from proxy.errors import ModelNotPriced
from proxy.pricing import read_price
from proxy.routing import Model
from storage.catalogue import ModelRow, read_models
from storage.errors import StorageError
from storage.postgres import Database

REFRESH_SECONDS = 15

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Catalogue:
    """The models on offer, by id; `refresh` replaces the whole."""

    database: Database
    models: Mapping[str, Model] = field(default_factory=dict)

    async def refresh(self) -> None:
        self.models = build_models(await read_models(self.database))

    async def keep_fresh(self) -> None:
        """Never returns. While PostgreSQL is away the catalogue stays as it is."""
        while True:
            await trio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except StorageError:
                logger.warning("the catalogue could not be refreshed and stays as it was", exc_info=True)


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
