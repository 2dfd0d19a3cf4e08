"""Every recorded exchange with a Responses API, read and asked for anew."""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.chat import ProviderItem, ToolCall
from proxy.dialects.openai_responses.answer import open_reader, read_refusal
from proxy.dialects.openai_responses.call import build_call
from proxy.errors import RequestNotSupported
from proxy.events import Failed, Usage
from proxy.provider import ProviderCall, Target
from proxy.providers import openai
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges
from tests.proxy.replay import Answer, assert_harmless, assert_says, feed, missing_fields, mutate
from tests.proxy.responses_requests import normalize, read_request

RECORDED = {"openai-responses": 111, "xai-responses": 20, "openrouter-responses": 7}
MADE_EXCHANGES = read_exchanges(MADE, "openai-responses", "responses")

LEFT_OUT = {
    "stream": "always streamed, or in the background: a whole answer is the stream collected",
    "service_tier": "another price than the catalogue's",
    "previous_response_id": "nothing is stored at a provider: every request holds its conversation",
    "truncation": "a conversation that is too long is refused, and not cut without a word",
    "moderation": "a second answer, of another model, for which the product has no place",
    "context_management": "a conversation is not rewritten at the provider; clients shorten it themselves",
    "provider": "who answers is the catalogue's choice and not a request's",
    "user": "safety_identifier is its successor, and has the same value",
    "include.code_interpreter_call.outputs": "belongs to a tool that is not offered",
    "tools.external_web_access": "the product has no place for a search without the web",
    "input.function_call.id": "the provider's own name of the call, which need not go back: call_id is what counts",
    "input.function_call.status": "says nothing of a call that is over",
    "input.function_call_output.id": "a name that the client gave, which nothing refers to",
    "input.message.id": "the provider's own name of its message, which need not go back",
    "input.message.status": "says nothing of a message that is over",
    "input.message.content.annotations": "the product keeps citations apart from the words that they belong to",
    "input.message.content.logprobs": "what the product tells of an answer and does not send back",
}
LEFT_OUT_OF_ONE: dict[str, dict[str, str]] = {
    "openrouter-responses": {"max_tool_calls": "it bounds the tools of a provider, and none was asked for"}
}
REFUSED_TOOLS = {
    "code_interpreter": "its containers are paid for by time",
    "file_search": "it is paid for by the call",
    "image_generation": "its images have a price of their own",
    "mcp": "its server would be named by a request",
}
"""A request with one of these is refused by its name; the rest of it is compared without."""

NOT_SAID = {
    "openai-responses-onsestooltests-imagegentoolinputmaskwithimageuri-6d2f4669": "names the address of an image",
    "openai-responses-tooltests-imagegentoolinputmaskwithimageuriasync-dd5fa37b": "names the address of an image",
    "openai-responses-vcr-structured-data-basics-image-f3f66da7": "names the address of an image",
    "openai-responses-return-matrix-direct-url-audio-openai-responses-ddab3423": "names the address of a file",
    "openai-responses-openai-openai-responses-post-ec358e44-bcbfa986": "names a prompt that is stored at the provider",
    "openai-responses-v1-response-with-mixed-prompt-url-stripped-e9791043": "names a prompt stored at the provider",
}
"""Hosts never come from a request, and a request holds its own words."""


def item_format(exchange: RecordedExchange) -> str:
    return "xai-responses-v1" if exchange.id.startswith("xai") else "openai-responses-v1"


def opener(exchange: RecordedExchange) -> Callable[[str], Any]:
    return partial(open_reader, "openai", item_format(exchange))


def expected(exchange: RecordedExchange) -> Answer:
    """A call of a computer is an item of the provider for us, and among the tool calls in the recordings."""
    expect = exchange.expect
    calls = [call for call in expect["tool_calls"] if call["name"] != "computer_call"]
    failed = expect["error"] is not None
    return Answer(
        text=expect["text"] or "",
        reasoning=expect["reasoning_text"] or "",
        refusal=expect["refusal"] or "",
        tool_calls=tuple(ToolCall(call["id"], call["name"], call["arguments_raw"]) for call in calls),
        finish_reasons=() if failed else (_finish_reason(exchange),),
        usage=_usage(exchange),
        citations=expect["citations"] or 0,
        failed=failed,
    )


def _finish_reason(exchange: RecordedExchange) -> str:
    told = exchange.expect["finish_reason"]
    if told != "completed":
        return {"max_output_tokens": "length"}.get(told.removeprefix("incomplete:"), "content_filter")
    items = _whole_answer(exchange)["output"]
    waits = exchange.expect["tool_calls"] or any(item.get("execution") == "client" for item in items)
    return "tool_calls" if waits or any(item["type"] == "custom_tool_call" for item in items) else "stop"


def _usage(exchange: RecordedExchange) -> Usage | None:
    usage = exchange.expect["usage"]
    if usage is None:
        return None
    read, write, reasoning = usage["cached_read"] or 0, usage["cache_write"] or 0, usage["reasoning"] or 0
    return Usage(
        input_tokens=usage["input"] - read - write,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=usage["output"] - reasoning,
        reasoning_tokens=reasoning,
        searches=_searches(_whole_answer(exchange)),
    )


def _searches(answer: Mapping[str, Any]) -> int:
    """The recordings' own description does not have them."""
    details = answer["usage"].get("server_side_tool_usage_details")
    if details is not None:
        return int(details["web_search_calls"])
    actions = [item["action"]["type"] for item in answer["output"] if item["type"] == "web_search_call"]
    return actions.count("search")


def _whole_answer(exchange: RecordedExchange) -> dict[str, Any]:
    if not exchange.is_stream:
        return dict(json.loads(exchange.body))
    lines = exchange.body.decode().split("\n")
    told = [json.loads(line[6:]) for line in lines if line.startswith('data: {"')]
    ends = [event["response"] for event in told if event.get("response", {}).get("usage")]
    return dict(ends[-1]) if ends else {"output": []}


