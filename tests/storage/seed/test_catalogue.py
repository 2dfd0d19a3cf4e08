"""Our own catalogue: what clients, providers' files and the price formula need of it."""

from datetime import date
from decimal import Decimal

import pytest

from proxy.events import Usage
from proxy.pricing import MAX_COST_USD, cost_usd, read_price, worst_cost_usd
from proxy.provider import load_providers
from scripts.seed import has_price
from server.ai_settings import check_ai_settings, read_ai_settings
from server.catalogue import build_models
from storage.catalogue import ModelRow
from storage.seed.checking import AI_SETTINGS, check_seed
from storage.seed.difference import build_rows
from storage.seed.entries import ModelEntry
from storage.seed.reading import read_seed

OURS = read_seed()
MODELS = {model.id: model for model in OURS.models}
TASKS = {task.key: task for task in OURS.tasks}
CHATTING = sorted(model.id for model in OURS.models if model.model_type != "transcription")
SANDBOX = {"sandbox/echo", "sandbox/transcribe"}

PRICING_KEYS = {
    *("input_per_million", "output_per_million", "cached_input_per_million", "cache_read_per_million"),
    *("cache_write_per_million", "cache_write_1h_per_million", "audio_input_per_million", "audio_output_per_million"),
    *("image_output_per_million", "web_search_per_thousand", "long_context_threshold"),
    *("long_context_input_per_million", "long_context_output_per_million", "long_context_cached_input_per_million"),
    *("long_context_cache_write_per_million", "long_context_cache_write_1h_per_million"),
}
KNOWN_TO_CLIENTS = {
    "anthropic/claude-sonnet-4-5-20250929": (200_000, "3", "15", "0.30", "3.75", "6"),
    "anthropic/claude-opus-4-20250514": (200_000, "15", "75", "1.50", "18.75", "30"),
    "anthropic/claude-opus-4-5-20251101": (200_000, "5", "25", "0.50", "6.25", "10"),
    "anthropic/claude-3-7-sonnet-20250219": (200_000, "3", "15", "0.30", "3.75", "6"),
    "openai/gpt-4.1": (1_000_000, "2", "8", "0.50", "2", None),
    "openai/gpt-4.1-mini": (1_000_000, "0.40", "1.60", "0.10", "0.40", None),
    "openai/o3": (200_000, "2", "8", "0.50", "2", None),
    "openai/o4-mini": (200_000, "1.10", "4.40", "0.275", "1.10", None),
    "openai/o3-deep-research-2025-06-26": (200_000, "10", "40", "2.50", "10", None),
    "openai/o4-mini-deep-research-2025-06-26": (200_000, "2", "8", "0.50", "2", None),
    "openai/gpt-5.2-2025-12-11": (400_000, "1.75", "14", "0.175", "1.75", None),
    "openai/gpt-5.2-codex": (400_000, "1.75", "14", "0.175", "1.75", None),
    "openai/gpt-5.2-pro-2025-12-11": (400_000, "21", "168", "21", "21", None),
    "openai/gpt-5-mini": (270_000, "0.25", "2", "0.025", "0.25", None),
    "openai/gpt-5-nano": (270_000, "0.05", "0.40", "0.005", "0.05", None),
    "openai/gpt-4o-transcribe": (0, "6", "10", "6", "6", None),
    "openai/gpt-4o-mini-transcribe": (0, "3", "5", "3", "3", None),
    "google/gemini-2.5-pro": (1_048_576, "1.25", "10", "0.125", "1.25", None),
    "google/gemini-3-flash-preview": (1_048_576, "0.50", "3", "0.05", "0.50", None),
    "google/gemini-3-pro-preview": (1_048_576, "2", "12", "0.20", "2", None),
    "google/gemini-3-flash-preview-transcribe": (1_048_576, "1", "0.40", "1", "1", None),
    "xai/grok-4": (256_000, "3", "15", "3", "3", None),
    "deepseek/deepseek-r1-0528": (131_072, "0.50", "2.15", "0.35", "0.50", None),
    "moonshotai/kimi-k2": (120_000, "0.57", "2.30", "0.57", "0.57", None),
}
"""Window, input, output, cache read, cache write, and the one for an hour."""
LONG_PRICES = {
    "google/gemini-2.5-pro": (200_000, "2.50", "15", "0.25", "2.50"),
    "google/gemini-3-pro-preview": (200_000, "4", "18", "0.40", "4"),
    "xai/grok-4": (128_000, "6", "30", "6", "6"),
    "openai/gpt-6.1-sol": (272_000, "4", "15", "0.20", "5"),
    "anthropic/claude-haiku-5-5": (100_000, "0.50", "2.50", "0.05", "0.625"),
    "xai/grok-4.7": (199_999, "4", "12", "1", "4"),
}
"""From how many tokens on; input, output, cache read, cache write."""
ASKED_BY_CLIENTS = {
    *("implementation_plan", "implementation_plan_merge", "voice_transcription", "text_improvement"),
    *("task_refinement", "generic_llm_stream", "regex_file_filter", "root_folder_selection"),
    *("file_relevance_assessment", "extended_path_finder", "web_search_prompts_generation", "web_search_execution"),
    *("video_analysis", "streaming", "unknown"),
}
"""A desktop does not start without these."""


