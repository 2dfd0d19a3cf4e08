"""Requests to the Responses API."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import (
    Audio,
    ChatRequest,
    Image,
    Message,
    ProviderTool,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    WebSearch,
)
from proxy.dialects.openai_responses.call import DEEP_RESEARCH_SEARCH, build_call
from proxy.errors import RequestNotSupported
from proxy.provider import ProviderCall, Target

TARGET = Target("https://api.test/v1/", "sk-secret", "gpt-4.1")
REASONING = replace(TARGET, capabilities={"reasoning": True})
DEEP = replace(TARGET, provider_model="o4-mini-deep-research-2025-06-26", capabilities={"reasoning": True})
OURS = "openai-responses-v1"
USER = Message("user", (Text("Hi"),))
PLAIN = ChatRequest("x", (USER,))
TIDE = Tool("tide", "When it turns.", {"type": "object"})


def call(request: ChatRequest, target: Target = TARGET, item_format: str = OURS) -> ProviderCall:
    return build_call(request, target, "openai", "OpenAI", format=item_format)


def body(request: ChatRequest, target: Target = TARGET, item_format: str = OURS) -> dict[str, Any]:
    return dict(json.loads(call(request, target, item_format).request.body))


def test_a_plain_request_is_streamed_and_not_stored() -> None:
    built = call(PLAIN)
    assert (built.request.method, built.request.url) == ("POST", "https://api.test/v1/responses")
    assert dict(built.request.headers)["Authorization"] == "Bearer sk-secret"
    assert dict(built.request.headers)["Accept"] == "text/event-stream"
    assert "sk-secret" not in repr(built)
    assert "Hi" not in repr(built)
    assert built.background is None
    assert body(PLAIN) == {
        "model": "gpt-4.1",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "store": False,
        "stream": True,
    }


def test_the_sealed_reasoning_is_asked_for_of_models_that_reason() -> None:
    assert body(PLAIN, REASONING)["include"] == ["reasoning.encrypted_content"]


def test_a_function_says_always_whether_it_is_strict() -> None:
    tools = body(replace(PLAIN, tools=(TIDE, replace(TIDE, strict=True))))["tools"]
    assert [tool["strict"] for tool in tools] == [False, True]
    assert tools[0] == {
        "type": "function",
        "name": "tide",
        "description": "When it turns.",
        "parameters": {"type": "object"},
        "strict": False,
    }


@pytest.mark.parametrize(
    ("choice", "built"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none", ("tide",)), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("required", ("tide",)), {"type": "function", "name": "tide"}),
        (ToolChoice("required", ("patch",)), {"type": "custom", "name": "patch"}),
        (ToolChoice("required", ("apply_patch",)), {"type": "apply_patch"}),
        (ToolChoice("required", ("web_search",)), {"type": "web_search"}),
        (
            ToolChoice("auto", ("tide", "unknown")),
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "tide"}, {"type": "function", "name": "unknown"}],
            },
        ),
    ],
)
def test_a_choice_names_a_tool_as_its_kind_is_named(choice: ToolChoice, built: object) -> None:
    custom = ProviderTool("custom", {"type": "custom", "name": "patch"})
    own = ProviderTool("apply_patch", {"type": "apply_patch"})
    request = replace(PLAIN, tools=(TIDE,), provider_tools=(custom, own), web_search=WebSearch(), tool_choice=choice)
    assert body(request)["tool_choice"] == built


@pytest.mark.parametrize(
    ("wanted", "built"),
    [
        (ResponseFormat("text"), {"type": "text"}),
        (ResponseFormat("json_object"), {"type": "json_object"}),
        (
            ResponseFormat("json_schema", "city", {"type": "object"}, "A city.", strict=True),
            {
                "type": "json_schema",
                "name": "city",
                "schema": {"type": "object"},
                "description": "A city.",
                "strict": True,
            },
        ),
    ],
)
def test_a_format_of_the_answer_stands_flat_beside_its_kind(wanted: ResponseFormat, built: object) -> None:
    sampling = Sampling(verbosity="low")
    text = body(replace(PLAIN, response_format=wanted, sampling=sampling))["text"]
    assert text == {"format": built, "verbosity": "low"}


def test_sampling_and_the_rest_have_their_own_names() -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, top_logprobs=3, reasoning_effort="high", reasoning_summary="auto", seed=None
    )
    request = replace(
        PLAIN,
        sampling=sampling,
        max_output_tokens=90,
        parallel_tool_calls=False,
        tools=(TIDE,),
        metadata={"a": "b"},
        prompt_cache_key="k",
        end_user="u-1",
    )
    built = body(request)
    expected = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 3,
        "include": ["message.output_text.logprobs"],
        "reasoning": {"effort": "high", "summary": "auto"},
        "max_output_tokens": 90,
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "safety_identifier": "u-1",
    }
    assert {name: built[name] for name in expected} == expected
    assert "reasoning" not in body(replace(PLAIN, sampling=Sampling(reasoning_summary="none")))


def test_the_least_that_openai_takes_is_asked_for() -> None:
    few = replace(PLAIN, max_output_tokens=1)
    assert body(few)["max_output_tokens"] == 16
    assert body(few, item_format="xai-responses-v1")["max_output_tokens"] == 1


def test_the_word_json_stands_where_openai_looks_for_it() -> None:
    system = Message("system", (Text("Answer in JSON."),))
    request = replace(PLAIN, messages=(system, USER), response_format=ResponseFormat("json_object"))
    assert [item["role"] for item in body(request)["input"]] == ["system", "user"]
    assert "instructions" not in body(request)
    assert body(replace(request, response_format=ResponseFormat("text")))["instructions"] == "Answer in JSON."


def test_ids_of_calls_are_as_short_as_openai_wants_them() -> None:
    id_ = "call_" + "x" * 60
    turn = Message("assistant", tool_calls=(ToolCall(id_, "tide", "{}"),))
    request = replace(PLAIN, messages=(USER, turn, Message("tool", (Text("42"),), tool_call_id=id_)))
    ids = {item["call_id"] for item in body(request)["input"][1:]}
    assert [len(one) <= 64 for one in ids] == [True]
    assert [item["call_id"] for item in body(request, item_format="xai-responses-v1")["input"][1:]] == [id_, id_]


def test_a_search_says_where_and_how_often() -> None:
    search = WebSearch("low", {"country": "FR"}, ("example.org",), max_searches=3)
    built = body(replace(PLAIN, web_search=search))
    assert built["max_tool_calls"] == 3
    assert built["include"] == ["web_search_call.action.sources"]
    assert built["tools"] == [
        {
            "type": "web_search",
            "filters": {"allowed_domains": ["example.org"]},
            "search_context_size": "low",
            "user_location": {"type": "approximate", "country": "FR"},
        }
    ]


def test_xai_has_its_own_ways() -> None:
    search = WebSearch("low", {"country": "FR"}, blocked_domains=("example.org",))
    request = replace(PLAIN, web_search=search, end_user="u-1", sampling=Sampling(logprobs=True))
    built = body(request, REASONING, "xai-responses-v1")
    assert built["tools"] == [{"type": "web_search", "filters": {"excluded_domains": ["example.org"]}}]
    assert built["include"] == ["reasoning.encrypted_content"]
    assert (built["user"], built["logprobs"]) == ("u-1", True)
    assert "safety_identifier" not in built


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "custom", "name": "patch", "format": {"type": "text"}},
        {"type": "computer_use_preview", "display_width": 1},
        {"type": "tool_search"},
        {"type": "apply_patch"},
        {"type": "shell", "environment": {"type": "local"}},
        {"type": "function", "name": "late", "defer_loading": True},
    ],
)
def test_tools_that_cost_tokens_only_pass_as_they_are(definition: dict[str, Any]) -> None:
    tool = ProviderTool(definition["type"], definition)
    assert body(replace(PLAIN, provider_tools=(tool,)))["tools"] == [definition]


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "code_interpreter"},
        {"type": "file_search"},
        {"type": "image_generation"},
        {"type": "mcp"},
        {"type": "shell", "environment": {"type": "container_auto"}},
        {"type": "shell"},
        {"type": "web_search"},
        {"type": "something_new"},
    ],
)
def test_tools_that_may_cost_more_are_refused_by_name(definition: dict[str, Any]) -> None:
    tool = ProviderTool(definition["type"], definition)
    with pytest.raises(RequestNotSupported, match=f"provider_tools: {definition['type']} "):
        call(replace(PLAIN, provider_tools=(tool,)))


def test_the_type_of_a_tool_is_the_one_that_was_checked() -> None:
    tool = ProviderTool("custom", {"type": "code_interpreter"})
    assert body(replace(PLAIN, provider_tools=(tool,)))["tools"] == [{"type": "custom"}]


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("stop", replace(PLAIN, sampling=Sampling(stop=("x",)))),
        ("seed", replace(PLAIN, sampling=Sampling(seed=1))),
        ("frequency_penalty", replace(PLAIN, sampling=Sampling(frequency_penalty=1))),
        ("presence_penalty", replace(PLAIN, sampling=Sampling(presence_penalty=1))),
        ("logit_bias", replace(PLAIN, sampling=Sampling(logit_bias={"1": 1}))),
        ("top_k", replace(PLAIN, sampling=Sampling(top_k=1))),
        ("reasoning_tokens", replace(PLAIN, sampling=Sampling(reasoning_tokens=1))),
        ("image_output", replace(PLAIN, modalities=("image",))),
        ("audio_output", replace(PLAIN, modalities=("audio",))),
        ("input_audio", replace(PLAIN, messages=(Message("user", (Audio("wav", "AAAA"),)),))),
        ("web_search.blocked_domains", replace(PLAIN, web_search=WebSearch(blocked_domains=("x.org",)))),
        ("messages", replace(PLAIN, messages=(USER, Message("assistant", (Image("image/png", "AAAA"),))))),
    ],
)
def test_what_this_api_cannot_do_is_refused_by_name(field: str, request_: ChatRequest) -> None:
    with pytest.raises(RequestNotSupported, match=f"^{field}:"):
        call(request_)


def test_xai_takes_less() -> None:
    for request in (
        replace(PLAIN, metadata={"a": "b"}),
        replace(PLAIN, provider_tools=(ProviderTool("x_search", {"type": "x_search"}),)),
        replace(PLAIN, sampling=Sampling(verbosity="low")),
    ):
        with pytest.raises(RequestNotSupported):
            call(request, item_format="xai-responses-v1")


@pytest.mark.parametrize("target", [DEEP, replace(TARGET, capabilities={"background": True})])
def test_models_that_take_many_minutes_answer_in_the_background(target: Target) -> None:
    built = call(PLAIN, target)
    sent = json.loads(built.request.body)
    assert (sent["background"], sent["store"], sent["stream"]) == (True, True, False)
    assert "include" not in sent
    assert dict(built.request.headers)["Accept"] == "application/json"
    assert built.background is not None
    assert built.background.build_lookup("resp_1").url == "https://api.test/v1/responses/resp_1"


def test_deep_research_searches_even_if_nobody_asked_for_it() -> None:
    sent = body(PLAIN, DEEP)
    assert sent["tools"] == [{"type": "web_search_preview"}]
    assert sent["max_tool_calls"] == DEEP_RESEARCH_SEARCH.max_searches
    filtered = replace(PLAIN, web_search=WebSearch(allowed_domains=("example.org",), max_searches=5))
    sent = body(filtered, DEEP)
    assert (sent["tools"][0]["type"], sent["max_tool_calls"]) == ("web_search", 5)


def test_marks_for_the_cache_go_to_models_that_take_them() -> None:
    marked = Text("Long.", {"type": "ephemeral"})
    request = ChatRequest("x", (Message("system", (marked,)), Message("user", (marked, Text("Short.")))))
    sent = body(request, replace(TARGET, capabilities={"cache_breakpoints": True}))
    assert sent["prompt_cache_options"] == {"mode": "explicit", "ttl": "30m"}
    assert [["prompt_cache_breakpoint" in part for part in item["content"]] for item in sent["input"]] == [
        [True],
        [True, False],
    ]
    plain = json.dumps(body(request))
    assert "prompt_cache" not in plain
