"""What the catalogue's routes tell of providers and models, made once for a version of the catalogue. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, Literal

import msgspec

from proxy.routing import AGGREGATOR, Model, Upstream, usable_models, usable_providers
from server.catalogue import Catalogue
from server.provider_health import ProviderHealth
from server.runtime_configuration import show_decimal
from storage.breakers import Breaker
from storage.catalogue import ModelRow, ProviderRow


class ProviderFacts(msgspec.Struct, rename="camel"):
    """`apiBaseUrl` is where the provider itself serves the public."""

    id: int
    code: str
    name: str
    description: str | None
    website_url: str | None
    api_base_url: str | None
    capabilities: Mapping[str, Any]
    status: str


class ProviderAnswer(ProviderFacts, rename="camel"):
    """A provider, and how calls to it go."""

    health: ProviderHealth


class CountedProviderAnswer(ProviderAnswer, rename="camel"):
    """`modelCount`: the models of its own, not those of others that it sells as well."""

    model_count: int


class ModelAnswer(msgspec.Struct, rename="camel"):
    """A model at one provider. Prices are decimals in strings, in US dollars per million tokens; `pricing` has all that
    are known, by their names in the catalogue. `contextWindow` 0: unknown. `available`: this server can call it.
    """

    id: str
    name: str
    context_window: int
    max_output_tokens: int
    price_input: str
    price_output: str
    pricing: Mapping[str, str]
    model_type: str
    capabilities: Mapping[str, Any]
    status: str
    available: bool
    description: str | None
    provider: ProviderFacts


class ProviderState(msgspec.Struct):
    """`state` is that of the circuit breaker that stands for this model at this provider."""

    provider: str
    state: Literal["closed", "open", "half_open"]


class CallableModel(msgspec.Struct):
    """A model in OpenAI's shape. `created` is when the model was published, in Unix seconds; 0: unknown. `providers`
    are those that would be asked, in this order. Prices are decimals in strings, by their names in the catalogue.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    context_window: int
    max_output_tokens: int
    model_type: str
    capabilities: Mapping[str, Any]
    pricing: Mapping[str, str]
    providers: Sequence[ProviderState]


class CallableModels(msgspec.Struct):
    """Every model that can be called here now, as OpenAI's SDKs list them."""

    object: Literal["list"]
    data: Sequence[CallableModel]


@dataclass(frozen=True, slots=True)
class ListedProvider:
    """`models` are those that it can be asked for here, None if it cannot be asked at all."""

    facts: ProviderFacts
    model_count: int
    models: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """One that can be called; `providers` are the codes of those that would be asked."""

    facts: CallableModel
    providers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Listing:
    """All that is told of one version of the catalogue, in the order in which it is told."""

    providers: Sequence[ListedProvider]
    mappings: Sequence[ModelAnswer]
    """One for each model and provider that has it."""
    models: Mapping[str, ModelAnswer]
    """One for each model, at the provider that is preferred."""
    callable_models: Mapping[str, OfferedModel]
    breakers: Sequence[Breaker]
    """Of all providers that can be asked, with their models."""


@dataclass(slots=True)
class CatalogueAnswers:
    """Keeps the listing of the latest version. What no upstream here stands for is not told: in production that is the
    sandbox.
    """

    catalogue: Catalogue
    upstreams: Mapping[str, Upstream]
    _version: int = -1
    _listing: Listing = field(default_factory=lambda: Listing((), (), {}, {}, ()))

    @property
    def listing(self) -> Listing:
        if self._version != self.catalogue.version:
            self._listing = build_listing(self.catalogue, self.upstreams)
            self._version = self.catalogue.version
        return self._listing