def test_our_own_seed_holds_together() -> None:
    check_seed(OURS, has_price)


@pytest.mark.parametrize("model_id", MODELS)
def test_every_model_can_be_charged_and_is_mapped_to_providers_that_there_are(model_id: str) -> None:
    model = MODELS[model_id]
    price = read_price(model.pricing)
    assert set(model.mappings) <= set(load_providers())
    assert worst_cost_usd(price, model.context_window, model.max_output_tokens) < MAX_COST_USD
    assert set(model.pricing) <= PRICING_KEYS, "a key that nobody reads"
    assert ("long_context_threshold" in model.pricing) == any(key.startswith("long_") for key in model.pricing)


@pytest.mark.parametrize("model_id", CHATTING)
def test_the_windows_of_models_that_chat_are_known_and_hold_their_answers(model_id: str) -> None:
    assert MODELS[model_id].context_window >= MODELS[model_id].max_output_tokens > 0


@pytest.mark.parametrize("model_id", sorted(set(MODELS) - SANDBOX))
def test_every_price_says_where_it_is_from_and_of_which_day(model_id: str) -> None:
    model = MODELS[model_id]
    assert model.price_source is not None
    assert model.priced_on is not None
    assert date(2026, 11, 1) <= model.priced_on
    assert model.price_ends_on is None or model.priced_on <= model.price_ends_on


def test_models_have_somebody_to_stand_in_for_their_provider() -> None:
    alone = {model.id for model in OURS.models if "openrouter" not in model.mappings}
    transcribing = {model.id for model in OURS.models if model.model_type == "transcription"}
    assert alone == {"sandbox/echo", "openai/gpt-6.2-sol", "anthropic/claude-fable-5-2"} | transcribing


@pytest.mark.parametrize("model_id", KNOWN_TO_CLIENTS)
def test_the_models_that_clients_know_have_their_windows_and_prices(model_id: str) -> None:
    window, *rates = KNOWN_TO_CLIENTS[model_id]
    base = read_price(MODELS[model_id].pricing).base
    assert MODELS[model_id].context_window == window
    found = (base.input, base.output, base.cache_read, base.cache_write, base.cache_write_1h)
    assert found == tuple(None if rate is None else Decimal(rate) for rate in rates)


@pytest.mark.parametrize("model_id", LONG_PRICES)
def test_long_prompts_are_dearer_where_the_provider_says_so(model_id: str) -> None:
    threshold, *rates = LONG_PRICES[model_id]
    price = read_price(MODELS[model_id].pricing)
    assert price.long_context is not None
    assert price.long_context_threshold == threshold
    found = price.long_context
    assert (found.input, found.output, found.cache_read, found.cache_write) == tuple(map(Decimal, rates))


def test_what_a_long_prompt_writes_to_the_cache_is_dearer_too() -> None:
    price = read_price(MODELS["anthropic/claude-haiku-5-5"].pricing)
    assert cost_usd(price, Usage(cache_write_tokens=100_000)) == Decimal("0.0125")
    assert cost_usd(price, Usage(cache_write_tokens=100_001)) == Decimal("0.062501")
    assert cost_usd(price, Usage(cache_write_1h_tokens=100_001)) == Decimal("0.100001")


def test_cache_writes_cost_what_anthropic_and_openai_take() -> None:
    for model in OURS.models:
        base = read_price(model.pricing).base
        if "cache_write_per_million" in model.pricing:
            assert base.cache_write == base.input * Decimal("1.25"), model.id
        assert ("cache_write_1h_per_million" in model.pricing) == (model.provider == "anthropic"), model.id
        assert base.cache_write_1h in {None, base.input * 2}, model.id


def test_a_search_costs_what_its_provider_takes() -> None:
    prices = {model_id: read_price(model.pricing).web_search_per_thousand for model_id, model in MODELS.items()}
    assert prices["openai/gpt-4.1"] == prices["anthropic/claude-haiku-4-5"] == prices["openai/gpt-6.1-sol"] == 10
    assert prices["google/gemini-2.5-pro"] == 35
    assert prices["google/gemini-3-pro-preview"] == prices["google/gemini-4-argon"] == 14
    assert prices["xai/grok-4"] == prices["xai/grok-4.7"] == 5
    assert prices["deepseek/deepseek-r1-0528"] == 20
    assert prices["sandbox/echo"] is None


