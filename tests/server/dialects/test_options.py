"""What both dialects have in common: members, their bounds, and bodies that are no request at all."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import (
    ChatRequest,
    Message,
    ProviderTool,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolChoice,
    WebSearch,
)
from server.dialects import openai, shipped
from server.dialects.bounds import MAX_DEPTH, MAX_MARKS
from server.dialects.options import check_text
from server.errors import RequestInvalid
from tests.server.dialects.bodies import (
    HOSTILE,
    MODEL,
    Decode,
    bodies,
    build_body,
    decode_request,
    read_or_refuse,
    refuse,
)

FUNCTION = {"name": "look", "description": "Looks", "parameters": {"type": "object"}, "strict": True}

both = pytest.mark.parametrize("decode", [shipped.decode, openai.decode], ids=["shipped", "openai"])


@both
def test_the_smallest_request_leaves_everything_to_the_model(decode: Decode) -> None:
    decoded = decode(build_body())
    request = decoded.request
    assert (request.model, decoded.stream) == (MODEL, False)
    assert request.max_output_tokens is None
    assert (request.sampling, request.tools, request.tool_choice) == (Sampling(), (), None)
    assert (request.task_type, request.idempotency_key) == ("general", None)


@both
def test_null_means_absent(decode: Decode) -> None:
    names = ["top_k", "logprobs", "top_logprobs", "logit_bias", "verbosity", "metadata", "prompt_cache_key", "audio"]
    names += ["modalities", "web_search_options", "reasoning", "thinking", "cache_control"]
    names += ["stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "tools", "n"]
    names += ["tool_choice", "response_format", "parallel_tool_calls", "reasoning_effort", "task_type", "request_id"]
    assert decode(build_body(**dict.fromkeys([*names, "stream_options"]))) == decode(build_body())


@both
def test_unknown_keys_are_ignored(decode: Decode) -> None:
    unknown = {"duration_ms": 10_000, "user": "x", "generationConfig": {"a": [1]}, "store": True, "functions": None}
    assert decode(build_body(**unknown)) == decode(build_body())


@both
def test_every_option_arrives(decode: Decode) -> None:
    sampling: dict[str, object] = {"temperature": 0.5, "top_p": 1, "frequency_penalty": -1.5, "presence_penalty": 0.1}
    sampling |= {"seed": 7, "top_k": 40, "logprobs": True, "top_logprobs": 3, "logit_bias": {"50256": -100}}
    request = decode_request(
        decode,
        **sampling,
        stop=["a", "b"],
        verbosity="low",
        reasoning_effort="low",
        reasoning={"summary": "auto"},
        thinking={"type": "enabled", "budget_tokens": 2000},
        parallel_tool_calls=False,
        tool_choice={"type": "function", "function": {"name": "look"}},
        tools=[{"type": "function", "function": FUNCTION}, {"type": "code_interpreter"}],
        response_format={"type": "json_object"},
        web_search_options={"search_context_size": "low"},
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        cache_control={"type": "ephemeral"},
        prompt_cache_key="chat-1",
        metadata={"a": "b"},
        max_tokens=10,
        stream=True,
    )
    assert request.sampling == Sampling(
        *(0.5, 1.0, -1.5, 0.1, 7, ("a", "b"), "low", True, 3, 40, 2000, "auto", "low", {"50256": -100})
    )
    assert request == ChatRequest(
        MODEL,
        (Message("user", (Text("Hello"),)),),
        10,
        request.sampling,
        (Tool("look", "Looks", {"type": "object"}, True),),
        (ProviderTool("code_interpreter", {"type": "code_interpreter"}),),
        ToolChoice("required", ("look",)),
        False,
        ResponseFormat("json_object"),
        WebSearch("low"),
        ("audio",),
        {"voice": "alloy", "format": "wav"},
        {"type": "ephemeral"},
        "chat-1",
        {"a": "b"},
    )


@both
@pytest.mark.parametrize(
    "members",
    [
        {"n": 1},
        {"top_k": 0},
        {"logit_bias": {}},
        {"metadata": {}},
        {"modalities": ["text"]},
        {"modalities": []},
        {"audio": {}},
        {"cache_control": {}},
        {"prompt_cache_key": ""},
        {"tools": []},
        {"stop": []},
        {"stop": ""},
        {"stop": [""]},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tool_choice": "none", "parallel_tool_calls": False},
        {"service_tier": "auto"},
        {"service_tier": ""},
        {"functions": [], "function_call": None, "plugins": []},
        {"reasoning": {}},
        {"user": "somebody@example.com"},
    ],
    ids=str,
)
def test_what_asks_for_nothing_is_nothing(decode: Decode, members: dict[str, Any]) -> None:
    assert decode(build_body(**members)) == decode(build_body())


@both
def test_a_false_is_kept(decode: Decode) -> None:
    assert decode_request(decode, logprobs=False).sampling.logprobs is False


@both
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "text"}, ResponseFormat("text")),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, ResponseFormat("json_schema", schema={})),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "description": "b", "strict": True}},
            ResponseFormat("json_schema", "a", {}, "b", True),
        ),
    ],
    ids=str,
)
def test_a_format_is_read(decode: Decode, wanted: dict[str, Any], expected: ResponseFormat) -> None:
    assert decode_request(decode, response_format=wanted).response_format == expected


@both
def test_a_single_stop_is_one_stop(decode: Decode) -> None:
    assert decode_request(decode, stop="END").sampling.stop == ("END",)


@both
@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function", "function": FUNCTION}]},
        {"tools": [{"type": "code_interpreter"}]},
        {"web_search_options": {}},
    ],
    ids=str,
)
def test_where_there_are_tools_it_is_said_how_to_call_them(decode: Decode, members: dict[str, Any]) -> None:
    request = decode_request(decode, tool_choice="none", parallel_tool_calls=False, **members)
    assert (request.tool_choice, request.parallel_tool_calls) == (ToolChoice("none"), False)


@both
def test_to_call_a_tool_where_there_is_none_is_not_passed_over(decode: Decode) -> None:
    assert decode_request(decode, tool_choice="required").tool_choice == ToolChoice("required")


@both
def test_the_newer_name_of_the_limit_wins(decode: Decode) -> None:
    assert decode_request(decode, max_tokens=10, max_completion_tokens=20).max_output_tokens == 20


@both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 2**32),
        ("max_completion_tokens", 0),
        ("max_tokens", "10"),
        ("n", 2),
        ("n", 0),
        ("temperature", "warm"),
        ("top_k", -1),
        ("top_logprobs", -1),
        ("logprobs", 5),
        ("logit_bias", {"a": "b"}),
        ("verbosity", "v" * 201),
        ("metadata", {"a": 1}),
        ("metadata", {"a": "b" * 1025}),
        ("modalities", ["smell"]),
        ("audio", "alloy"),
        ("reasoning", "high"),
        ("reasoning_effort", 5),
        ("thinking", {}),
        ("thinking", {"type": "x"}),
        ("cache_control", {"type": 1}),
        ("prompt_cache_key", "k" * 201),
        ("web_search_options", {"search_context_size": "x"}),
        ("tool_choice", {"type": "x"}),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "grammar"}),
        ("functions", [{"name": "look"}]),
        ("function_call", "auto"),
        ("plugins", [{"id": "web"}]),
        ("search_parameters", {"mode": "on"}),
        ("service_tier", "flex"),
        ("tools", [{"type": "function"}]),
        ("stream", "yes"),
        ("stop", [1]),
        ("tools", {}),
        ("messages", []),
        ("messages", "Hello"),
        ("messages", None),
        ("messages", [{"content": "x"}]),
        ("messages", [{"role": "user", "content": 1}]),
        ("model", None),
        ("model", 1),
    ],
)
def test_a_member_that_is_wrong_is_named(decode: Decode, name: str, value: object) -> None:
    assert name in refuse(decode, build_body(**{name: value}))


@both
@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_member_that_is_missing_is_named(decode: Decode, missing: str) -> None:
    bodies = {"model": b'{"messages": []}', "messages": b'{"model": "a"}'}
    assert missing in refuse(decode, bodies[missing])


@both
@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:40]))
def test_a_hostile_body_is_read_or_refused(decode: Decode, body: bytes) -> None:
    read_or_refuse(decode, body)


@both
def test_a_body_of_very_many_values_is_refused_before_it_is_read(decode: Decode) -> None:
    parts = b"{}," * (MAX_MARKS // 2) + b"{}"
    body = b'{"model":"a","messages":[{"role":"user","content":[' + parts + b"]}]}"
    assert refuse(decode, body).startswith("the body: more than")


@both
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(decode: Decode, body: bytes) -> None:
    read_or_refuse(decode, body)


@both
@given(body=bodies)
def test_any_json_that_resembles_a_request_is_read_or_refused(decode: Decode, body: bytes) -> None:
    read_or_refuse(decode, body)


@both
@pytest.mark.parametrize("depth", [MAX_DEPTH, 200, 300])
def test_what_is_passed_on_is_nested_to_a_depth_that_can_be_written_again(decode: Decode, depth: int) -> None:
    nested: dict[str, object] = {}
    for _ in range(depth):
        nested = {"a": [nested]} if depth > MAX_DEPTH else {"a": nested}
    tools = [{"type": "function", "function": {"name": "f", "parameters": nested}}]
    assert refuse(decode, build_body(tools=tools)) == "tools: nested too deeply"
    for name in ("tool_choice", "response_format", "audio"):
        assert "nested too deeply" in refuse(decode, build_body(**{name: nested}))
    items = [{"role": "assistant", "provider_items": [{"format": "f", "item": nested}]}]
    assert refuse(decode, build_body(messages=items)) == "provider_items: nested too deeply"


@both
def test_an_ordinary_depth_is_passed_on(decode: Decode) -> None:
    nested: dict[str, object] = {"type": "string"}
    for _ in range(20):
        nested = {"type": "object", "properties": {"a": nested}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": nested}}
    assert decode_request(decode, response_format=wanted).response_format == ResponseFormat("json_schema", "a", nested)


# Texts that are stored


@pytest.mark.parametrize("text", [None, ""])
def test_an_empty_text_is_none(text: str | None) -> None:
    assert check_text(text, "x") is None


@pytest.mark.parametrize("text", ["x", "ü" * 200])
def test_a_short_text_is_kept(text: str) -> None:
    assert check_text(text, "x") == text


@pytest.mark.parametrize("text", ["x" * 201, "a\x00b"])
def test_a_text_that_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="request_id: "):
        check_text(text, "request_id")


@pytest.mark.parametrize(
    ("members", "phrase"),
    [
        ({"stop": ["x"] * 65}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 1001}, "tools"),
        ({"tools": [{"type": "mcp", "x": [0] * 100_001}]}, "tools: more than"),
        ({"logit_bias": dict.fromkeys(map(str, range(2049)), 1)}, "logit_bias"),
        ({"metadata": dict.fromkeys(map(str, range(65)), "x")}, "metadata"),
        ({"messages": [{"role": "user", "name": "n" * 201, "content": "Hi"}]}, "messages[0].name"),
    ],
)
def test_what_only_a_hostile_client_sends_so_much_of_is_refused(members: dict[str, object], phrase: str) -> None:
    body = {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}], **members}
    with pytest.raises(RequestInvalid, match=re.escape(phrase)):
        openai.decode(json.dumps(body).encode())
