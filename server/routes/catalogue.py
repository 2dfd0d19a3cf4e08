"""The models, as the shipped clients know them."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from quart import Blueprint

from server.catalogue_answers import Listing, ModelAnswer
from server.errors import NotFound
from server.operations import operation
from server.services import services

blueprint = Blueprint("catalogue", __name__, url_prefix="/api/models")


class ModelsQuery(msgspec.Struct):
    """`all_providers`: each model once for every provider that sells it."""

    include: Literal["all_providers"] | None = None


@blueprint.get("")
@operation("List the models")
async def list_models(query: ModelsQuery) -> Sequence[ModelAnswer]:
    """Each once, at its preferred provider, in the order of providers' and models' names. OpenRouter sells most models
    of the others: it is named where nobody else has a model.
    """
    listing = _find_listing()
    return listing.mappings if query.include == "all_providers" else list(listing.models.values())


@blueprint.get("/by-provider/<code>")
@operation("List the models of a provider")
async def list_by_provider(code: str) -> Sequence[ModelAnswer]:
    """All that it sells, also those of others. An unknown provider has none."""
    return [model for model in _find_listing().mappings if model.provider.code == code]


@blueprint.get("/by-type/<model_type>")
@operation("List the models of a type")
async def list_by_type(model_type: str) -> Sequence[ModelAnswer]:
    """The types are `text`, `chat` and `transcription`. Of any other there are none."""
    return [model for model in _find_listing().models.values() if model.model_type == model_type]


@blueprint.get("/<path:model_id>")
@operation("Show one model")
async def show_model(model_id: str) -> ModelAnswer:
    """The slash of its id may be written as it is, or as %2F."""
    found = _find_listing().models.get(model_id.removesuffix("/"))
    if found is None:
        raise NotFound(f"no model {model_id[:200]!r} is offered here; GET /api/models lists those that are")
    return found


def _find_listing() -> Listing:
    return services().catalogue_answers.listing
