"""What is told of the catalogue: who is preferred, in which order, and how prices are written."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, cast

import pytest

from proxy.provider import load_providers
from proxy.routing import Upstream
from server.catalogue import Catalogue, build_models
from server.catalogue_answers import CatalogueAnswers, Listing, build_listing, show_price
from storage.catalogue import ModelRow, ProviderRow

PROVIDERS = load_providers()
UPSTREAMS = {
    code: Upstream(PROVIDERS[code], "https://api.test", ("sk-1",)) for code in ("openai", "anthropic", "openrouter")
} | {"google": Upstream(PROVIDERS["google"], "https://api.test", ())}


def build_provider(id_: int, code: str, name: str, status: str = "active") -> ProviderRow:
    return ProviderRow(id_, code, name, f"Sells {name}", None, f"https://{code}.test", {"text": True}, status)


ROWS = [
    build_provider(1, "anthropic", "Anthropic"),
    build_provider(3, "google", "Google"),
    build_provider(2, "openai", "OpenAI"),
    build_provider(4, "openrouter", "OpenRouter"),
    build_provider(6, "sandbox", "Sandbox"),
]


def build_model(id_: str, name: str, *providers: str, **changes: Any) -> ModelRow:
    row = ModelRow(
        id=id_,
        name=name,
        provider_code=providers[0],
        context_window=1000,
        max_output_tokens=100,
        capabilities={"vision": True},
        pricing_info={"input_per_million": "0.50", "output_per_million": 2.0},
        provider_models={code: f"{code}-id" for code in providers},
    )
    return replace(row, **changes)


MODELS = [
    build_model("openai/z", "Zed", "openai", "openrouter"),
    build_model("openai/a", "Ay", "openrouter", "openai"),
    build_model("deepseek/r1", "R1", "openrouter"),
    build_model("google/g", "Gee", "google"),
    build_model("sandbox/echo", "Echo", "sandbox"),
]


def build_catalogue(models: Sequence[ModelRow] = MODELS, providers: Sequence[ProviderRow] = ROWS) -> Catalogue:
    rows = {row.id: row for row in models}
    return Catalogue(cast(Any, None), build_models(models), rows, providers, version=1)


def list_(models: Sequence[ModelRow] = MODELS, providers: Sequence[ProviderRow] = ROWS) -> Listing:
    return build_listing(build_catalogue(models, providers), UPSTREAMS)


def test_a_model_is_told_once_at_its_preferred_provider_in_the_order_of_names() -> None:
    told = [(model.provider.name, model.name) for model in list_().models.values()]
    assert told == [("Google", "Gee"), ("OpenAI", "Ay"), ("OpenAI", "Zed"), ("OpenRouter", "R1")]


def test_all_mappings_are_told_in_the_order_of_names() -> None:
    told = [(model.provider.name, model.name) for model in list_().mappings]
    resold = [("OpenRouter", "Ay"), ("OpenRouter", "R1"), ("OpenRouter", "Zed")]
    assert told == [("Google", "Gee"), ("OpenAI", "Ay"), ("OpenAI", "Zed"), *resold]


def test_openrouter_is_not_preferred_to_a_provider_of_a_later_name() -> None:
    providers = [*ROWS[:2], ROWS[3], replace(ROWS[2], name="Zen")]
    told = [(model.provider.name, model.name) for model in list_(providers=providers).models.values()]
    assert told == [("Google", "Gee"), ("OpenRouter", "R1"), ("Zen", "Ay"), ("Zen", "Zed")]


def test_a_model_is_available_if_any_of_its_providers_can_be_asked() -> None:
    models = [*MODELS, build_model("google/b", "Bee", "google", "openrouter")]
    told = {model.id: model.available for model in list_(models).models.values()}
    assert told == {"openai/z": True, "openai/a": True, "deepseek/r1": True, "google/g": False, "google/b": True}


def test_models_of_their_own_are_counted_and_those_that_may_be_asked_for_are_known() -> None:
    told = {listed.facts.code: (listed.model_count, listed.models) for listed in list_().providers}
    assert told == {
        "anthropic": (0, frozenset()),
        "google": (1, None),
        "openai": (1, {"openai/z", "openai/a"}),
        "openrouter": (2, {"openai/z", "openai/a", "deepseek/r1"}),
    }


def test_breakers_are_those_of_providers_that_can_be_asked() -> None:
    openrouter = [("openrouter", id_) for id_ in ("deepseek/r1", "openai/a", "openai/z")]
    assert sorted(list_().breakers) == [("openai", "openai/a"), ("openai", "openai/z"), *openrouter]


def test_a_provider_that_is_not_active_is_not_told() -> None:
    listing = list_(providers=[replace(row, status="beta") if row.code == "openai" else row for row in ROWS])
    assert "openai" not in [listed.facts.code for listed in listing.providers]
    assert listing.models["openai/z"].provider.code == "openrouter"


def test_a_model_without_a_price_is_not_told() -> None:
    listing = list_([build_model("openai/free", "Free", "openai", pricing_info={})])
    assert (listing.models, listing.callable_models) == ({}, {})


def test_callable_models_stand_by_id_with_those_who_would_be_asked() -> None:
    found = list_().callable_models
    assert {id_: listed.providers for id_, listed in found.items()} == {
        "deepseek/r1": ["openrouter"],
        "openai/a": ["openrouter", "openai"],
        "openai/z": ["openai", "openrouter"],
    }
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("published", "created"), [(None, 0), (date(1970, 1, 2), 86400), (date(2025, 8, 7), 1754524800)]
)
def test_a_model_was_made_on_the_day_when_it_was_published(published: date | None, created: int) -> None:
    listing = list_([build_model("openai/a", "Ay", "openai", created_on=published, model_type="transcription")])
    facts = listing.callable_models["openai/a"].facts
    assert (facts.created, facts.model_type, facts.owned_by) == (created, "transcription", "openai")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (3.0, "3"),
        (0.3, "0.3"),
        ("0.50", "0.5"),
        (Decimal("0.275"), "0.275"),
        (100, "100"),
        ("200000", "200000"),
        (1e-07, "0.0000001"),
        (0, "0"),
        ("", None),
        ("Infinity", None),
        (None, None),
        (True, None),
        ([1], None),
    ],
)
def test_prices_are_the_shortest_plain_text(value: object, shown: str | None) -> None:
    assert show_price(value) == shown


def test_all_price_keys_are_told_and_the_prices_that_are_charged() -> None:
    pricing = {"prompt_per_million": 1.25, "completion_per_million": 0, "long_context_threshold": 200_000, "note": "x"}
    (model,) = list_([build_model("openai/a", "Ay", "openai", pricing_info=pricing)]).mappings
    assert (model.price_input, model.price_output) == ("1.25", "0")
    assert model.pricing == {
        "prompt_per_million": "1.25",
        "completion_per_million": "0",
        "long_context_threshold": "200000",
    }


def test_the_listing_is_made_once_for_a_version() -> None:
    catalogue = build_catalogue()
    answers = CatalogueAnswers(catalogue, UPSTREAMS)
    first = answers.listing
    assert answers.listing is first
    catalogue.models, catalogue.version = {}, 2
    assert answers.listing.models == {}
