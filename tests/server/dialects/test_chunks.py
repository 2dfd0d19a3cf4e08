"""Chunks, as both dialects send them: what the clients require of each."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ToolCallDelta, Usage
from proxy.sse import SseDecoder
from server.dialects.chunks import ChunkWriter, snake_case_usage, tool_call_delta

WRITER = ChunkWriter("chatcmpl-1", "openai/gpt-4.1-mini", 1_700_000_000)


def parse(data: bytes) -> Any:
    (event,) = SseDecoder().feed(data)
    assert event.name == ""
    return json.loads(event.data)


def head(**others: object) -> dict[str, object]:
    known = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000}
    return known | {"model": "openai/gpt-4.1-mini"} | others


def test_a_text_is_a_chunk_with_all_that_clients_require() -> None:
    choice = {"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}
    assert parse(WRITER.text("Hel")) == head(choices=[choice])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_through_as_one_event(text: str) -> None:
    assert parse(WRITER.text(text))["choices"][0]["delta"]["content"] == text


def test_the_fast_path_writes_what_the_slow_one_does() -> None:
    assert parse(WRITER.text("x")) == parse(WRITER.delta({"content": "x"}))


def test_the_end_has_its_reason() -> None:
    assert parse(WRITER.delta({}, "length"))["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]


def test_usage_comes_in_a_chunk_without_choices() -> None:
    usage = snake_case_usage(Usage(1, 2, 3, 4, 5))
    assert parse(WRITER.usage(usage)) == head(choices=[], usage=usage)


def test_usage_counts_every_token_once_in_the_totals() -> None:
    assert snake_case_usage(Usage(1, 2, 3, 4, 5)) == {
        "prompt_tokens": 6,
        "completion_tokens": 9,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }


@pytest.mark.parametrize("name", ['with "quotes"', "line\nbreak", "ü"])
def test_a_models_name_is_written_as_json(name: str) -> None:
    assert parse(ChunkWriter("1", name, 0).text("x"))["model"] == name


def test_a_tool_call_is_named_in_its_first_piece_alone() -> None:
    first = tool_call_delta(ToolCallDelta(1, "c1", "look", ""))
    function = {"name": "look", "arguments": ""}
    assert first == {"tool_calls": [{"index": 1, "id": "c1", "type": "function", "function": function}]}
    next_ = tool_call_delta(ToolCallDelta(1, arguments='{"a'))
    assert next_ == {"tool_calls": [{"index": 1, "function": {"arguments": '{"a'}}]}
