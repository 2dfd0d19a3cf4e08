"""Every recorded exchange in OpenAI's chat dialect: what its answer says, and that we can ask for the same."""

import json
import random
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.chat import ToolCall
from proxy.dialects import openai_chat
from proxy.dialects.openai_chat.answer import Reading, open_reader
from proxy.dialects.openai_chat.errors import read_refusal
from proxy.dialects.openai_chat.quirks import ChatQuirks, openai_quirks
from proxy.errors import RequestNotSupported
from proxy.events import Failed, Usage
from proxy.provider import Target
from proxy.providers import openrouter, xai
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges
from tests.proxy.openai_chat_requests import read_request, rewrite
from tests.proxy.replay import (
    Answer,
    OpenReader,
    assert_harmless,
    assert_says,
    feed,
    missing_fields,
    mutate,
)

ENDPOINT = "chat.completions"
COUNTS = {
    "openai-chat": 111,
    "xai": 56,
    "openrouter": 74,
    "groq": 32,
    "deepseek": 21,
    "mistral": 21,
    "azure-openai": 5,
    "google-openai": 2,
}
"""Groq and the rest are no providers of ours: they show that the reader is made for the dialect, not for recordings."""
OURS = ("openai-chat", "xai", "openrouter")
FINISH_REASONS = {"function_call": "tool_calls"}
MADE_ID = "made"

LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "openai-chat": {
        "stream": "always streamed: a whole answer is the stream collected",
        "n": "one answer a request: the product has no place for more",
        "store": "nothing is stored, which is the default",
        "service_tier": "another price than the catalogue's",
        "moderation": "a setting of OpenAI's account, and the vocabulary has no place for it",
    },
    "xai": {"stream": "always streamed: a whole answer is the stream collected"},
    "openrouter": {
        "stream": "always streamed: a whole answer is the stream collected",
        "provider": "routes never come from a request",
    },
}
NOT_SAID = {
    "openai-chat-chat-no-messages-4b488d59": "no message at all: OpenAI refused it, and so do we",
    "xai-grok-code-fast-1-reasoning-basic-9d2f5616": "an effort that xAI refuses for this model, and so do we",
}


def made(provider: str) -> list[RecordedExchange]:
    return read_exchanges(MADE, provider, ENDPOINT)


ALL_MADE = [(provider, exchange) for provider in OURS for exchange in made(provider)]
IDS = [f"{provider}-{exchange.id}" for provider, exchange in ALL_MADE]
READINGS = {
    "xai": Reading(reasoning_beside=True, make_call_id=lambda: MADE_ID),
    "openrouter": Reading("openrouter-v1", make_call_id=lambda: MADE_ID),
}


def reader_of(provider: str) -> OpenReader:
    return partial(open_reader, provider, reading=READINGS.get(provider, Reading(make_call_id=lambda: MADE_ID)))


def expected(exchange: RecordedExchange) -> Answer:
    expect = exchange.expect
    calls = [
        ToolCall(call["id"] or MADE_ID, call["name"], call["arguments_raw"]) for call in expect["tool_calls"]
    ]
    failed = expect["error"] is not None or (not expect.get("complete", True) and expect["finish_reason"] is None)
    word = expect["finish_reason"] or ("tool_calls" if calls else "stop")
    return Answer(
        expect["text"] or "",
        expect["reasoning_text"] or "",
        expect["refusal"] or "",
        tuple(calls),
        () if failed else (FINISH_REASONS.get(word, word),),
        expected_usage(exchange),
        (expect.get("citations") or 0) - files_read(exchange),
        failed,
    )


def files_read(exchange: RecordedExchange) -> int:
    """The recordings count what OpenRouter read in a file among the citations; it cites nothing."""
    return len(re.findall(rb'"type": ?"file", ?"file"|"file": ?\{"content"', exchange.body))


def expected_usage(exchange: RecordedExchange) -> Usage | None:
    """Details that are more than their sum (one recording of OpenAI's, one of Mistral's) are cut off at it."""
    usage, raw = exchange.expect["usage"], exchange.expect.get("usage_raw") or {}
    if usage is None:
        return None
    known = {name: value or 0 for name, value in usage.items()}
    of_prompt, of_completion = raw.get("prompt_tokens_details") or {}, raw.get("completion_tokens_details") or {}
    uncached = known["input"] - known["cached_read"] - known["cache_write"]
    heard = min(of_prompt.get("audio_tokens") or 0, uncached)
    is_beside = known["total"] == known["input"] + known["output"] + known["reasoning"]
    thought = known["reasoning"] if is_beside else min(known["reasoning"], known["output"])
    said = known["output"] if is_beside else known["output"] - thought
    spoken, drawn = min(of_completion.get("audio_tokens") or 0, said), of_completion.get("image_tokens") or 0
    searches = (raw.get("server_tool_use_details") or {}).get("web_search_requests") or raw.get("num_sources_used")
    return Usage(
        input_tokens=uncached - heard,
        cache_read_tokens=known["cached_read"],
        cache_write_tokens=known["cache_write"],
        output_tokens=said - spoken - drawn,
        reasoning_tokens=thought,
        input_audio_tokens=heard,
        output_audio_tokens=spoken,
        output_image_tokens=drawn,
        searches=searches or 0,
    )


