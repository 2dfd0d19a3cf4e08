"""Whole requests to Anthropic: which members go together, and which are refused by name."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import (
    Audio,
    ChatRequest,
    Message,
    ProviderTool,
    Reasoning,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from proxy.dialects.anthropic.call import build_body, build_request
from proxy.dialects.anthropic.turns import FORMAT
from proxy.errors import RequestNotSupported
from proxy.provider import Target

HI = Message("user", (Text("Hi"),))
OLD, BOTH, NEW = "claude-sonnet-4-5", "claude-sonnet-4-0", "claude-opus-4-8"


def target(model: str = OLD, **capabilities: object) -> Target:
    return Target("https://api.test/v1/", "secret", model, capabilities)


def body(model: str = OLD, **members: Any) -> dict[str, Any]:
    return build_body(ChatRequest("anthropic/x", (HI,), 5000, **members), target(model))


def sampled(model: str = OLD, **sampling: Any) -> dict[str, Any]:
    return body(model, sampling=Sampling(**sampling))


def test_a_request_goes_to_the_messages_endpoint_with_its_key() -> None:
    built = build_request(ChatRequest("anthropic/x", (HI,), 5), target())
    assert (built.url, built.method) == ("https://api.test/v1/messages", "POST")
    headers = dict(built.headers)
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("secret", "2023-06-01")
    assert "anthropic-beta" not in headers
    assert json.loads(built.body) == {
        "model": OLD,
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream": True,
    }
    assert "secret" not in repr(built)


def test_betas_are_asked_for_where_a_tool_needs_them() -> None:
    tools = tuple(ProviderTool(name, {"name": "x"}) for name in ("memory_20250818", "computer_20250124"))
    headers = dict(build_request(ChatRequest("x", (HI,), 5, provider_tools=tools), target()).headers)
    assert headers["anthropic-beta"] == "computer-use-2025-01-24,context-management-2025-06-27"


def test_there_is_always_a_limit_to_the_answer() -> None:
    assert build_body(ChatRequest("x", (HI,)), target())["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("model", "sampling", "sent"),
    [
        (BOTH, {"temperature": 0.3, "top_p": 0.5, "top_k": 3}, {"temperature": 0.3, "top_p": 0.5, "top_k": 3}),
        (OLD, {"temperature": 0.0}, {"temperature": 0.0}),
        (OLD, {"temperature": 0.3, "top_p": 0.5}, {"top_p": 0.5}),
        (OLD, {"temperature": 0.0, "top_p": 1}, {"temperature": 0.0}),
        (OLD, {"top_p": 1}, {"top_p": 1}),
        (BOTH, {"temperature": 0.3, "top_p": 1}, {"temperature": 0.3, "top_p": 1}),
        (OLD, {"temperature": 2}, {"temperature": 1}),
        (OLD, {"temperature": 0.3, "reasoning_tokens": 2000, "top_p": 0.97}, {"top_p": 0.97}),
        (OLD, {"temperature": 0.3, "reasoning_tokens": 0}, {"temperature": 0.3}),
        (NEW, {"temperature": 0.3}, {}),
        (NEW, {"temperature": 0.3, "top_p": 1}, {}),
        (NEW, {"temperature": 0.3, "reasoning_effort": "high"}, {}),
    ],
)
def test_temperature_is_sent_where_it_is_taken(model: str, sampling: dict[str, Any], sent: dict[str, Any]) -> None:
    built = sampled(model, **sampling)
    assert {name: built[name] for name in ("temperature", "top_p", "top_k") if name in built} == sent


def test_a_model_that_thinks_as_it_sees_fit_can_be_made_to_call() -> None:
    required = {"tools": (Tool("f"),), "tool_choice": ToolChoice("required")}
    built = body("claude-opus-4-6", sampling=Sampling(reasoning_effort="low"), **required)
    assert (built["thinking"], built["tool_choice"]) == ({"type": "adaptive"}, {"type": "any"})


def test_a_model_that_began_without_a_thought_goes_on_without() -> None:
    asked = Sampling(temperature=0.5, reasoning_effort="medium")
    called = Message("assistant", tool_calls=(ToolCall("a", "f", "{}"),))
    thought = replace(called, parts=(Reasoning("Hm", FORMAT, signature="s"),))
    result = Message("tool", (Text("x"),), tool_call_id="a")

    def built(model: str, *messages: Message) -> tuple[bool, bool]:
        members = build_body(ChatRequest("x", (HI, *messages), 5000, asked), target(model))
        return "thinking" in members, "temperature" in members

    assert built(OLD, called, result) == (False, True)
    assert built(OLD, thought, result) == (True, False)
    assert built(OLD, thought, result, called, result) == (True, False)
    assert built(OLD, called, result, thought, result) == (False, True)
    assert built(OLD, called, result, HI) == (False, True)
    assert built(OLD, called, result, Message("assistant", (Text("Done."),)), HI) == (True, False)
    assert built("claude-opus-4-6", called, result) == (True, False)


def test_the_catalogue_may_say_that_a_model_takes_no_temperature() -> None:
    asked = ChatRequest("x", (HI,), 5, Sampling(temperature=0.5))
    assert "temperature" not in build_body(asked, target(temperature=False))


@pytest.mark.parametrize(
    ("model", "members", "field"),
    [
        (OLD, {"sampling": Sampling(seed=1)}, "seed"),
        (OLD, {"sampling": Sampling(frequency_penalty=0.5)}, "frequency_penalty"),
        (OLD, {"sampling": Sampling(logprobs=True)}, "logprobs"),
        (OLD, {"sampling": Sampling(verbosity="low")}, "verbosity"),
        (OLD, {"metadata": {"a": "b"}}, "metadata"),
        (OLD, {"modalities": ("audio",)}, "audio_output"),
        (OLD, {"response_format": ResponseFormat("json_object")}, "response_format"),
        (OLD, {"response_format": ResponseFormat("json_schema")}, "response_format"),
        (NEW, {"sampling": Sampling(top_p=0.5)}, "top_p"),
        (NEW, {"sampling": Sampling(top_k=5)}, "top_k"),
        (NEW, {"sampling": Sampling(reasoning_tokens=2000)}, "reasoning_tokens"),
        ("claude-3-5-haiku-20241022", {"sampling": Sampling(reasoning_effort="low")}, "reasoning_effort"),
        (OLD, {"sampling": Sampling(reasoning_tokens=2000, top_k=5)}, "top_k"),
        (OLD, {"sampling": Sampling(reasoning_tokens=2000, top_p=0.5)}, "top_p"),
        (
            OLD,
            {"sampling": Sampling(reasoning_tokens=2000), "tools": (Tool("f"),), "tool_choice": ToolChoice("required")},
            "tool_choice",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(model: str, members: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestNotSupported, match=rf"^{field}\b"):
        body(model, **members)


def test_sound_is_refused() -> None:
    with pytest.raises(RequestNotSupported, match="input_audio"):
        build_body(ChatRequest("x", (Message("user", (Audio("wav", "eA=="),)),), 5), target())


def test_neutral_values_ask_for_nothing() -> None:
    neutral = Sampling(frequency_penalty=0, presence_penalty=0.0, top_p=None, logprobs=False)
    assert body(sampling=neutral, response_format=ResponseFormat("text"), parallel_tool_calls=False) == body()


def test_structured_output_and_effort_share_a_member() -> None:
    schema = {"type": "object", "additionalProperties": False}
    wanted = ResponseFormat("json_schema", "n", {"type": "object"}, "d", strict=True)
    built = body("claude-opus-4-6", response_format=wanted, sampling=Sampling(reasoning_effort="max"))
    assert built["output_config"] == {"effort": "max", "format": {"type": "json_schema", "schema": schema}}
    assert built["thinking"] == {"type": "adaptive"}


def test_the_rest_of_a_request_finds_its_place() -> None:
    asked = ChatRequest(
        "x",
        (Message("system", (Text("Be short."),)), HI),
        5,
        Sampling(stop=("END",)),
        tools=(Tool("f"),),
        parallel_tool_calls=False,
        cache_control={"type": "ephemeral"},
        end_user="pseudonym",
    )
    built = build_body(asked, target())
    assert built["system"] == [{"type": "text", "text": "Be short."}]
    assert built["stop_sequences"] == ("END",)
    assert built["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert built["cache_control"] == {"type": "ephemeral"}
    assert built["metadata"] == {"user_id": "pseudonym"}
    assert "metadata" not in build_body(replace(asked, end_user=None), target())