def build_listing(catalogue: Catalogue, upstreams: Mapping[str, Upstream]) -> Listing:
    active = [row for row in catalogue.providers if row.status == "active" and row.code in upstreams]
    models, rows = catalogue.models, catalogue.rows
    facts = {row.code: describe_provider(row) for row in active}
    mappings = list(_describe_models(models.values(), rows, facts, upstreams))
    callables = {
        model.id: OfferedModel(describe_callable(model, rows[model.id]), usable_providers(model, upstreams))
        for model in usable_models(models, upstreams)
    }
    return Listing(
        providers=[_list_provider(provider, models.values(), upstreams) for provider in facts.values()],
        mappings=mappings,
        models=_prefer(mappings),
        callable_models=callables,
        breakers=[(code, id_) for id_, listed in callables.items() for code in listed.providers],
    )


def describe_provider(row: ProviderRow) -> ProviderFacts:
    return ProviderFacts(
        id=row.id,
        code=row.code,
        name=row.name,
        description=row.description,
        website_url=row.website_url,
        api_base_url=row.api_base_url,
        capabilities=row.capabilities,
        status=row.status,
    )


def describe_model(model: Model, row: ModelRow, provider: ProviderFacts, is_available: bool) -> ModelAnswer:
    """The two prices are those that are charged."""
    return ModelAnswer(
        id=row.id,
        name=row.name,
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        price_input=show_decimal(model.price.base.input),
        price_output=show_decimal(model.price.base.output),
        pricing=show_prices(row.pricing_info),
        model_type=row.model_type,
        capabilities=row.capabilities,
        status="active",
        available=is_available,
        description=row.description,
        provider=provider,
    )


def describe_callable(model: Model, row: ModelRow) -> CallableModel:
    """Without its providers, whose state is of the moment."""
    published = row.created_on
    created = 0 if published is None else int(datetime.combine(published, time(), UTC).timestamp())
    return CallableModel(
        id=model.id,
        object="model",
        created=created,
        owned_by=model.provider_code,
        name=model.name,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        model_type=model.model_type,
        capabilities=model.capabilities,
        pricing=show_prices(row.pricing_info),
        providers=(),
    )


def show_prices(pricing_info: Mapping[str, object]) -> dict[str, str]:
    """Every number among them, also the one that is no price: from how many tokens on a prompt is a long one."""
    return {name: shown for name, value in pricing_info.items() if (shown := show_price(value)) is not None}


def show_price(value: object) -> str | None:
    """A number, or one in a string, as the shortest plain string: `3`, `0.275`. None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return show_decimal(number) if number.is_finite() else None


def is_preferred(provider: ProviderFacts, other: ProviderFacts) -> bool:
    """Whether a model is shown at `provider` rather than at `other`, which comes first by its name."""
    return other.code == AGGREGATOR and provider.code != AGGREGATOR


def _describe_models(
    models: Iterable[Model],
    rows: Mapping[str, ModelRow],
    providers: Mapping[str, ProviderFacts],
    upstreams: Mapping[str, Upstream],
) -> Iterable[ModelAnswer]:
    """In the order of the providers' names, then of the models'. Python compares text as its bytes in UTF-8 would."""
    ordered = sorted(models, key=lambda model: (model.name, model.id))
    available = {model.id: bool(usable_providers(model, upstreams)) for model in ordered}
    for code, provider in providers.items():
        for model in ordered:
            if code in model.provider_models:
                yield describe_model(model, rows[model.id], provider, available[model.id])


def _prefer(mappings: Iterable[ModelAnswer]) -> dict[str, ModelAnswer]:
    """In the order of the mappings that were chosen."""
    chosen: dict[str, ModelAnswer] = {}
    for answer in mappings:
        known = chosen.get(answer.id)
        if known is None or is_preferred(answer.provider, known.provider):
            chosen.pop(answer.id, None)
            chosen[answer.id] = answer
    return chosen


def _list_provider(
    provider: ProviderFacts, models: Iterable[Model], upstreams: Mapping[str, Upstream]
) -> ListedProvider:
    found = list(models)
    asked = {model.id for model in found if provider.code in model.provider_models}
    count = sum(model.provider_code == provider.code for model in found)
    is_usable = upstreams[provider.code].is_usable
    return ListedProvider(provider, count, frozenset(asked) if is_usable else None)
