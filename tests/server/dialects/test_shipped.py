"""The dialect of the shipped clients: only the events that they know, each with every member that they require."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ProviderItem, WebSearch
from proxy.events import (
    AudioDelta,
    Cancelled,
    ChatEvent,
    Citation,
    Completed,
    Failed,
    Finished,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    Usage,
)
from server.dialects.shipped import DIALECT, USAGE_UPDATE_SECONDS, ShippedEncoder, decode, encode_problem, encode_whole
from server.errors import Problem
from tests.server.clocks import Clock
from tests.server.dialects.answers import (
    COMPLETED,
    EVERYTHING,
    REQUEST_ID,
    RICH,
    RICH_USAGE,
    TOOL_CALL,
    USAGE,
    build_answer,
    collect,
    read_stream,
)
from tests.server.dialects.bodies import build_body, refuse

KNOWN_EVENTS = {"", "stream_started", "usage_update", "stream_completed", "stream_cancelled", "error_details"}
FAILED = Failed("rate_limit_exceeded", "Slow down", "openai", 429, "rate_limit", 7)


def read(events: list[ChatEvent], **options: Any) -> list[tuple[str, Any]]:
    return read_stream(ShippedEncoder(build_answer(), Clock()), events, **options)


# Requests


def test_the_desktops_own_request_is_read() -> None:
    part = {"type": "text", "text": "…"}
    messages = [{"role": "system", "content": [part]}, {"role": "user", "content": [part]}]
    body = build_body(
        stream=True,
        max_tokens=8192,
        temperature=0.15,
        duration_ms=10_000,
        request_id="r1",
        task_type="extended_path_finder",
        messages=messages,
    )
    decoded = decode(body)
    request = decoded.request
    assert decoded.stream
    assert (request.max_output_tokens, request.sampling.temperature) == (8192, 0.15)
    assert (request.task_type, request.idempotency_key) == ("extended_path_finder", "r1")
    assert [message.role for message in request.messages] == ["system", "user"]


@pytest.mark.parametrize("name", ["task_type", "request_id"])
@pytest.mark.parametrize("text", ["a\x00b", "x" * 201, 5])
def test_what_is_stored_is_short_and_without_nul(name: str, text: object) -> None:
    assert name in refuse(decode, build_body(**{name: text}))


def test_an_empty_task_type_is_the_general_one() -> None:
    assert decode(build_body(task_type="", request_id="")) == decode(build_body())


@pytest.mark.parametrize("task_type", ["web_search_execution", "implementation_plan_with_web"])
def test_two_kinds_of_task_search_the_web(task_type: str) -> None:
    assert decode(build_body(task_type=task_type)).request.web_search == WebSearch()
    options = {"search_context_size": "low"}
    asked = decode(build_body(task_type=task_type, web_search_options=options)).request
    assert (asked.task_type, asked.web_search) == (task_type, WebSearch("low"))


@pytest.mark.parametrize(
    "task_type", ["", "implementation_plan", "web_search_workflow", "WEB_SEARCH_EXECUTION", "web_search"]
)
def test_no_other_task_does(task_type: str) -> None:
    assert decode(build_body(task_type=task_type)).request.web_search is None


# Streams


def test_the_stream_opens_before_the_provider_has_said_anything() -> None:
    assert DIALECT.answers_at_once
    assert read([]) == [("stream_started", {"requestId": str(REQUEST_ID)})]


def test_a_stream_has_only_events_that_the_clients_know() -> None:
    found = read([*EVERYTHING, FAILED])
    assert {name for name, _ in found} <= KNOWN_EVENTS
    assert found[0][0] == "stream_started"


def test_a_good_answer_ends_with_the_final_update_and_the_completion() -> None:
    names = [name for name, _ in read(EVERYTHING)]
    assert names[-2:] == ["usage_update", "stream_completed"]
    assert names.count("stream_completed") == 1


def test_chunks_have_what_the_clients_require() -> None:
    chunks = [data for name, data in read(EVERYTHING) if name == ""]
    assert len(chunks) == 6
    for chunk in chunks:
        assert (chunk["id"], chunk["model"]) == ("chatcmpl-1", "openai/gpt-4.1-mini")
        assert [(choice["index"], type(choice["delta"])) for choice in chunk["choices"]] == [(0, dict)]
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert texts == ["Hel", "lo", " no", None, None, None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_events_that_come_together_say_the_same(batch: int) -> None:
    assert read(EVERYTHING, batch=batch) == read(EVERYTHING)


@pytest.mark.parametrize(
    "event",
    [
        ReasoningDelta("Hm"),
        ReasoningSealed(0, "f", signature="s"),
        Logprobs(({"token": "x"},)),
        ImageDelta("image/png", "aGk="),
        AudioDelta("aGk="),
        ProviderItem("f", {}),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_these_clients_have_no_place_for_is_left_out(event: ChatEvent) -> None:
    assert ShippedEncoder(build_answer()).encode([event]) == b""


def test_of_all_events_only_those_that_the_clients_know_go_out() -> None:
    found = read(RICH)
    assert {name for name, _ in found} <= KNOWN_EVENTS
    texts = [data["choices"][0]["delta"].get("content") for name, data in found if name == ""]
    assert "".join(text or "" for text in texts) == "So"


def test_citations_come_in_a_chunk_without_text() -> None:
    (_, first), (_, second), (_, third) = read([event for event in RICH if isinstance(event, Citation)])[1:]
    page = {"url": "https://a.org", "title": "A", "start_index": 0, "end_index": 2, "content": "Said"}
    entry = {"index": 0, "type": "url_citation", "url_citation": page}
    assert first["choices"] == [
        {"index": 0, "delta": {"content": "", "annotations": [entry]}, "finish_reason": None}
    ]
    assert second["choices"][0]["delta"]["annotations"][0]["index"] == 1
    assert third["choices"][0]["delta"]["document_citations"][0]["title"] == "Rules"


def test_both_lifetimes_of_cache_writes_are_one_figure() -> None:
    completed = Completed(RICH_USAGE, "0.000120", provisional=False)
    (_, update), (_, last) = read([completed])[1:]
    assert (update["cacheWriteTokens"], last["cacheWriteTokens"]) == (9, 9)
    assert whole([completed])["usage"]["cacheWriteTokens"] == 9


def test_the_completion_has_every_member_and_the_exact_charge() -> None:
    encoded = ShippedEncoder(build_answer()).encode([COMPLETED])
    assert b'"finalCost":0.000120,' in encoded
    assert b'"estimatedCost":0.000120,' in encoded
    (_, update), (_, completed) = read([COMPLETED])[1:]
    counts = {"tokensInput": 100, "tokensOutput": 25, "cacheReadTokens": 30, "cacheWriteTokens": 10}
    shared = {"requestId": str(REQUEST_ID), **counts}
    cost = update["estimatedCost"]
    assert update == {**shared, "estimatedCost": cost, "tokensTotal": 125, "isFinal": True}
    assert completed == {**shared, "finalCost": cost}
    assert str(cost) == "0.000120"


def test_usage_updates_are_spaced_and_priced() -> None:
    """Whatever comes, once a second: the desktop's progress goes by them."""
    clock = Clock()
    encoder = ShippedEncoder(replace(build_answer(), usage_so_far=lambda: USAGE), clock)
    assert b"usage_update" not in encoder.encode([TextDelta("x")]) + encoder.encode([USAGE])
    clock.now += USAGE_UPDATE_SECONDS
    chunk, event, update = encoder.encode([TextDelta("y")]).partition(b"event: usage_update\n")
    assert b'"content":"y"' in chunk
    assert event
    assert json.loads(update.partition(b"data: ")[2]) == {
        "requestId": str(REQUEST_ID),
        "tokensInput": 100,
        "tokensOutput": 25,
        "cacheReadTokens": 30,
        "cacheWriteTokens": 10,
        "estimatedCost": 0.00015,
        "tokensTotal": 125,
        "isFinal": False,
    }
    assert b"usage_update" not in encoder.encode([TextDelta("z")])
    clock.now += USAGE_UPDATE_SECONDS
    last = encoder.encode([Failed("network_error", "gone", "openai")])
    assert b"usage_update" not in last, "nothing comes after the end"