def test_models_that_need_it_are_asked_for_as_they_need_it() -> None:
    """Of OpenAI's models those that think are at home in its newer endpoint."""
    for model_id in CHATTING:
        capabilities = MODELS[model_id].capabilities
        is_openais = model_id.startswith("openai/")
        assert (capabilities.get("api") == "responses") == (is_openais and capabilities.get("reasoning") is True)
        takes_minutes = is_openais and ("deep-research" in model_id or "-pro" in model_id)
        assert capabilities.get("background", False) == takes_minutes
        assert capabilities.get("thinking", False) == (model_id.startswith("google/") and "-image" not in model_id)
        assert capabilities["text"] is capabilities["chat"] is True


def test_models_whose_cache_is_written_for_money_take_marks_for_it() -> None:
    for model in OURS.models:
        marks = model.capabilities.get("cache_breakpoints", False)
        assert marks == (model.provider == "openai" and "cache_write_per_million" in model.pricing), model.id


def test_what_transcribes_does_not_chat() -> None:
    transcribing = set(MODELS) - set(CHATTING)
    assert transcribing == {model_id for model_id in MODELS if "transcribe" in model_id or "whisper" in model_id}
    for model_id in transcribing:
        assert MODELS[model_id].capabilities["transcription"] is True
        assert "chat" not in MODELS[model_id].capabilities


def test_what_is_billed_by_the_second_costs_what_its_provider_asks_for_a_minute() -> None:
    """Ten tokens stand for a second, and nothing else costs anything."""
    minutes = {}
    for model_id, model in MODELS.items():
        if model.capabilities.get("billed_by_seconds"):
            price = read_price(model.pricing)
            minutes[model_id] = cost_usd(price, Usage(input_tokens=600, output_tokens=1000))
    assert minutes == {
        "openai/whisper-1": Decimal("0.006"),
        "openai/gpt-transcribe": Decimal("0.0045"),
        "sandbox/transcribe": Decimal("0.006"),
    }


def test_every_task_that_clients_ask_for_is_there() -> None:
    assert set(TASKS) == ASKED_BY_CLIENTS | {"implementation_plan_title"}


def test_the_tasks_are_such_as_an_administrator_may_write_them() -> None:
    rows = {model.id: as_row(model) for model in OURS.models}
    settings = read_ai_settings(build_rows(OURS)["setting", AI_SETTINGS].values["value"])
    assert check_ai_settings(settings, rows, build_models(rows.values())) == []


def as_row(model: ModelEntry) -> ModelRow:
    return ModelRow(
        id=model.id,
        name=model.name,
        provider_code=model.provider,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        capabilities=model.capabilities,
        pricing_info=model.pricing,
        provider_models=model.mappings,
        model_type=model.model_type,
    )


@pytest.mark.parametrize("key", TASKS)
def test_a_task_uses_models_that_can_do_it(key: str) -> None:
    kinds = {MODELS[model_id].model_type == "transcription" for model_id in TASKS[key].allowed_models}
    assert kinds == {key == "voice_transcription"}


@pytest.mark.parametrize("key", sorted(set(TASKS) - {"voice_transcription"}))
def test_every_task_has_a_model_that_its_provider_goes_on_with(key: str) -> None:
    assert [model_id for model_id in TASKS[key].allowed_models if MODELS[model_id].retires_on is None] != []


def test_the_first_model_of_a_task_was_not_switched_off_when_this_was_written() -> None:
    day = max(model.priced_on for model in OURS.models if model.priced_on is not None)
    for task in OURS.tasks:
        retires_on = MODELS[task.model].retires_on
        assert retires_on is None or retires_on > day, task.key


def test_a_plan_can_be_copied_in_five_ways() -> None:
    buttons = TASKS["implementation_plan"].copy_buttons
    assert [button.id for button in buttons] == ["plan", "carry-out", "step", "review", "verify"]
    filled = ("{{IMPLEMENTATION_PLAN}}", "{{TASK_DESCRIPTION}}", "{{STEP_CONTENT}}")
    for button in buttons:
        assert any(name in button.content for name in filled)
        rest = button.content
        for name in filled:
            rest = rest.replace(name, "")
        assert "{{" not in rest


def test_what_a_row_would_change_for_those_who_never_wrote_one_is_not_seeded() -> None:
    """As long as there is no row, SIGNUP_CREDITS_USD and the defaults in the code count."""
    assert OURS.configuration == {}
    assert OURS.max_concurrent_jobs == 20
    assert OURS.codex_cli is not None
    assert OURS.codex_cli.preferred_model == OURS.codex_cli.fallback_model == "gpt-5.2-codex"


def test_the_documents_of_both_regions_are_there() -> None:
    found = {(one.doc_type, one.region, one.version, one.effective_at, one.url) for one in OURS.documents}
    assert found == {
        (kind, region, "2025-08-12", date(2025, 8, 12), f"/legal/{region}/{kind}")
        for kind in ("terms", "privacy")
        for region in ("eu", "us")
    }
    assert OURS.regions == ()


def test_providers_are_those_that_there_are_code_for() -> None:
    assert {provider.code for provider in OURS.providers} == set(load_providers())
