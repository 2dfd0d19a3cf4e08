"""The document that the desktop starts with: what is in it, in which order, and in which words."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from proxy.provider import load_providers
from proxy.routing import Upstream
from server.ai_settings import AiSettings, CodexCli, CopyButton, TaskSettings
from server.runtime_configuration import (
    build_runtime_configuration,
    encode_runtime_configuration,
    list_models,
    show_decimal,
)
from storage.catalogue import ModelRow, ProviderRow
from tests.server.offered_models import build_offered, build_row

NAMES = {"anthropic": "Anthropic", "google": "google", "openai": "OpenAI", "openrouter": "OpenRouter", "xai": "xAI"}
BOTH = {"openai": "b", "openrouter": "openai/b"}


def build_providers(**statuses: str) -> list[ProviderRow]:
    ordered = sorted(NAMES, key=lambda code: NAMES[code].encode())
    return [
        ProviderRow(number, code, NAMES[code], None, None, None, {}, statuses.get(code, "active"))
        for number, code in enumerate(ordered)
    ]


def build_upstreams(*codes: str) -> dict[str, Upstream]:
    """Those codes have a key, and no other."""
    known = load_providers()
    return {code: Upstream(known[code], "https://x", ("k",) if code in codes else ()) for code in NAMES}


def list_ids(rows: Sequence[ModelRow], *codes: str, **statuses: str) -> list[tuple[str, str]]:
    by_id, models = build_offered(*rows)
    listed = list_models(models, by_id, build_providers(**statuses), build_upstreams(*codes))
    return [(one.provider.code, one.model.id) for one in listed]


def build(settings: AiSettings, *rows: ModelRow, codes: Sequence[str] = tuple(NAMES)) -> Any:
    by_id, models = build_offered(*rows)
    listed = list_models(models, by_id, build_providers(), build_upstreams(*codes))
    return json.loads(encode_runtime_configuration(build_runtime_configuration(settings, by_id, listed)).body)


def test_the_whole_document_is_as_the_contract_has_it() -> None:
    button = CopyButton("Copy", "{{IMPLEMENTATION_PLAN}}", "copy")
    task = TaskSettings("openai/a", 4096, Decimal("0.70"), ("openai/a",), (button,))
    codex = CodexCli("x", "y", None, {"a": "b"}, "xhigh")
    row = build_row(
        "openai/a",
        description="Good",
        pricing_info={"input_per_million": 0.275, "output_per_million": "3.00", "cached_input_per_million": "1E+1"},
    )
    assert build(AiSettings({"x": task}, 20, codex), row) == {
        "tasks": {
            "x": {
                "model": "openai/a",
                "maxTokens": 4096,
                "temperature": 0.7,
                "copyButtons": [{"id": "copy", "label": "Copy", "content": "{{IMPLEMENTATION_PLAN}}"}],
                "allowedModels": ["openai/a"],
            }
        },
        "providers": [
            {
                "provider": {"code": "openai", "name": "OpenAI"},
                "models": [
                    {
                        "id": "openai/a",
                        "name": "A",
                        "provider": "openai",
                        "providerName": "OpenAI",
                        "description": "Good",
                        "contextWindow": 1000,
                        "priceInputPerMillion": "0.275",
                        "priceOutputPerMillion": "3",
                        "priceCacheRead": "10",
                        "priceCacheWrite": None,
                    }
                ],
            }
        ],
        "maxConcurrentJobs": 20,
        "codexCli": {
            "preferredModel": "x",
            "miniModel": "y",
            "fallbackModel": None,
            "modelOverrides": {"a": "b"},
            "reasoningEffort": "xhigh",
            "miniReasoningEffort": None,
        },
    }


def test_what_is_not_set_is_null() -> None:
    found = build(AiSettings({"x": TaskSettings("openai/a", 1, Decimal(0))}), build_row("openai/a"))
    assert found["maxConcurrentJobs"] is None
    assert found["codexCli"] is None
    assert found["tasks"]["x"]["copyButtons"] is None
    assert found["tasks"]["x"]["allowedModels"] is None
    model = found["providers"][0]["models"][0]
    assert (model["description"], model["priceCacheRead"], model["priceCacheWrite"]) == (None, None, None)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"cache_read_per_million": "0.30", "cached_input_per_million": "9"}, ("0.3", None)),
        ({"cached_input_per_million": "0.050"}, ("0.05", None)),
        ({"cache_write_per_million": 3.75}, (None, "3.75")),
    ],
)
def test_a_cache_price_is_the_one_that_is_charged(told: dict[str, Any], expected: tuple[str | None, ...]) -> None:
    pricing = {"input_per_million": 1, "output_per_million": 1, **told}
    model = build(AiSettings(), build_row("openai/a", pricing_info=pricing))["providers"][0]["models"][0]
    assert (model["priceCacheRead"], model["priceCacheWrite"]) == expected


def test_tasks_providers_and_models_come_in_the_order_of_their_bytes() -> None:
    tasks = {key: TaskSettings("openai/a", 1, Decimal(0)) for key in ("b", "a_b", "ab", "a")}
    rows = [build_row(id_) for id_ in ("xai/a", "google/a", "openai/a", "anthropic/a", "openai/c")]
    rows += [build_row("openai/b", name="a"), build_row("openai/d", name="Z")]
    found = build(AiSettings(tasks), *rows)
    assert list(found["tasks"]) == ["a", "a_b", "ab", "b"]
    assert [group["provider"]["name"] for group in found["providers"]] == ["Anthropic", "OpenAI", "google", "xAI"]
    assert [model["name"] for model in found["providers"][1]["models"]] == ["A", "C", "Z", "a"]


def test_a_model_is_listed_once_and_under_the_aggregator_only_where_there_is_no_other() -> None:
    rows = [
        build_row("openai/b", provider_models=BOTH),
        build_row("deepseek/r", provider_code="openrouter", provider_models={"openrouter": "r"}),
        build_row("meta/m", provider_code="openrouter", provider_models={"openrouter": "m", "xai": "m", "google": "m"}),
    ]
    assert list_ids(rows, *NAMES) == [("openai", "openai/b"), ("openrouter", "deepseek/r"), ("google", "meta/m")]
    assert list_ids(rows, "openrouter", "xai") == [
        *[("openrouter", "openai/b"), ("openrouter", "deepseek/r")],
        ("xai", "meta/m"),
    ]
    assert list_ids(rows, "openai") == [("openai", "openai/b")]


@pytest.mark.parametrize(
    "row",
    [
        build_row("openai/a", pricing_info={}),
        build_row("openai/a", provider_models={}),
        build_row("openai/a", provider_models={"nobody": "a"}),
        build_row("xai/a"),
    ],
    ids=["no price", "no mapping", "a provider that we do not know", "no key for its provider"],
)
def test_what_cannot_be_called_here_is_not_listed(row: ModelRow) -> None:
    assert list_ids([row, build_row("openai/b")], "openai") == [("openai", "openai/b")]


def test_only_active_providers_are_listed() -> None:
    assert list_ids([build_row("openai/a")], "openai", openai="beta") == []
    row = build_row("openai/b", provider_models=BOTH)
    assert list_ids([row], "openai", "openrouter", openai="beta") == [("openrouter", "openai/b")]


def test_every_task_names_a_model_that_is_listed() -> None:
    task = TaskSettings("openai/a", 1, Decimal(0), ("openai/a", "google/a"))
    found = build(AiSettings({"x": task}), build_row("openai/a"), build_row("google/a"), codes=["google"])
    assert found["tasks"]["x"]["model"] == "google/a"
    assert found["tasks"]["x"]["allowedModels"] == ["google/a"]
    assert build(AiSettings({"x": task}), build_row("openai/a"), codes=[]) == {
        "tasks": {},
        "providers": [],
        "maxConcurrentJobs": None,
        "codexCli": None,
    }


def test_the_etag_is_strong_and_goes_with_the_bytes() -> None:
    by_id, _ = build_offered()
    one, same, other = (
        encode_runtime_configuration(build_runtime_configuration(AiSettings(max_concurrent_jobs=jobs), by_id, []))
        for jobs in (1, 1, 2)
    )
    assert one == same
    assert one.etag != other.etag
    assert one.etag.startswith('"')
    assert one.etag.endswith('"')
    assert len(one.etag) == 34


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *[("3", "3"), ("3.00", "3"), ("0.30", "0.3"), ("0.275", "0.275"), ("10", "10"), ("1E+3", "1000")],
        *[("0.000001", "0.000001"), ("0", "0"), ("-0", "0"), ("0E+3", "0")],
    ],
)
def test_decimals_are_the_shortest_and_no_powers(number: str, text: str) -> None:
    assert show_decimal(Decimal(number)) == text
