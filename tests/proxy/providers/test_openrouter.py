"""OpenRouter's own ways."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.chat import ChatRequest, Message, ProviderTool, Sampling, Text, WebSearch
from proxy.errors import RequestNotSupported
from proxy.events import Usage
from proxy.provider import Target
from proxy.providers.openrouter import PROVIDER, build_lookup, read_generation, read_generation_id
from tests.proxy.exchanges import read_exchanges

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),), 5, Sampling(temperature=0.5, reasoning_effort="low"))
TARGET = Target(PROVIDER.default_base_url, "sk-or-1", "deepseek/deepseek-r1-0528")


def build(request: ChatRequest = REQUEST) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(PROVIDER.build_call(request, TARGET).request.body)
    return sent


def test_it_lives_where_openrouter_says_and_is_told_who_asks() -> None:
    request = PROVIDER.build_call(REQUEST, TARGET).request
    assert request.url == "https://openrouter.ai/api/v1/chat/completions"
    assert ("HTTP-Referer", "https://plantocode.com") in request.headers
    assert ("X-Title", "PlanToCode") in request.headers


def test_no_prompt_goes_to_a_provider_that_keeps_it_and_usage_is_asked_for() -> None:
    sent = build()
    assert sent["provider"] == {"data_collection": "deny"}
    assert sent["usage"] == {"include": True}
    assert (sent["max_tokens"], sent["temperature"], sent["reasoning"]) == (5, 0.5, {"effort": "low"})
    assert not sent.keys() & {"models", "route", "data_collection", "max_completion_tokens", "reasoning_effort"}


def test_it_searches_with_its_own_tool() -> None:
    sent = build(ChatRequest("x", REQUEST.messages, web_search=WebSearch(max_searches=2)))
    assert sent["tools"] == [{"type": "openrouter:web_search", "parameters": {"max_uses": 2}}]


@pytest.mark.parametrize("type_", ["openrouter:web_fetch", "openrouter:image_generation", "openrouter:subagent", "mcp"])
def test_tools_that_cost_more_than_tokens_are_refused(type_: str) -> None:
    with pytest.raises(RequestNotSupported, match=type_):
        build(ChatRequest("x", REQUEST.messages, provider_tools=(ProviderTool(type_, {"type": type_}),)))


def test_the_clock_is_passed_on() -> None:
    definition = {"type": "openrouter:datetime", "parameters": {"timezone": "Europe/London"}}
    tool = ProviderTool("openrouter:datetime", definition)
    assert build(ChatRequest("x", REQUEST.messages, provider_tools=(tool,)))["tools"] == [definition]


def test_it_takes_images_of_four_types_and_no_documents() -> None:
    assert PROVIDER.media.image_types == {"image/jpeg", "image/png", "image/webp", "image/gif"}
    assert PROVIDER.media.document_types == frozenset()


GENERATION: dict[str, Any] = {
    "id": "gen-1",
    "upstream_id": None,
    "total_cost": 0.0015,
    "cancelled": True,
    "tokens_prompt": 1,
    "tokens_completion": 1,
    "native_tokens_prompt": 100,
    "native_tokens_completion": 25.0,
    "native_tokens_completion_images": None,
    "native_tokens_reasoning": 5,
    "native_tokens_cached": 30,
    "num_search_results": 5,
}


def read(**changes: Any) -> Usage | None:
    return read_generation(json.dumps({"data": {**GENERATION, **changes}}).encode(), "gen-1")


def test_an_answer_is_asked_for_by_its_id_with_the_key_alone() -> None:
    request = build_lookup(TARGET, "gen-1")
    assert (request.method, request.url) == ("GET", "https://openrouter.ai/api/v1/generation?id=gen-1")
    assert request.headers == (("Authorization", "Bearer sk-or-1"), ("Accept", "application/json"))
    assert request.body == b""


def test_a_generation_says_what_was_billed_in_buckets_that_do_not_overlap() -> None:
    assert read() == Usage(input_tokens=70, cache_read_tokens=30, output_tokens=20, reasoning_tokens=5)
    images = read(native_tokens_completion_images=8, native_tokens_reasoning=None)
    assert images == Usage(input_tokens=70, cache_read_tokens=30, output_tokens=17, output_image_tokens=8)


@pytest.mark.parametrize("none", [None, 0])
def test_a_generation_without_tokens_says_nothing(none: int | None) -> None:
    assert read(native_tokens_prompt=none, native_tokens_completion=none, native_tokens_cached=none) is None


def test_another_generation_says_nothing_of_this_one() -> None:
    assert read(id="gen-2") is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": null}', b'{"data": {"id": 7}}', b"[" * 9000])
def test_what_is_no_generation_says_nothing(body: bytes) -> None:
    assert read_generation(body, "gen-1") is None


def test_the_id_stands_in_the_head_or_else_in_a_chunk() -> None:
    chunk = b': OPENROUTER PROCESSING\n\ndata: {"id":"gen-2","choices":[{"delta":{"content":"a"}}]}\n\n'
    assert read_generation_id({"x-generation-id": "gen-1"}, chunk) == "gen-1"
    assert read_generation_id({}, chunk) == "gen-2"
    assert read_generation_id({}, b": OPENROUTER PROCESSING\n\n") is None
    assert read_generation_id({}, b'data: {"id":"chatcmpl-1"}\n\n') is None


def test_no_text_of_a_model_becomes_an_id_and_none_that_a_url_should_not_hold() -> None:
    said = json.dumps({"choices": [{"delta": {"content": '"id":"gen-evil"'}}]}).encode()
    assert read_generation_id({}, said) is None
    for id_ in ("gen-1&key=x", "gen-1/../keys", "", "gen-", "gen-\u00e4", "gen-" + "1" * 300):
        assert read_generation_id({"x-generation-id": id_}, b"") is None
        assert read_generation_id({}, json.dumps({"id": id_}).encode()) is None


def test_recorded_streams_have_their_id_where_we_look(recordings: Path) -> None:
    """In all that OpenRouter answered itself; others stand under other names, and one was cut before it."""
    streams = [one for one in read_exchanges(recordings, "openrouter", "chat.completions") if one.is_stream]
    ids = [read_generation_id(one.headers, one.body[:2000]) for one in streams if b'"gen-' in one.body[:2000]]
    assert len(ids) > 15
    assert None not in ids
