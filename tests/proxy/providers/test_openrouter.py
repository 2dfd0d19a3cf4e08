"""OpenRouter's own ways."""

import json
from typing import Any

import pytest

from proxy.chat import ChatRequest, Message, ProviderTool, Sampling, Text, WebSearch
from proxy.errors import RequestNotSupported
from proxy.provider import Target
from proxy.providers.openrouter import PROVIDER

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