def server_items(exchange: RecordedExchange) -> list[str]:
    """The recordings' description has those that a client answers among the tool calls."""
    events = feed(opener(exchange)(exchange.media_type), [exchange.body])
    types = [str(event.item["type"]) for event in events if isinstance(event, ProviderItem)]
    return [type_ for type_ in types if type_ != "computer_call"]


def recorded(folder: Path) -> Iterator[RecordedExchange]:
    for provider in RECORDED:
        yield from read_exchanges(folder, provider, "responses")


def assert_answer_is_read(exchange: RecordedExchange) -> None:
    assert_says(opener(exchange), exchange, expected(exchange))
    assert server_items(exchange) == exchange.expect["server_items"]


def assert_refusal_is_told(exchange: RecordedExchange) -> None:
    failed = read_refusal("openai", exchange.status, exchange.headers, exchange.body)
    error = exchange.expect["error"]
    assert failed.status == error["status"] == exchange.status
    assert failed.provider_error_type == (error["type"] or error["code"] or "")
    if failed.code == "authentication_failed":
        assert failed.message not in error["message"]  # it may name our key or our organisation
    else:
        assert failed.message == re.sub(r"\borg-\w+", "…", error["message"][:500])


def refused_tools(body: Mapping[str, Any]) -> set[str]:
    return {tool["type"] for tool in body.get("tools", [])} & REFUSED_TOOLS.keys()


def ask_anew(exchange: RecordedExchange, body: Mapping[str, Any]) -> ProviderCall:
    """As the provider's own file does for OpenAI, which decides by the model's name whether it reasons."""
    capabilities = {
        "api": "responses",
        "background": body.get("background") is True,
        "cache_breakpoints": "prompt_cache_options" in body,
    }
    request = read_request(body, item_format(exchange))
    if not exchange.id.startswith(("xai", "openrouter")):
        return openai.build_call(request, Target("https://api.test/v1", "sk-1", request.model, capabilities))
    target = Target("https://api.test/v1", "sk-1", request.model, {**capabilities, "reasoning": True})
    return build_call(request, target, "other", "Other", format=item_format(exchange))


def assert_asked_for_anew(exchange: RecordedExchange) -> None:
    body = dict(exchange.request)
    for type_ in refused_tools(body):
        with pytest.raises(RequestNotSupported, match="provider_tools"):
            ask_anew(exchange, body)
        body["tools"] = [tool for tool in body["tools"] if tool["type"] != type_]
    sent = json.loads(ask_anew(exchange, body).request.body)
    provider = next((name for name in LEFT_OUT_OF_ONE if exchange.id.startswith(name)), "")
    left_out = LEFT_OUT | LEFT_OUT_OF_ONE.get(provider, {})
    assert missing_fields(normalize(body), normalize(sent), left_out) == [], exchange.id


@pytest.mark.parametrize("exchange", MADE_EXCHANGES, ids=lambda exchange: exchange.id)
def test_an_exchange_of_our_own_making_is_read(exchange: RecordedExchange) -> None:
    if exchange.status == 200:
        assert_answer_is_read(exchange)
    else:
        assert_refusal_is_told(exchange)


@pytest.mark.parametrize("exchange", MADE_EXCHANGES, ids=lambda exchange: exchange.id)
def test_an_exchange_of_our_own_making_is_asked_for_anew(exchange: RecordedExchange) -> None:
    assert_asked_for_anew(exchange)


@pytest.mark.parametrize("exchange", MADE_EXCHANGES, ids=lambda exchange: exchange.id)
def test_a_mutilated_exchange_of_our_own_making_is_harmless(exchange: RecordedExchange) -> None:
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for _ in range(100):
        body = mutate(exchange.body, dice)
        assert_harmless(opener(exchange), exchange, body, dice)
        assert isinstance(read_refusal("openai", 500, {}, body), Failed)


@pytest.mark.parametrize("provider", RECORDED)
def test_every_recorded_answer_is_read(
    provider: str, recordings: Path, count_replayed: Callable[[str, int], None]
) -> None:
    exchanges = read_exchanges(recordings, provider, "responses")
    for exchange in exchanges:
        if exchange.status == 200:
            assert_answer_is_read(exchange)
        else:
            assert_refusal_is_told(exchange)
    count_replayed(f"{provider}, answers read", len(exchanges))
    assert len(exchanges) == RECORDED[provider]


def test_mutilated_recorded_answers_are_harmless(recordings: Path) -> None:
    dice = random.Random(4)  # noqa: S311 - not for secrets
    for exchange in recorded(recordings):
        for _ in range(5 if len(exchange.body) < 20_000 else 1):
            assert_harmless(opener(exchange), exchange, mutate(exchange.body, dice), dice)


def test_every_recorded_request_is_asked_for_anew(
    recordings: Path, count_replayed: Callable[[str, int], None]
) -> None:
    said = [exchange for exchange in recorded(recordings) if exchange.id not in NOT_SAID]
    with_refused_tools = [exchange for exchange in said if refused_tools(exchange.request)]
    for exchange in said:
        assert_asked_for_anew(exchange)
    count_replayed("Responses APIs, requests built", len(said))
    assert (len(said), len(with_refused_tools)) == (132, 12)


def test_what_is_not_said_names_something_outside_of_the_request(recordings: Path) -> None:
    not_said = [exchange for exchange in recorded(recordings) if exchange.id in NOT_SAID]
    assert len(not_said) == len(NOT_SAID)
    assert all(re.search(r'"https?://|"prompt"', json.dumps(exchange.request)) for exchange in not_said)
