"""The catalogue as a file: what it must have, and what writing it changes."""

from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from proxy.pricing import MAX_COST_USD, read_price, worst_cost_usd
from proxy.provider import load_providers
from storage.seed import SeedInvalid, home_of, read_seed, seed

MODEL = """
name = "A"
context_window = 100
max_output_tokens = 10
capabilities = { vision = true }
pricing = { input_per_million = "1", output_per_million = "2" }
mappings = { acme = "a-1", other = "a-2" }
"""
PRICING_KEYS = {
    "input_per_million",
    "output_per_million",
    "cached_input_per_million",
    "cache_write_per_million",
    "cache_write_1h_per_million",
    "audio_input_per_million",
    "audio_output_per_million",
    "image_output_per_million",
    "web_search_per_thousand",
    "long_context_threshold",
    "long_context_input_per_million",
    "long_context_output_per_million",
    "long_context_cached_input_per_million",
}
CATALOGUE = f'[providers]\nacme = "Acme"\nother = "Other"\n[models."acme/a"]\n{MODEL}'


def fetch(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    return path


OURS = read_seed()["models"]

SOME_PRICES = {
    "anthropic/claude-sonnet-4-5-20250929": (200_000, "3", "15", "0.30", "3.75", "6"),
    "anthropic/claude-opus-4-20250514": (200_000, "15", "75", "1.50", "18.75", "30"),
    "anthropic/claude-opus-4-5-20251101": (200_000, "5", "25", "0.50", "6.25", "10"),
    "anthropic/claude-3-7-sonnet-20250219": (200_000, "3", "15", "0.30", "3.75", "6"),
    "openai/gpt-4.1": (1_000_000, "2", "8", "0.50", "2", None),
    "openai/gpt-4.1-mini": (1_000_000, "0.40", "1.60", "0.10", "0.40", None),
    "openai/o3": (200_000, "2", "8", "0.50", "2", None),
    "openai/o4-mini": (200_000, "1.10", "4.40", "0.275", "1.10", None),
    "openai/o3-deep-research-2025-06-26": (200_000, "2", "8", "0.50", "2", None),
    "openai/o4-mini-deep-research-2025-06-26": (200_000, "1.10", "4.40", "0.275", "1.10", None),
    "openai/gpt-5.2-codex": (400_000, "1.75", "14", "0.18", "1.75", None),
    "openai/gpt-5-mini": (270_000, "0.25", "2", "0.025", "0.25", None),
    "openai/gpt-5-nano": (270_000, "0.05", "0.40", "0.005", "0.05", None),
    "openai/gpt-5.2-pro-2025-12-11": (400_000, "21", "168", "2.10", "21", None),
    "google/gemini-2.5-pro": (1_048_576, "1.25", "10", "0.31", "1.25", None),
    "google/gemini-3-flash-preview": (1_048_576, "0.50", "3", "0.05", "0.50", None),
    "google/gemini-3-pro-preview": (1_048_576, "2", "12", "0.20", "2", None),
    "xai/grok-4": (256_000, "3", "15", "3", "3", None),
    "deepseek/deepseek-r1-0528": (131_072, "0.55", "2.19", "0.55", "0.55", None),
    "moonshotai/kimi-k2": (120_000, "0.55", "2.20", "0.55", "0.55", None),
}
"""Window, input, output, cache read, cache write, and the one for an hour."""
LONG_PRICES = {
    "google/gemini-2.5-pro": (200_000, "2.50", "15", "0.625"),
    "google/gemini-3-pro-preview": (200_000, "4", "18", "0.40"),
    "xai/grok-4": (128_000, "6", "30", "6"),
}


@pytest.mark.parametrize("model_id", OURS)
def test_every_model_of_ours_can_be_charged_and_is_mapped_to_providers_that_there_are(model_id: str) -> None:
    model, providers = OURS[model_id], load_providers()
    price = read_price(model["pricing"])
    assert home_of(model_id, model) in model["mappings"]
    assert set(model["mappings"]) <= set(providers)
    assert model["context_window"] >= model["max_output_tokens"] > 0
    assert worst_cost_usd(price, model["context_window"], model["max_output_tokens"]) < MAX_COST_USD
    assert len(model["pricing"]) == len(set(model["pricing"]) & PRICING_KEYS), "a key that nobody reads"


@pytest.mark.parametrize("model_id", sorted(set(OURS) - {"sandbox/echo"}))
def test_every_model_of_ours_has_a_mapping_to_openrouter(model_id: str) -> None:
    assert OURS[model_id]["mappings"]["openrouter"]


@pytest.mark.parametrize("model_id", SOME_PRICES)
def test_models_that_clients_know_have_the_prices_that_they_know(model_id: str) -> None:
    window, *rates = SOME_PRICES[model_id]
    base = read_price(OURS[model_id]["pricing"]).base
    assert OURS[model_id]["context_window"] == window
    found = (base.input, base.output, base.cache_read, base.cache_write, base.cache_write_1h)
    assert found == tuple(None if rate is None else Decimal(rate) for rate in rates)


@pytest.mark.parametrize("model_id", OURS)
def test_long_prompts_are_dearer_where_the_provider_says_so(model_id: str) -> None:
    price = read_price(OURS[model_id]["pricing"])
    if model_id in LONG_PRICES:
        threshold, *rates = LONG_PRICES[model_id]
        assert price.long_context is not None
        assert price.long_context_threshold == threshold
        found = (price.long_context.input, price.long_context.output, price.long_context.cache_read)
        assert found == tuple(map(Decimal, rates))
    else:
        assert price.long_context is None or model_id == "xai/grok-4-fast"


def test_a_search_costs_what_its_provider_takes() -> None:
    prices = {model_id: read_price(model["pricing"]).web_search_per_thousand for model_id, model in OURS.items()}
    assert prices["openai/gpt-4.1"] == prices["anthropic/claude-haiku-4-5"] == 10
    assert prices["google/gemini-2.5-pro"] == 35
    assert prices["google/gemini-3-pro-preview"] == 14
    assert prices["xai/grok-4"] == 5
    assert prices["deepseek/deepseek-r1-0528"] == 20
    assert prices["sandbox/echo"] is None


def test_models_that_need_it_are_asked_for_as_they_need_it() -> None:
    """Of OpenAI's models those that think are at home in its newer endpoint."""
    for model_id, model in OURS.items():
        capabilities = model["capabilities"]
        is_openais = model_id.startswith("openai/")
        assert (capabilities.get("api") == "responses") == (is_openais and capabilities.get("reasoning") is True)
        takes_minutes = is_openais and ("deep-research" in model_id or "-pro-" in model_id)
        assert capabilities.get("background", False) == takes_minutes
        assert capabilities.get("thinking", False) == (model_id.startswith("google/") and "-image" not in model_id)


def test_what_the_file_says_is_what_the_database_has(path: Path, owner_database_url: str) -> None:
    assert seed(owner_database_url, path) == 1
    columns = "name, provider_code, context_window, max_output_tokens, capabilities, pricing_info, status"
    assert fetch(owner_database_url, "SELECT " + columns + " FROM models WHERE id = 'acme/a'") == [  # noqa: S608 - our own columns
        (
            "A",
            "acme",
            100,
            10,
            {"vision": True},
            {"input_per_million": "1", "output_per_million": "2"},
            "active",
        )
    ]
    mappings = "SELECT provider_code, provider_model_id FROM model_mappings WHERE model_id = 'acme/a' ORDER BY 1"
    assert fetch(owner_database_url, mappings) == [("acme", "a-1"), ("other", "a-2")]


def test_a_model_may_be_at_home_with_another_than_its_maker(path: Path, owner_database_url: str) -> None:
    """And may move."""
    home = "SELECT provider_code FROM models WHERE id = 'acme/a'"
    for provider in ("other", "acme"):
        path.write_text(CATALOGUE.replace('name = "A"', f'name = "A"\nprovider = "{provider}"'))
        seed(owner_database_url, path)
        assert fetch(owner_database_url, home) == [(provider,)]


def test_seeding_again_changes_nothing(path: Path, owner_database_url: str) -> None:
    everything = "SELECT * FROM models LEFT JOIN model_mappings ON model_id = id ORDER BY id, model_id"
    seed(owner_database_url, path)
    before = fetch(owner_database_url, everything)
    assert seed(owner_database_url, path) == 1
    assert fetch(owner_database_url, everything) == before


def test_a_model_that_is_not_listed_any_more_goes_out_of_service_and_can_come_back(
    path: Path, owner_database_url: str
) -> None:
    seed(owner_database_url, path)
    status = "SELECT status FROM models WHERE id = 'openai/gpt-4.1-mini'"
    assert fetch(owner_database_url, status) == [("inactive",)]
    seed(owner_database_url)
    assert fetch(owner_database_url, status) == [("active",)]


def test_changed_prices_and_mappings_replace_the_old(path: Path, owner_database_url: str) -> None:
    seed(owner_database_url, path)
    path.write_text(CATALOGUE.replace('"1"', '"3"').replace(', other = "a-2"', ""))
    seed(owner_database_url, path)
    price = "SELECT pricing_info->>'input_per_million' FROM models WHERE id = 'acme/a'"
    assert fetch(owner_database_url, price) == [("3",)]
    assert fetch(owner_database_url, "SELECT count(*) FROM model_mappings WHERE model_id = 'acme/a'") == [(1,)]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("[providers]", "[providers", "no TOML"),
        ("[providers]", "[sources]", "providers"),
        ('[models."acme/a"]', '[other."acme/a"]', "models"),
        ('name = "A"', "", "acme/a: name"),
        ('name = "A"', "name = 1", "acme/a: name"),
        ("context_window = 100", 'context_window = "x"', "acme/a: context_window"),
        ("max_output_tokens = 10", "", "acme/a: max_output_tokens"),
        ("pricing = {", "prices = {", "acme/a: pricing"),
        ('mappings = { acme = "a-1", other', "mappings = { other", "acme"),
        ('[models."acme/a"]', '[models."nobody/a"]', "nobody"),
        ('name = "A"', 'name = "A"\nprovider = "nobody"', "nobody"),
        ('name = "A"', 'name = "A"\nprovider = 5', "acme/a: provider"),
        ('other = "Other"', "", "other"),
        (f'[models."acme/a"]\n{MODEL}', '[models]\n"acme/a" = 1', "acme/a"),
    ],
)
def test_what_is_no_catalogue_is_refused_and_the_place_named(path: Path, old: str, new: str, where: str) -> None:
    assert old in CATALOGUE
    path.write_text(CATALOGUE.replace(old, new))
    with pytest.raises(SeedInvalid, match=where):
        read_seed(path)


def test_a_file_in_another_encoding_is_refused(path: Path) -> None:
    path.write_bytes(CATALOGUE.encode("utf-16"))
    with pytest.raises(SeedInvalid, match="no TOML"):
        read_seed(path)


def test_what_the_database_refuses_changes_nothing(path: Path, owner_database_url: str) -> None:
    path.write_text(CATALOGUE.replace("max_output_tokens = 10", "max_output_tokens = 0"))
    with pytest.raises(errors.CheckViolation):
        seed(owner_database_url, path)
    assert fetch(owner_database_url, "SELECT FROM providers WHERE code = 'acme'") == []
    assert fetch(owner_database_url, "SELECT FROM models WHERE status = 'inactive'") == []
