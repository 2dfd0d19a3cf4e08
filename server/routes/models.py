"""`GET /v1/models`: what can be named as `model`, in OpenAI's shape."""

import msgspec
from quart import Blueprint, Response

from proxy.errors import ModelUnknown
from proxy.routing import Model, usable_models, usable_providers
from server.services import services

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
async def list_models() -> Response:
    models = _find_models()
    return _as_json({"object": "list", "data": [_describe(model) for model in models]})


@blueprint.get("/v1/models/<path:model_id>")
async def show_model(model_id: str) -> Response:
    found = [model for model in _find_models() if model.id == model_id]
    if not found:
        raise ModelUnknown(f"no model {model_id[:200]!r} is offered here; GET /v1/models lists those that are")
    return _as_json(_describe(found[0]))


def _find_models() -> list[Model]:
    return usable_models(services().catalogue.models, services().gateway.upstreams)


def _describe(model: Model) -> dict[str, object]:
    """`created` is required by the SDKs and has no meaning here. `providers` are those that would be asked, in order,
    each with the state of its circuit breaker.
    """
    gateway = services().gateway
    states = [
        {"provider": code, "state": gateway.reach.breakers.state(code, model.id)}
        for code in usable_providers(model, gateway.upstreams)
    ]
    return {"id": model.id, "object": "model", "created": 0, "owned_by": model.provider_code, "providers": states}


def _as_json(body: object) -> Response:
    return Response(msgspec.json.encode(body), content_type="application/json")