def test_usage_that_cannot_be_does_not_break_the_stream() -> None:
    clock = Clock()
    encoder = ShippedEncoder(replace(build_answer(), usage_so_far=lambda: Usage(2**40)), clock)
    clock.now += USAGE_UPDATE_SECONDS
    assert encoder.encode([TextDelta("x"), Usage(2**40), TextDelta("y")]).count(b"data: ") == 2


def test_a_failure_is_an_event_that_the_clients_decode() -> None:
    assert read([TextDelta("x"), FAILED])[-1] == (
        "error_details",
        {
            "requestId": str(REQUEST_ID),
            "error": {
                "code": "rate_limit_exceeded",
                "message": "Slow down",
                "fallbackAttempted": False,
                "providerError": {
                    "provider": "openai",
                    "statusCode": 429,
                    "errorType": "rate_limit",
                    "details": "Slow down",
                },
            },
        },
    )


def test_a_cancelled_answer_ends_with_what_it_has_cost_and_nothing_follows() -> None:
    encoder = ShippedEncoder(build_answer(), clock := Clock())
    clock.now += 2 * USAGE_UPDATE_SECONDS
    found = read_stream(encoder, [TextDelta("x"), Cancelled(USAGE, "0.000120", provisional=True)], batch=2)
    assert [name for name, _ in found] == ["stream_started", "", "usage_update", "stream_cancelled"]
    assert (found[2][1]["isFinal"], found[2][1]["estimatedCost"]) == (True, Decimal("0.000120"))
    assert found[3][1] == {
        "requestId": str(REQUEST_ID),
        "reason": "the request was cancelled by its user",
        "finalCost": Decimal("0.000120"),
        "tokensInput": 100,
        "tokensOutput": 25,
        "cacheReadTokens": 30,
        "cacheWriteTokens": 10,
    }