def assert_is_told(provider: str, exchange: RecordedExchange) -> None:
    if exchange.status == 200:
        assert_says(reader_of(provider), exchange, expected(exchange))
        if exchange.expect["error"]:
            assert_error_is_told(feed(reader_of(provider)(exchange.media_type), [exchange.body])[-1], exchange)
    else:
        failed = read_refusal(provider, exchange.status, exchange.headers, exchange.body)
        assert failed.status == exchange.expect["error"]["status"] == exchange.status
        assert_error_is_told(failed, exchange)


def assert_error_is_told(failed: object, exchange: RecordedExchange) -> None:
    assert isinstance(failed, Failed)
    error = exchange.expect["error"]
    assert failed.provider_error_type == str(error["type"] or error["code"] or "")[:100]
    if failed.code in {"authentication_failed", "permission_denied"}:
        assert failed.message not in error["message"]  # it may name our key or our organisation
    else:
        assert failed.message == re.sub(r"\b(org|proj|sk)-[\w*-]+", "…", error["message"][:500])


@pytest.mark.parametrize(("provider", "exchange"), ALL_MADE, ids=IDS)
def test_an_answer_says_the_same_however_it_is_split(provider: str, exchange: RecordedExchange) -> None:
    assert_is_told(provider, exchange)


ANSWERS = [(provider, one) for provider, one in ALL_MADE if one.status == 200]


@pytest.mark.parametrize(("provider", "exchange"), ANSWERS, ids=[f"{one[0]}-{one[1].id}" for one in ANSWERS])
def test_a_mutilated_answer_is_harmless(provider: str, exchange: RecordedExchange) -> None:
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for _ in range(100):
        assert_harmless(reader_of(provider), exchange, mutate(exchange.body, dice), dice)
        read_refusal(provider, 500, {}, mutate(exchange.body, dice))


@pytest.mark.parametrize("provider", COUNTS)
def test_every_recorded_answer_is_told(
    provider: str, recordings: Path, count_replayed: Callable[[str, int], None]
) -> None:
    exchanges = read_exchanges(recordings, provider, ENDPOINT)
    for exchange in exchanges:
        assert_is_told(provider, exchange)
    assert len(exchanges) == COUNTS[provider]
    count_replayed(f"answers of {provider}", len(exchanges))


@pytest.mark.parametrize("provider", COUNTS)
def test_mutilated_recorded_answers_are_harmless(provider: str, recordings: Path) -> None:
    dice = random.Random(2)  # noqa: S311 - not for secrets
    for exchange in read_exchanges(recordings, provider, ENDPOINT):
        for _ in range(5 if len(exchange.body) < 20_000 else 1):
            assert_harmless(reader_of(provider), exchange, mutate(exchange.body, dice), dice)
            read_refusal(provider, 500, {}, mutate(exchange.body, dice))


def quirks_of(provider: str, model: str) -> ChatQuirks:
    """OpenAI's models are told apart by the catalogue's capabilities; the recordings' models all took what they were
    sent, or said so in an error.
    """
    match provider:
        case "xai":
            return xai.quirks_of(Target("", "", model))
        case "openrouter":
            return openrouter.QUIRKS
    return openai_quirks(model, reasons=False, capabilities={"cache_breakpoints": model.startswith("gpt-5.6")})


def not_sent(provider: str, exchange: RecordedExchange) -> list[str]:
    """The fields of a recorded request that ours has not."""
    quirks = quirks_of(provider, exchange.request["model"])
    recorded = rewrite(exchange.request, quirks)
    target = Target("https://api.test/v1", "sk-1", exchange.request["model"])
    sent = json.loads(openai_chat.build_call(read_request(recorded), target, quirks).request.body)
    assert sent["stream"] is True
    return missing_fields(recorded, sent, LEFT_OUT[provider])


@pytest.mark.parametrize(("provider", "exchange"), ALL_MADE, ids=IDS)
def test_we_send_what_a_client_would_have_sent(provider: str, exchange: RecordedExchange) -> None:
    assert not_sent(provider, exchange) == []


@pytest.mark.parametrize("provider", OURS)
def test_every_recorded_request_can_be_sent(
    provider: str, recordings: Path, count_replayed: Callable[[str, int], None]
) -> None:
    exchanges = read_exchanges(recordings, provider, ENDPOINT)
    said = [exchange for exchange in exchanges if exchange.id not in NOT_SAID]
    missing = {exchange.id: fields for exchange in said if (fields := not_sent(provider, exchange))}
    assert missing == {}
    assert len(said) == COUNTS[provider] - sum(id_.startswith(f"{provider}-") for id_ in NOT_SAID)
    count_replayed(f"requests to {provider}", len(said))


def test_what_is_not_said_is_refused_and_not_changed(recordings: Path) -> None:
    refused = set()
    for provider in OURS:
        for exchange in read_exchanges(recordings, provider, ENDPOINT):
            if exchange.id in NOT_SAID:
                with pytest.raises(RequestNotSupported):
                    not_sent(provider, exchange)
                refused.add(exchange.id)
    assert refused == set(NOT_SAID)


def test_no_field_is_left_out_without_need(recordings: Path) -> None:
    """A reason for a field that no recording has is one that nobody has looked at."""
    needed: dict[str, set[str]] = {}
    for provider in OURS:
        bodies: list[dict[str, Any]] = [one.request for one in read_exchanges(recordings, provider, ENDPOINT)]
        needed[provider] = {name for name in LEFT_OUT[provider] if any(name in body for body in bodies)}
    assert needed == {provider: set(fields) for provider, fields in LEFT_OUT.items()}
