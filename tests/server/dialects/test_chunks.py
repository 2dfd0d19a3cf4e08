"""Chunks, as both dialects send them: what the clients require of each."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import Completed, Usage
from proxy.sse import SseDecoder
from server.dialects.chunks import ChunkWriter, snake_case_usage
from tests.server.dialects.answers import RICH_USAGE

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
    usage = {"prompt_tokens": 1}
    assert parse(WRITER.usage(usage)) == head(choices=[], usage=usage)


def test_a_choice_may_have_more_members() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": None, "logprobs": {"content": []}}
    assert parse(WRITER.delta({}, logprobs={"content": []})) == head(choices=[choice])


def test_usage_counts_every_token_once_in_the_totals() -> None:
    usage = snake_case_usage(Completed(RICH_USAGE, "0.000120", provisional=False))
    assert json.loads(msgspec.json.encode(usage)) == {
        "prompt_tokens": 19,
        "completion_tokens": 26,
        "total_tokens": 45,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 9, "audio_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 8, "image_tokens": 9},
        "server_tool_use": {"web_search_requests": 10},
        "cost": 0.00012,
    }


def test_searches_are_told_where_there_were_any() -> None:
    assert "server_tool_use" not in snake_case_usage(Completed(Usage(1), "0.000001", provisional=False))


def test_the_cost_is_a_number_with_its_six_places() -> None:
    usage = snake_case_usage(Completed(Usage(1), "0.000120", provisional=False))
    assert msgspec.json.encode(usage).endswith(b',"cost":0.000120}')


@pytest.mark.parametrize("name", ['with "quotes"', "line\nbreak", "ü"])
def test_a_models_name_is_written_as_json(name: str) -> None:
    assert parse(ChunkWriter("1", name, 0).text("x"))["model"] == name