def test_an_answer_that_a_filter_left_nothing_of_is_told_as_an_error_with_what_it_cost() -> None:
    found = read([ReasoningDelta("Hm"), TextDelta(""), Finished("content_filter"), COMPLETED])
    names = [name for name, _ in found]
    assert names[-2:] == ["usage_update", "error_details"]
    assert "stream_completed" not in names
    assert found[-2][1]["isFinal"] is True
    error = found[-1][1]["error"]
    assert (error["code"], error["fallbackAttempted"]) == ("content_filter", False)
    assert found[-1][1]["requestId"] == str(REQUEST_ID)


@pytest.mark.parametrize("said", [TextDelta("x"), RefusalDelta("No"), *TOOL_CALL[:1]], ids=["text", "refusal", "call"])
def test_an_answer_that_a_filter_cut_short_is_completed(said: ChatEvent) -> None:
    found = read([said, Finished("content_filter"), COMPLETED], batch=1)
    assert [name for name, _ in found][-2:] == ["usage_update", "stream_completed"]
    assert found[-3][1]["choices"][0]["finish_reason"] == "content_filter"


def test_an_empty_answer_that_nothing_filtered_is_completed() -> None:
    assert read([Finished("stop"), COMPLETED])[-1][0] == "stream_completed"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_through(texts: list[str]) -> None:
    found = read([TextDelta(text) for text in texts])
    assert [data["choices"][0]["delta"]["content"] for _, data in found[1:]] == texts


# Whole answers


def whole(events: list[ChatEvent]) -> Any:
    return json.loads(encode_whole(build_answer(), collect(events)))


def test_a_whole_answer_has_camel_case_usage_in_a_snake_case_object() -> None:
    assert whole([TextDelta("Hel"), TextDelta("lo"), Finished("length"), COMPLETED]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "openai/gpt-4.1-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "length"}],
        "usage": {
            "promptTokens": 100,
            "completionTokens": 25,
            "totalTokens": 125,
            "cost": 0.00012,
            "cachedInputTokens": 30,
            "cacheWriteTokens": 10,
            "cacheReadTokens": 30,
        },
    }


def test_the_cost_is_a_number_with_its_six_places() -> None:
    assert b'"cost":0.000120,' in encode_whole(build_answer(), collect([COMPLETED]))


@pytest.mark.parametrize("events", [[], TOOL_CALL, [ReasoningDelta("Hm")]], ids=["empty", "tool call", "reasoning"])
def test_content_is_never_null(events: list[ChatEvent]) -> None:
    assert whole(events)["choices"][0]["message"]["content"] == ""


def test_a_filtered_answer_is_whole_and_says_so() -> None:
    (choice,) = whole([Finished("content_filter"), COMPLETED])["choices"]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"}


def test_a_refusal_is_content() -> None:
    assert whole([RefusalDelta("I can't")])["choices"][0]["message"]["content"] == "I can't"


def test_tool_calls_come_along() -> None:
    (call,) = whole(TOOL_CALL)["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}


def test_citations_come_along_and_nothing_else() -> None:
    message = whole(RICH)["choices"][0]["message"]
    assert message.keys() == {"role", "content", "tool_calls", "annotations", "document_citations"}
    assert [entry["url_citation"]["url"] for entry in message["annotations"]] == ["https://a.org", "https://b.org"]


def test_without_usage_there_is_no_usage() -> None:
    assert "usage" not in whole([TextDelta("x")])


# Errors


def test_an_error_is_the_envelope() -> None:
    assert json.loads(encode_problem(Problem(402, "credit_insufficient", "Insufficient credits: x"))) == {
        "code": 402,
        "message": "Insufficient credits: x",
        "error_type": "credit_insufficient",
        "errorType": "credit_insufficient",
    }
