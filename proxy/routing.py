"""From our model id to the providers that can answer it. Pure: the catalogue and the settings are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from proxy.errors import ModelUnknown, ProviderNotConfigured
from proxy.pricing import Price
from proxy.provider import Provider, Target

AGGREGATOR = "openrouter"
"""Sells most models of the others, so it comes first when a model's own provider fails."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue, as routing and pricing need it.

    `context_window` 0 means unknown: no check. `provider_models` maps a provider's code to its own id for the model;
    those of other providers than the model's own are where a call falls back to.
    """

    id: str
    name: str
    provider_code: str
    context_window: int
    max_output_tokens: int
    price: Price
    sees_images: bool
    provider_models: Mapping[str, str]
    capabilities: Mapping[str, object] = field(default_factory=dict)
    """As the catalogue has them; a provider's file says what it reads of them."""
    model_type: str = "text"
    """`text`, `chat` or `transcription`, which is no model to chat with."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as this server may use it: its dialect, and where and with which keys."""

    provider: Provider
    base_url: str
    api_keys: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        return bool(self.api_keys) or not self.provider.needs_key

    def __repr__(self) -> str:
        return f"Upstream({self.provider.code!r}, {self.base_url!r})"


@dataclass(frozen=True, slots=True)
class Route:
    """One provider that can answer for a model; `targets` has one for each of its keys, in the order to try them."""

    model: Model
    provider: Provider
    targets: tuple[Target, ...]


def find_routes(
    models: Mapping[str, Model], upstreams: Mapping[str, Upstream], model_id: str, user_id: UUID
) -> tuple[Route, ...]:
    """Where a request for `model_id` can go: its own provider first, then those to fall back to.

    The same user starts with the same key, whose caches know the prompt. Raises ModelUnknown, or ProviderNotConfigured.
    """
    model = models.get(model_id)
    if model is None or not model.provider_models:
        raise ModelUnknown(f"no model {model_id[:200]!r} is offered here; GET /v1/models lists those that are")
    usable = usable_providers(model, upstreams)
    if not usable:
        raise ProviderNotConfigured(f"{model_id} needs a key for its provider {model.provider_code!r}, and none is set")
    return tuple(_build_route(model, upstreams[code], user_id) for code in usable)


def usable_models(models: Mapping[str, Model], upstreams: Mapping[str, Upstream]) -> list[Model]:
    """The models that a request can name now, by id."""
    return [models[id_] for id_ in sorted(models) if usable_providers(models[id_], upstreams)]


def usable_providers(model: Model, upstreams: Mapping[str, Upstream]) -> list[str]:
    """The codes of those that can answer for a model, in the order in which they are asked."""
    usable = [code for code in model.provider_models if _is_usable(upstreams, code)]
    return sorted(usable, key=lambda code: (code != model.provider_code, code != AGGREGATOR, code))


def _is_usable(upstreams: Mapping[str, Upstream], code: str) -> bool:
    upstream = upstreams.get(code)
    return upstream is not None and upstream.is_usable


def _build_route(model: Model, upstream: Upstream, user_id: UUID) -> Route:
    keys = upstream.api_keys or ("",)
    first = user_id.int % len(keys)
    name = model.provider_models[upstream.provider.code]
    targets = [Target(upstream.base_url, key, name, model.capabilities) for key in keys[first:] + keys[:first]]
    return Route(model, upstream.provider, tuple(targets))
