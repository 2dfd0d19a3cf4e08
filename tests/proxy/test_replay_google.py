"""Recorded exchanges with the Gemini API: what the answers say, and whether we would ask for as much."""

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.chat import ToolCall
from proxy.dialects import gemini
from proxy.events import Usage
from proxy.provider import Target
from proxy.providers.google import PROVIDER, read_refusal
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges
from tests.proxy.google_requests import read_models, read_request, spell
from tests.proxy.replay import Answer, assert_harmless, assert_says, feed, missing_fields, mutate, read, summarize

ENDPOINTS = ("generateContent", "streamGenerateContent")
FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "promptFeedback:SAFETY": "content_filter",
    "promptFeedback:PROHIBITED_CONTENT": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
}

LEFT_OUT = {
    "cachedContent": "names a cache in the operator's account, which is not one user's to read",
    "generationConfig.candidateCount": "one answer a request: the product has no place for more",
    "safetySettings": "how much Google filters is for the operator's account to say, not for a request",
    "systemInstruction.role": "Google makes nothing of it: instructions are no turn of anybody",
}

UNSAYABLE = {
    "google-matrix-direct-uploaded-file-video-google-gemini3-65c5a68a": "a file in the operator's account",
    "google-test-google-model-mobile-youtube-video-url-input-572801bc": "an address: hosts never come from a request",
    "google-google-model-file-search-grounding-gemini-3-true-389e86a7": "fileSearch: its stores are the operator's",
}

SEARCHED = {
    "google-cassettes-google-genai-v1-cassette-696b43d2": 1,
    "google-cassettes-google-genai-v2-cassette-2f0215af": 1,
    "google-cassettes-google-genai-v2-latest-cassette-8541ef5e": 1,
    "google-google-test-google-model-web-search-tool-stream-9350e2ee": 1,
    "google-provider-google-test-google-web-search-streaming-940ee319": 1,  # two queries; 2.5 is charged by the prompt
    "google-put-test-native-output-with-builtin-tools-stream-f4b559b2": 1,  # and an empty one, which is free
    "google-red-output-test-native-output-with-builtin-tools-fc23d8ee": 1,
    "google-rounds-the-answer-and-exposes-the-queries-it-ran-d1b2d48d": 3,
    "google-t-web-search-tool-stream-google-gemini-2-5-flash-b7f7063f": 1,
}
"""What Google charges for each answer that searched."""

open_reader = partial(gemini.open_reader, "google", new_id=lambda: "")
"""Ids that were made here cannot be expected: without them."""


def read_all(folder: Path) -> list[RecordedExchange]:
    return [one for endpoint in ENDPOINTS for one in read_exchanges(folder, "google", endpoint)]


MADE_EXCHANGES = read_all(MADE)
MADE_ANSWERS = [one for one in MADE_EXCHANGES if one.status == 200]
MADE_REFUSALS = [one for one in MADE_EXCHANGES if one.status != 200]


def expected(exchange: RecordedExchange, searches: int) -> Answer:
    expect = exchange.expect
    failed = expect["error"] is not None
    calls = tuple(
        ToolCall(call["id"] or "", call["name"], msgspec.json.encode(call["arguments"]).decode())
        for call in expect["tool_calls"]
    )
    reason = None if failed else FINISH_REASONS[expect["finish_reason"]]
    return Answer(
        expect["text"] or "",
        expect["reasoning_text"] or "",
        expect["refusal"] or "",
        calls,
        () if reason is None else ("tool_calls" if calls and reason == "stop" else reason,),
        _usage(expect, searches),
        expect["citations"],
        failed,
    )


def _usage(expect: dict[str, Any], searches: int) -> Usage | None:
    """The recordings' numbers hold the cached tokens in the input and leave out what tools read."""
    usage, raw = expect["usage"], expect["usage_raw"]
    if usage is None:
        return None
    cached, output = usage["cached_read"] or 0, usage["output"] or 0
    sound = _of(raw, "promptTokensDetails", "AUDIO") - _of(raw, "cacheTokensDetails", "AUDIO")
    spoken, drawn = (_of(raw, "candidatesTokensDetails", kind) for kind in ("AUDIO", "IMAGE"))
    return Usage(
        input_tokens=usage["input"] + raw.get("toolUsePromptTokenCount", 0) - cached - sound,
        cache_read_tokens=cached,
        output_tokens=output - spoken - drawn,
        reasoning_tokens=usage["reasoning"] or 0,
        input_audio_tokens=sound,
        output_audio_tokens=spoken,
        output_image_tokens=drawn,
        searches=searches,
    )


