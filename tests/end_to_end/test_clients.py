"""What programs of all kinds send, and what they look for in the answer, against the running server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from storage.seed import seed
from tests.end_to_end.caller import OPENAI, SHIPPED, parse_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.replaying import KINDS, build_settings, write_catalogue
from tests.end_to_end.test_sdk_providers import script_for
from tests.fake_upstream import RecordedRequest
from tests.fakes import END_OF_CHUNKS, Step, open_fake_upstream, openai_error, sse_chunk, stream_head

GOOGLE = "google/replay"
USED_BY_BLOCKED = 8
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}
QUESTION = {"role": "user", "content": "Hi"}
HABITS: dict[str, dict[str, Any]] = {
    "every member at its neutral value": {
        "temperature": 1,
        "top_p": 1,
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "stop": [],
        "logit_bias": {},
        "user": "",
        "service_tier": "auto",
        "store": False,
        "metadata": {},
        "response_format": {"type": "text"},
        "modalities": ["text"],
    },
    "every member as null": dict.fromkeys(
        ["temperature", "tools", "tool_choice", "functions", "function_call", "stop", "response_format", "seed"]
    ),
    "no tools, and how to call them": {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False},
    "an empty stop": {"stop": ""},
    "members that nobody knows": {"chat_id": "x", "session_id": "y", "provider_specific_fields": {"a": [1]}},
    "a dumped message of an SDK": {
        "tools": [TOOL],
        "messages": [
            QUESTION,
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": [CALL],
            },
            {"role": "tool", "tool_call_id": "c1", "name": "look", "content": [{"type": "text", "text": "rain"}]},
        ],
    },
    "an empty result and an empty turn": {
        "tools": [TOOL],
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": ""},
            {"role": "assistant", "content": ""},
            QUESTION,
        ],
    },
}


def respond(request: RecordedRequest) -> list[Step]:
    """Blocks what speaks of bombs, finds long what speaks of books, and says Hello to all else."""
    if b"bomb" in request.body:
        usage = {"promptTokenCount": USED_BY_BLOCKED, "totalTokenCount": USED_BY_BLOCKED}
        blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage}
        return [stream_head(), sse_chunk(blocked), END_OF_CHUNKS]
    if b"book" in request.body:
        message = "This model's maximum context length is 128 tokens. However, your messages resulted in 999 tokens."
        return openai_error(400, "invalid_request_error", "context_length_exceeded", message)
    return script_for(request.path)(["Hel", "lo"], usage=(12, 2))


@asynccontextmanager
async def open_client(stores: Stores, tmp_path: Path) -> AsyncIterator[tuple[Cloche, Customer, httpx2.AsyncClient]]:
    seed(stores.owner_database_url, write_catalogue(tmp_path / "catalogue.toml"))
    async with (
        open_fake_upstream(respond) as upstream,
        open_cloche(stores, settings=build_settings(upstream)) as cloche,
    ):
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=20) as client:
            yield cloche, customer, client


def ask(model: str, text: str, **members: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": text}], **members}


async def test_what_programs_send_by_habit_is_served_by_every_provider(stores: Stores, tmp_path: Path) -> None:
    async with open_client(stores, tmp_path) as (cloche, _, client):
        for kind in KINDS:
            for name, members in HABITS.items():
                for stream in (False, True):
                    body = {**ask(kind.model, "Hi", stream=stream), **kind.asks, **members}
                    answer = await client.post(OPENAI, json=body)
                    assert (kind.name, name, answer.status_code) == (kind.name, name, 200), answer.text
        await cloche.wait_settled()
        cloche.check_accounts()


async def test_a_blocked_prompt_is_an_error_of_the_shipped_stream_and_its_cost_is_told(
    stores: Stores, tmp_path: Path
) -> None:
    async with open_client(stores, tmp_path) as (cloche, customer, client):
        answer = await client.post(SHIPPED, json=ask(GOOGLE, "bomb", stream=True))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        events = parse_events(answer.content)
        assert [name for name, _ in events] == ["stream_started", "", "usage_update", "error_details"]
        update, error = events[-2][1], events[-1][1]["error"]
        assert (update["tokensInput"], update["isFinal"]) == (USED_BY_BLOCKED, True)
        assert (error["code"], error["fallbackAttempted"]) == ("content_filter", False)
        await cloche.wait_settled()
        assert cloche.query("SELECT outcome, cost_usd::float8 FROM usage") == [("completed", update["estimatedCost"])]
        assert cloche.balance(customer)[1] == 0
        cloche.check_accounts()


async def test_a_blocked_prompt_is_a_whole_answer_without_text_in_both_dialects(
    stores: Stores, tmp_path: Path
) -> None:
    async with open_client(stores, tmp_path) as (_, _, client):
        for path in (SHIPPED, OPENAI):
            answer = await client.post(path, json=ask(GOOGLE, "bomb"))
            (choice,) = answer.json()["choices"]
            assert (answer.status_code, choice["finish_reason"], choice["message"]["content"]) == (
                200,
                "content_filter",
                "",
            )
        streamed = await client.post(OPENAI, json=ask(GOOGLE, "bomb", stream=True))
        assert json.loads(streamed.text.split("data: ")[2])["choices"][0]["finish_reason"] == "content_filter"


async def test_too_long_a_prompt_is_told_in_the_words_that_programs_look_for(stores: Stores, tmp_path: Path) -> None:
    """Found by us or by the provider; the desktop looks for a phrase, others for OpenAI's code."""
    async with open_client(stores, tmp_path) as (_, _, client):
        for text in ("word " * 1_000_001, "book"):
            refusal = await client.post(OPENAI, json=ask("openai/replay-chat", text))
            error = refusal.json()["error"]
            assert (refusal.status_code, error["type"], error["code"]) == (
                400,
                "invalid_request_error",
                "context_length_exceeded",
            )
            shipped = await client.post(SHIPPED, json=ask("openai/replay-chat", text))
            assert (shipped.status_code, shipped.json()["error_type"]) == (400, "bad_request")
            assert "context window exceeded" in shipped.json()["message"]
        streamed = await client.post(SHIPPED, json=ask("openai/replay-chat", "book", stream=True))
        name, data = parse_events(streamed.content)[-1]
        assert (name, data["error"]["code"]) == ("error_details", "context_length_exceeded")
        assert data["error"]["providerError"]["context"] == {"requestedTokens": 999, "modelLimit": 128}
