"""Estimates as the apps ask for them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from bpe_openai import get_encoding

from server.guard import SMALL_BODY_BYTES
from tests.server.served import Answer, Served, open_served, token_headers

MODEL = "openai/gpt-4.1-mini"
CALL = {"modelId": MODEL, "inputTokens": 1000, "outputTokens": 10}
COST = "0.000416"
FAMILIES = (
    ("openai/gpt-4o", "o200k_base", 100),
    ("openai/gpt-4.1-mini", "o200k_base", 100),
    ("openai/gpt-5-mini", "o200k_base", 100),
    ("openai/o3", "o200k_base", 100),
    ("o4-mini", "o200k_base", 100),
    ("openai/gpt-4-turbo", "cl100k_base", 100),
    ("anthropic/claude-sonnet-4-5-20250929", "o200k_base", 116),
    ("google/gemini-2.5-pro", "o200k_base", 103),
    ("nobody/knows-it", "o200k_base", 106),
)


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def ask(served: Served, name: str, body: object) -> Answer:
    user = await served.make_user(f"{uuid4()}@example.com")
    return await served.ask("POST", f"/api/models/{name}", token_headers(user), json.dumps(body).encode())


async def ask_well(served: Served, name: str, body: object) -> Any:
    answer = await ask(served, name, body)
    assert answer.status == 200, answer.body
    return answer.json


async def test_the_desktops_question_is_answered(served: Served) -> None:
    """As it asks: with nulls, and with a member that means nothing."""
    body = {**CALL, "cacheWriteTokens": None, "cacheReadTokens": None, "durationMs": None}
    assert await ask_well(served, "estimate-cost", body) == {
        "modelId": MODEL,
        "inputTokens": 1000,
        "outputTokens": 10,
        "cacheWriteTokens": 0,
        "cacheReadTokens": 0,
        "estimatedCost": COST,
        "costBreakdown": {
            "inputCost": "0.0004",
            "outputCost": "0.000016",
            "cacheWriteCost": None,
            "cacheReadCost": None,
        },
        "pricingModel": "Token-based (flexible JSON pricing)",
    }


async def test_a_duration_means_nothing_and_changes_nothing(served: Served) -> None:
    for duration in (0, 1200, 1.5):
        assert (await ask_well(served, "estimate-cost", {**CALL, "durationMs": duration}))["estimatedCost"] == COST


@pytest.mark.parametrize(
    ("change", "status", "error_type"),
    [
        ({"modelId": "openai/none"}, 404, "not_found"),
        ({"inputTokens": 2**31}, 400, "invalid_argument"),
        ({"cacheReadTokens": 1001}, 400, "invalid_argument"),
        ({"outputTokens": 10**9}, 400, "invalid_argument"),
        ({"inputTokens": "many"}, 400, "validation_error"),
        ({"outputTokens": None}, 400, "validation_error"),
    ],
)
async def test_what_cannot_be_estimated_is_told(
    served: Served, change: dict[str, object], status: int, error_type: str
) -> None:
    answer = await ask(served, "estimate-cost", CALL | change)
    assert (answer.status, answer.json["error_type"]) == (status, error_type)
    assert "openai/none" in str(change) or next(iter(change)) in answer.json["message"]


async def test_a_batch_is_answered_in_its_order(served: Served) -> None:
    calls = [{**CALL, "inputTokens": 100 * count} for count in range(120)]
    answer = await ask_well(served, "estimate-batch-cost", {"requests": calls})
    assert [one["inputTokens"] for one in answer["estimates"]] == [call["inputTokens"] for call in calls]
    assert answer["totalEstimatedCost"] == "0.28752", "714,000 of 0.40 and 1,200 of 1.60 a million"
    assert await ask_well(served, "estimate-batch-cost", {"requests": []}) == {
        "estimates": [],
        "totalEstimatedCost": "0",
    }


async def test_one_bad_call_fails_the_batch_and_is_named(served: Served) -> None:
    answer = await ask(served, "estimate-batch-cost", {"requests": [CALL, CALL | {"modelId": "x/y"}]})
    assert answer.status == 404
    assert "requests[1]" in answer.json["message"]


async def test_tokens_are_those_of_the_models_family(served: Served) -> None:
    text = "Nordstraße 7, 四季 – " * 50
    for model, encoding, percent in FAMILIES:
        counted = len(get_encoding(encoding).encode(text))
        assert await ask_well(served, "estimate-tokens", {"model": model, "text": text}) == {
            "model": model,
            "textLength": len(text.encode()),
            "estimatedTokens": -(-counted * percent // 100),
        }


async def test_an_empty_text_has_no_tokens(served: Served) -> None:
    answer = await ask_well(served, "estimate-tokens", {"model": "claude-sonnet-4-5-20250929", "text": ""})
    assert answer == {"model": "claude-sonnet-4-5-20250929", "textLength": 0, "estimatedTokens": 0}


async def test_a_text_may_have_a_megabyte_and_no_more(served: Served) -> None:
    body = {"model": "gpt-4o", "text": "word " * 200_000}
    answer = await ask_well(served, "estimate-tokens", body)
    assert answer["textLength"] == 1_000_000
    assert 200_000 <= answer["estimatedTokens"] <= 200_025, "a token more where a slice ends in a word"
    body["text"] += "x" * (SMALL_BODY_BYTES - 1_000_000)
    assert (await ask(served, "estimate-tokens", body)).status == 413


async def test_a_name_without_an_end_is_refused(served: Served) -> None:
    answer = await ask(served, "estimate-tokens", {"model": "m" * 201, "text": ""})
    assert (answer.status, answer.json["error_type"]) == (400, "invalid_argument")
