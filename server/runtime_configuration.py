"""The document that the shipped desktop starts with, and passes on to phones: tasks, and the models that it can call
here. Pure.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from proxy.routing import AGGREGATOR, Model, Upstream, usable_providers
from server.ai_settings import AiSettings, CodexCli, CopyButton, TaskSettings, fit_ai_settings, identify_buttons
from storage.catalogue import ModelRow, ProviderRow

_CACHE_READ_KEYS = frozenset({"cache_read_per_million", "cached_input_per_million"})
_CACHE_WRITE_KEYS = frozenset({"cache_write_per_million"})


class RuntimeCopyButton(msgspec.Struct):
    """`content` is a template: `{{IMPLEMENTATION_PLAN}}` and the like are filled in by the client."""

    id: str
    label: str
    content: str


class RuntimeTask(msgspec.Struct, rename="camel"):
    """`allowedModels` are those that a user may choose from; null: no choice. All of them can be called."""

    model: str
    max_tokens: int
    temperature: Decimal
    copy_buttons: Sequence[RuntimeCopyButton] | None
    allowed_models: Sequence[str] | None


class RuntimeProvider(msgspec.Struct):
    code: str
    name: str


class RuntimeModel(msgspec.Struct, rename="camel"):
    """Prices are decimals in strings, US dollars per million tokens. A context window of 0 is unknown."""

    id: str
    name: str
    provider: str
    provider_name: str
    description: str | None
    context_window: int
    price_input_per_million: str
    price_output_per_million: str
    price_cache_read: str | None
    price_cache_write: str | None


class RuntimeProviderModels(msgspec.Struct):
    """A provider with the models that are listed under it. Every model is listed once."""

    provider: RuntimeProvider
    models: list[RuntimeModel]


class RuntimeCodexCli(msgspec.Struct, rename="camel"):
    """For the command-line tool that the desktop runs; the names of models are that tool's own."""

    preferred_model: str | None
    mini_model: str | None
    fallback_model: str | None
    model_overrides: Mapping[str, str] | None
    reasoning_effort: str | None
    mini_reasoning_effort: str | None


class RuntimeConfiguration(msgspec.Struct, rename="camel"):
    """Which models do which tasks here. Every task names a model that stands among those of the providers."""

    tasks: Mapping[str, RuntimeTask]
    providers: Sequence[RuntimeProviderModels]
    max_concurrent_jobs: int | None
    codex_cli: RuntimeCodexCli | None


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """JSON as it is sent, and its strong ETag, quotation marks included: other bytes have another one."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be called here, and the provider under which it is listed."""

    model: Model
    row: ModelRow
    provider: ProviderRow


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def encode_runtime_configuration(configuration: RuntimeConfiguration) -> EncodedDocument:
    body = _ENCODER.encode(configuration)
    return EncodedDocument(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def build_runtime_configuration(
    settings: AiSettings, rows: Mapping[str, ModelRow], listed: Sequence[ListedModel]
) -> RuntimeConfiguration:
    """`rows` are all models of the catalogue, `listed` those that can be called."""
    fitted = fit_ai_settings(settings, rows, {one.model.id for one in listed})
    return RuntimeConfiguration(
        tasks={key: _build_task(fitted.tasks[key]) for key in sorted(fitted.tasks)},
        providers=_build_providers(listed),
        max_concurrent_jobs=fitted.max_concurrent_jobs,
        codex_cli=None if fitted.codex_cli is None else _build_codex_cli(fitted.codex_cli),
    )


def list_models(
    models: Mapping[str, Model],
    rows: Mapping[str, ModelRow],
    providers: Sequence[ProviderRow],
    upstreams: Mapping[str, Upstream],
) -> list[ListedModel]:
    """Each that an active provider can answer for here, once, in the order of provider and model names, byte by byte.

    It stands under the first of its providers that are usable here and no aggregator, else under the aggregator.
    """
    active = [provider for provider in providers if provider.status == "active"]
    ordered = sorted(active, key=lambda provider: (provider.code == AGGREGATOR, provider.name.encode()))
    found = []
    for id_, model in models.items():
        usable = usable_providers(model, upstreams)
        home = next((provider for provider in ordered if provider.code in usable), None)
        if home is not None:
            found.append(ListedModel(model, rows[id_], home))
    return sorted(found, key=lambda one: (one.provider.name.encode(), one.model.name.encode(), one.model.id))


def show_decimal(number: Decimal) -> str:
    """The shortest that is no power of ten: `3`, `0.275`, `10`."""
    return f"{number.normalize() + 0:f}"


def _build_providers(listed: Sequence[ListedModel]) -> list[RuntimeProviderModels]:
    grouped: dict[str, RuntimeProviderModels] = {}
    for one in listed:
        provider = RuntimeProvider(one.provider.code, one.provider.name)
        group = grouped.setdefault(provider.code, RuntimeProviderModels(provider, []))
        group.models.append(_build_model(one))
    return list(grouped.values())


def _build_model(one: ListedModel) -> RuntimeModel:
    """The prices are those that are charged."""
    rates, told = one.model.price.base, one.row.pricing_info.keys()
    return RuntimeModel(
        id=one.model.id,
        name=one.model.name,
        provider=one.provider.code,
        provider_name=one.provider.name,
        description=one.row.description,
        context_window=one.model.context_window,
        price_input_per_million=show_decimal(rates.input),
        price_output_per_million=show_decimal(rates.output),
        price_cache_read=show_decimal(rates.cache_read) if told & _CACHE_READ_KEYS else None,
        price_cache_write=show_decimal(rates.cache_write) if told & _CACHE_WRITE_KEYS else None,
    )


def _build_task(task: TaskSettings) -> RuntimeTask:
    buttons = None if task.copy_buttons is None else _build_buttons(task.copy_buttons)
    return RuntimeTask(task.model, task.max_tokens, task.temperature, buttons, task.allowed_models)


def _build_buttons(buttons: Sequence[CopyButton]) -> list[RuntimeCopyButton]:
    ids = identify_buttons(buttons)
    return [RuntimeCopyButton(id_, button.label, button.content) for id_, button in zip(ids, buttons, strict=True)]


def _build_codex_cli(codex: CodexCli) -> RuntimeCodexCli:
    return RuntimeCodexCli(
        preferred_model=codex.preferred_model,
        mini_model=codex.mini_model,
        fallback_model=codex.fallback_model,
        model_overrides=codex.model_overrides,
        reasoning_effort=codex.reasoning_effort,
        mini_reasoning_effort=codex.mini_reasoning_effort,
    )
