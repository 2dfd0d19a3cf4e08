"""`GET /v1/models`: what can be named as `model`, in OpenAI's shape."""

from msgspec.structs import replace
from quart import Blueprint

from proxy.errors import ModelUnknown
from server.catalogue_answers import CallableModel, CallableModels, OfferedModel, ProviderState
from server.operations import operation
from server.services import services

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
@operation("List the models that can be called")
async def list_models() -> CallableModels:
    """Those for which this server has a provider with a key, in the order of their ids."""
    found = services().catalogue_answers.listing.callable_models
    return CallableModels("list", [_describe(listed) for listed in found.values()])


@blueprint.get("/v1/models/<path:model_id>")
@operation("Show a model that can be called")
async def show_model(model_id: str) -> CallableModel:
    found = services().catalogue_answers.listing.callable_models.get(model_id.removesuffix("/"))
    if found is None:
        raise ModelUnknown(f"no model {model_id[:200]!r} is offered here; GET /v1/models lists those that are")
    return _describe(found)


def _describe(listed: OfferedModel) -> CallableModel:
    breakers, id_ = services().breakers, listed.facts.id
    states = [ProviderState(code, breakers.state(code, id_)) for code in listed.providers]
    return replace(listed.facts, providers=states)
