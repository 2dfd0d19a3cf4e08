"""What we build for a request is what its client asked for: recorded requests through our door and out again."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.chat import ChatRequest, Document, Image, Message, Refusal, Sampling, Text, Tool, ToolCall
from proxy.dialects.openai_chat import build_body, build_request
from proxy.provider import Target
from server.dialects import openai
from server.errors import RequestInvalid
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges

MADE_EXCHANGES = read_exchanges(MADE, "openai-chat", "chat.completions")
REQUEST = ChatRequest("openai/x", (Message("user", (Text("Hi"),)),))
TARGET = Target("https://api.test/v1/", "sk-1", "x-2025")

MEMBERS = (
    "model",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "reasoning_effort",
)
NOT_TAKEN = (
    "remote addresses are not fetched",  # an address in a request must not make anybody fetch it
    "at least one message",  # OpenAI refuses that one too
    "no part of type 'input_audio'",  # the catalogue has no chat model that hears
    "n: one answer a request",  # several answers would need several meters
)


def rebuild(request: dict[str, Any]) -> dict[str, Any]:
    """Through the door of OpenAI's dialect, and out again for a provider."""
    decoded = openai.decode(json.dumps(request).encode()).request
    return build_body(decoded, decoded.model, "max_completion_tokens")


def assert_has_every_member(request: dict[str, Any]) -> None:
    built = rebuild(request)
    for name in MEMBERS:
        assert built.get(name) == (None if request.get(name) == [] else request.get(name)), name
    stop = request.get("stop")
    assert built.get("stop") == ([stop] if isinstance(stop, str) else stop)
    assert built.get("max_completion_tokens") == (request.get("max_completion_tokens") or request.get("max_tokens"))
    assert [normalize(message) for message in built["messages"]] == [normalize(m) for m in request["messages"]]
    assert built["stream"] is True
    assert built["stream_options"] == {"include_usage": True}


def normalize(message: dict[str, Any]) -> dict[str, Any]:
    """Differences that mean nothing to a provider, and a hint for its cache, which we do not know."""
    known = {name: value for name, value in message.items() if value is not None}
    if known["role"] == "developer":
        known["role"] = "system"
    if isinstance(known.get("content"), list):
        known["content"] = [_without_cache_hint(part) for part in known["content"]]
        if len(known["content"]) == 1 and known["content"][0]["type"] == "text":
            known["content"] = known["content"][0]["text"]
    return known


def _without_cache_hint(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "prompt_cache_breakpoint"}


@pytest.mark.parametrize(
    "exchange", [one for one in MADE_EXCHANGES if "n" not in one.request], ids=lambda exchange: exchange.id
)
def test_a_request_keeps_every_member_that_we_know(exchange: RecordedExchange) -> None:
    assert_has_every_member(exchange.request)


def test_every_recorded_request_to_openai_is_kept_or_refused_for_a_reason(recordings: Path) -> None:
    exchanges = read_exchanges(recordings, "openai-chat", "chat.completions")
    refused = {exchange.id: why for exchange in exchanges if (why := _refusal(exchange.request))}
    for exchange in exchanges:
        if exchange.id not in refused:
            assert_has_every_member(exchange.request)
    assert [why for why in refused.values() if not any(reason in why for reason in NOT_TAKEN)] == []
    assert (len(exchanges), len(refused)) == (111, 15)


def _refusal(request: dict[str, Any]) -> str | None:
    try:
        rebuild(request)
    except RequestInvalid as error:
        return str(error)
    return None


def test_the_request_goes_to_the_target_with_its_key_and_its_name_of_the_model() -> None:
    request = build_request(REQUEST, TARGET)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/chat/completions")
    assert ("Authorization", "Bearer sk-1") in request.headers
    assert json.loads(request.body)["model"] == "x-2025"


def test_neither_key_nor_prompt_shows_in_a_repr() -> None:
    shown = repr(build_request(REQUEST, TARGET)) + repr(TARGET) + repr(REQUEST)
    assert "sk-1" not in shown
    assert "Hi" not in shown


def test_what_the_client_left_out_is_left_to_the_provider() -> None:
    assert build_body(REQUEST, "x", "max_tokens") == {
        "model": "x",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_zero_is_not_nothing() -> None:
    sampling = Sampling(temperature=0.0, top_p=0.0, seed=0, frequency_penalty=0.0, presence_penalty=0.0)
    body = build_body(ChatRequest("x", REQUEST.messages, sampling=sampling), "x", "max_tokens")
    assert [body[name] for name in ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")] == [0] * 5


def test_the_limit_has_the_name_that_the_server_knows() -> None:
    body = build_body(ChatRequest("x", REQUEST.messages, max_output_tokens=7), "x", "max_tokens")
    assert body["max_tokens"] == 7
    assert "max_completion_tokens" not in body


def test_a_model_that_refuses_a_temperature_is_sent_none() -> None:
    request = ChatRequest("x", REQUEST.messages, sampling=Sampling(temperature=0.5, top_p=0.5, seed=3))
    body = json.loads(build_request(request, TARGET, takes_temperature=False).body)
    assert "temperature" not in body
    assert "top_p" not in body
    assert body["seed"] == 3


def test_parts_of_every_kind_have_their_place() -> None:
    images = (Image("image/png", "QUJD", "low"), Image("image/gif", "QQ=="))
    parts = (Text("see"), *images, Document("application/pdf", "UA=="))
    [message] = build_body(ChatRequest("x", (Message("user", parts),)), "x", "max_tokens")["messages"]
    assert message["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,QQ=="}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,UA=="}},
    ]


def test_a_turn_with_calls_and_its_answers_is_told_again() -> None:
    messages = (
        Message("assistant", (), tool_calls=(ToolCall("call_1", "f", "{not JSON"),)),
        Message("tool", (Text("42"),), tool_call_id="call_1"),
        Message("assistant", (Refusal("no"),), name="bot"),
    )
    assert build_body(ChatRequest("x", messages), "x", "max_tokens")["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{not JSON"}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "call_1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "name": "bot"},
    ]


def test_a_tool_is_sent_with_what_is_known_of_it() -> None:
    tools = (Tool("f"), Tool("g", "does g", {"type": "object"}, strict=False))
    assert build_body(ChatRequest("x", REQUEST.messages, tools=tools), "x", "max_tokens")["tools"] == [
        {"type": "function", "function": {"name": "f"}},
        {
            "type": "function",
            "function": {"name": "g", "description": "does g", "parameters": {"type": "object"}, "strict": False},
        },
    ]
