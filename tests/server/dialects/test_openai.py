"""OpenAI's dialect, as their SDKs read it."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import (
    AudioDelta,
    Cancelled,
    ChatEvent,
    Failed,
    Finished,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from server.dialects.openai import DIALECT, OpenAIEncoder, decode, encode_problem, encode_whole
from server.errors import Problem
from tests.server.dialects.answers import (
    COMPLETED,
    EVERYTHING,
    LOGPROB,
    TOOL_CALL,
    build_answer,
    collect,
    read_stream,
)
from tests.server.dialects.bodies import build_body

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 25,
    "total_tokens": 125,
    "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0, "image_tokens": 0},
    "cost": Decimal("0.000120"),
}


def read(events: list[ChatEvent], *, include_usage: bool = False, batch: int = 1) -> list[Any]:
    """The data of each event; none of them may have a name."""
    found = read_stream(OpenAIEncoder(build_answer(include_usage=include_usage)), events, batch=batch)
    assert {name for name, _ in found} == {""}
    return [data for _, data in found]


# Requests


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": {"include_usage": None}}, False),
        ({"stream_options": {"include_usage": True, "include_obfuscation": False}}, True),
    ],
)
def test_usage_comes_if_it_is_asked_for(members: dict[str, Any], expected: bool) -> None:
    decoded = decode(build_body(stream=True, **members))
    assert decoded.stream
    assert decoded.include_usage is expected


def test_the_members_of_the_other_dialect_mean_nothing() -> None:
    assert decode(build_body(task_type="x\x00", request_id="r")) == decode(build_body())


# Streams


def test_a_stream_starts_with_the_role_once_the_provider_has_answered() -> None:
    assert not DIALECT.answers_at_once
    (first,) = read([])
    assert first["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]


def test_a_good_answer_ends_with_done() -> None:
    found = read(EVERYTHING)
    assert found[-1] == "[DONE]"
    assert found.count("[DONE]") == 1
    assert found[-2]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]


def test_every_delta_has_its_place() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in read(EVERYTHING)[1:-2]]
    assert deltas[:4] == [
        {"reasoning_content": "Hm", "reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "Hm"}]},
        {"content": "Hel"},
        {"content": "lo"},
        {"refusal": " no"},
    ]
    assert [call["tool_calls"][0]["index"] for call in deltas[4:]] == [0, 0]


def test_usage_is_the_last_chunk_for_those_who_asked() -> None:
    chunk, done = read(EVERYTHING, include_usage=True)[-2:]
    assert (chunk["choices"], chunk["usage"], done) == ([], USAGE, "[DONE]")
    assert all("usage" not in chunk for chunk in read(EVERYTHING)[:-1])


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_events_that_come_together_say_the_same(batch: int) -> None:
    assert read(EVERYTHING, batch=batch) == read(EVERYTHING)


def test_log_probabilities_stand_beside_the_text_that_they_directly_follow() -> None:
    expected = {"content": [LOGPROB], "refusal": None}
    text, logprobs = TextDelta("So"), Logprobs((LOGPROB,))
    (together,) = read([text, logprobs], batch=2)[1:]
    assert together["choices"] == [
        {"index": 0, "delta": {"content": "So"}, "finish_reason": None, "logprobs": expected}
    ]
    (first, second) = read([text, logprobs])[1:]
    assert first["choices"] == [{"index": 0, "delta": {"content": "So"}, "finish_reason": None}]
    assert second["choices"] == [{"index": 0, "delta": {}, "finish_reason": None, "logprobs": expected}]
    assert len(read([text, logprobs, logprobs, text, text], batch=5)[1:]) == 4


def test_an_ending_that_openai_has_no_word_for_is_no_good_end() -> None:
    (chunk,) = read([Finished("error")])[1:]
    ending = {"finish_reason": "length", "native_finish_reason": "error"}
    assert chunk["choices"] == [{"index": 0, "delta": {}, **ending}]
    assert whole([TextDelta("x"), Finished("error")])["choices"][0].items() >= ending.items()


def test_a_cancelled_answer_ends_like_one_that_failed() -> None:
    found = read([TextDelta("x"), Cancelled(COMPLETED.usage, "0.000120", provisional=True)])
    assert found[-1]["error"] == {
        "message": "the request was cancelled by its user",
        "type": "request_cancelled",
        "param": None,
        "code": "request_cancelled",
    }
    assert "[DONE]" not in found


def test_after_a_failure_nothing_is_done() -> None:
    found = read([TextDelta("x"), Failed("provider_unavailable", "Try later", "openai", 503)])
    error = {"message": "Try later", "type": "provider_unavailable", "param": None, "code": "provider_unavailable"}
    assert found[-1] == {"error": error}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_through(texts: list[str]) -> None:
    found = read([TextDelta(text) for text in texts])
    assert [data["choices"][0]["delta"]["content"] for data in found[1:]] == texts


# Whole answers


def whole(events: list[ChatEvent]) -> Any:
    return json.loads(encode_whole(build_answer(), collect(events)), parse_float=Decimal)


def message(events: list[ChatEvent]) -> Any:
    return whole(events)["choices"][0]["message"]


def test_a_whole_answer_is_openais_object() -> None:
    assert whole([TextDelta("Hello"), Finished("length"), COMPLETED]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "openai/gpt-4.1-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": USAGE,
    }


def test_content_is_null_where_something_else_stands_in_its_place() -> None:
    assert message([])["content"] == ""
    assert message(TOOL_CALL)["content"] is None
    assert message([ImageDelta("image/png", "aGk=")])["content"] is None
    assert message([AudioDelta(transcript="Hi")])["content"] is None
    assert message([RefusalDelta("No")]) == {"role": "assistant", "content": None, "refusal": "No"}


def test_tool_calls_and_reasoning_come_along() -> None:
    found = message([ReasoningDelta("Hm"), *TOOL_CALL])
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    assert (found["tool_calls"], found["reasoning_content"]) == ([call], "Hm")


def test_log_probabilities_are_joined() -> None:
    found = whole([TextDelta("So"), Logprobs((LOGPROB,)), Logprobs((LOGPROB,))])
    expected = {**LOGPROB, "logprob": Decimal("-0.5")}
    assert found["choices"][0]["logprobs"] == {"content": [expected, expected], "refusal": None}


# Errors


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "insufficient_quota"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
    ],
)
def test_an_error_is_openais_with_our_type_as_its_code(status: int, type_: str) -> None:
    assert json.loads(encode_problem(Problem(status, "our_type", "Label: why"))) == {
        "error": {"message": "Label: why", "type": type_, "param": None, "code": "our_type"}
    }


def test_the_code_is_the_word_that_programs_look_for_where_there_is_one() -> None:
    """As OpenAI writes it: LiteLLM, LangChain and others tell too long a prompt by it."""
    problem = Problem(400, "bad_request", "Bad request: why", reason="context_length_exceeded")
    assert json.loads(encode_problem(problem))["error"]["code"] == "context_length_exceeded"


def test_too_long_a_prompt_is_said_in_the_same_words_in_a_stream() -> None:
    found = read([Failed("context_length_exceeded", "No room", "openai", 400)])
    assert found[-1]["error"]["message"] == "No room (context window exceeded)"