def _of(raw: dict[str, Any], details: str, modality: str) -> int:
    return sum(one["tokenCount"] for one in raw.get(details, ()) if one["modality"] == modality)


def assert_refusal_is_told(exchange: RecordedExchange) -> None:
    failed = read_refusal(exchange.status, exchange.headers, exchange.body)
    error = exchange.expect["error"]
    assert failed.status == error["status"] == exchange.status
    assert failed.provider_error_type == error["type"]
    if failed.code in {"authentication_failed", "permission_denied"}:
        assert failed.message not in error["message"]  # it names our project or key
    else:
        assert failed.message == error["message"][:500].replace("project_number:000000000000", "…")


def missing(exchange: RecordedExchange, model: str) -> list[str]:
    """What the recorded request asks for and we would not."""
    spelt = spell(exchange.request)
    call = PROVIDER.build_call(read_request(spelt, model), Target("https://google.test/v1beta", "key", model))
    return missing_fields(spelt, json.loads(call.request.body), LEFT_OUT)


@pytest.mark.parametrize("exchange", MADE_ANSWERS, ids=lambda exchange: exchange.id)
def test_an_answer_says_the_same_however_it_is_split(exchange: RecordedExchange) -> None:
    assert_says(open_reader, exchange, expected(exchange, exchange.expect["searches"]))


@pytest.mark.parametrize("exchange", MADE_ANSWERS, ids=lambda exchange: exchange.id)
def test_an_answer_may_be_split_in_two_anywhere(exchange: RecordedExchange) -> None:
    answer, body = expected(exchange, exchange.expect["searches"]), exchange.body
    for position in range(0, len(body) + 1, 7):
        assert read(open_reader, exchange, [body[:position], body[position:]]) == answer


@pytest.mark.parametrize("exchange", MADE_REFUSALS, ids=lambda exchange: exchange.id)
def test_a_refusal_is_told_as_google_means_it(exchange: RecordedExchange) -> None:
    assert_refusal_is_told(exchange)


@pytest.mark.parametrize("exchange", MADE_EXCHANGES, ids=lambda exchange: exchange.id)
def test_a_request_said_in_our_words_asks_for_as_much(exchange: RecordedExchange) -> None:
    assert missing(exchange, read_models(MADE / "google")[exchange.id]) == []


@pytest.mark.parametrize("exchange", MADE_ANSWERS, ids=lambda exchange: exchange.id)
def test_a_mutilated_answer_is_harmless(exchange: RecordedExchange) -> None:
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for _ in range(100):
        assert_harmless(PROVIDER_READER, exchange, mutate(exchange.body, dice), dice)
        read_refusal(500, {}, mutate(exchange.body, dice))


PROVIDER_READER = partial(gemini.open_reader, "google")


def test_every_recorded_answer_of_google_is_read(recordings: Path, count_replayed: Any) -> None:
    answers = [one for one in read_all(recordings) if one.status == 200]
    for exchange in answers:
        assert_says(open_reader, exchange, expected(exchange, SEARCHED.get(exchange.id, 0)))
    count_replayed("answers of google", len(answers))
    assert len(answers) == 98


def test_every_recorded_refusal_of_google_is_told(recordings: Path, count_replayed: Any) -> None:
    refusals = [one for one in read_all(recordings) if one.status != 200]
    for exchange in refusals:
        assert_refusal_is_told(exchange)
    count_replayed("refusals of google", len(refusals))
    assert len(refusals) == 12


def test_every_recorded_request_to_google_is_built(recordings: Path, count_replayed: Any) -> None:
    models = read_models(recordings / "google")
    said = [one for one in read_all(recordings) if one.request and one.id not in UNSAYABLE]
    found = {one.id: missing(one, models[one.id]) for one in said}
    assert {id_: fields for id_, fields in found.items() if fields} == {}
    count_replayed("requests to google", len(said))
    assert len(said) == 102


def test_a_made_id_is_of_no_other_call(recordings: Path) -> None:
    ids = [
        call.id
        for exchange in read_all(recordings)
        if exchange.status == 200
        for call in summarize(feed(PROVIDER_READER(exchange.media_type), [exchange.body])).tool_calls
    ]
    assert len(set(ids)) == len(ids) == 43
    assert all(ids)


def test_mutilated_recorded_answers_are_harmless(recordings: Path) -> None:
    dice = random.Random(3)  # noqa: S311 - not for secrets
    for exchange in read_all(recordings):
        for _ in range(5 if len(exchange.body) < 20_000 else 1):
            assert_harmless(PROVIDER_READER, exchange, mutate(exchange.body, dice), dice)
