"""From our model id to the provider that answers it. Pure: the catalogue and the settings are given."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import ModelUnknown, ProviderNotConfigured
from proxy.pricing import Price
from proxy.provider import Provider, Target


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue, as routing and pricing need it.

    `context_window` 0 means unknown: no check. `provider_models` maps a provider's code to its own id for the model.
    """

    id: str
    name: str
    provider_code: str
    context_window: int
    max_output_tokens: int
    price: Price
    sees_images: bool
    provider_models: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as this server may use it: its dialect, and where and with which key."""

    provider: Provider
    base_url: str
    api_key: str | None

    @property
    def is_usable(self) -> bool:
        return self.api_key is not None or not self.provider.needs_key

    def __repr__(self) -> str:
        return f"Upstream({self.provider.code!r}, {self.base_url!r})"


@dataclass(frozen=True, slots=True)
class Route:
    model: Model
    provider: Provider
    target: Target


def find_route(models: Mapping[str, Model], upstreams: Mapping[str, Upstream], model_id: str) -> Route:
    """Where a request for `model_id` goes. Raises ModelUnknown, or ProviderNotConfigured."""
    model = models.get(model_id)
    provider_model = model.provider_models.get(model.provider_code) if model else None
    if model is None or provider_model is None:
        raise ModelUnknown(f"no model {model_id[:200]!r} is offered here; GET /v1/models lists those that are")
    upstream = upstreams.get(model.provider_code)
    if upstream is None or not upstream.is_usable:
        raise ProviderNotConfigured(f"{model_id} needs a key for its provider {model.provider_code!r}, and none is set")
    return Route(model, upstream.provider, Target(upstream.base_url, upstream.api_key or "", provider_model))


def usable_models(models: Mapping[str, Model], upstreams: Mapping[str, Upstream]) -> list[Model]:
    """The models that a request can name now, by id."""
    usable = {code for code, upstream in upstreams.items() if upstream.is_usable}
    return [models[id_] for id_ in sorted(models) if models[id_].provider_code in usable]
