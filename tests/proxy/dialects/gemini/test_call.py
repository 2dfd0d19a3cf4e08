"""What the Gemini API is asked, beyond what recorded requests show."""

import json
from dataclasses import replace
from typing import Any

import pytest

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
from proxy.dialects.gemini.call import build_body, build_request
from proxy.errors import RequestNotSupported
from proxy.provider import Target

TARGET = Target("https://google.test/v1beta/", "AIza-key", "gemini-2.5-flash")
NEW = replace(TARGET, provider_model="gemini-3-pro-preview")
REQUEST = ChatRequest("google/x", (Message("user", (Text("Hi"),)),))
TOOL = Tool("now")


def body_of(request: ChatRequest, target: Target = TARGET) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(build_request(request, target, "Google").body)
    return body


def test_a_stream_is_asked_for_and_the_key_is_not_in_the_url() -> None:
    built = build_request(REQUEST, TARGET, "Google")
    assert built.url == "https://google.test/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert dict(built.headers)["x-goog-api-key"] == "AIza-key"
    assert "AIza" not in repr(built)
    assert built.method == "POST"


def test_a_model_that_was_tuned_has_a_path_of_its_own() -> None:
    tuned = replace(TARGET, provider_model="tunedModels/mine-1")
    assert build_request(REQUEST, tuned, "Google").url.startswith("https://google.test/v1beta/tunedModels/mine-1:")


def test_what_was_not_asked_is_not_sent() -> None:
    turn = {"role": "user", "parts": [{"text": "Hi"}]}
    assert body_of(REQUEST) == {"contents": [turn], "generationConfig": {}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"metadata": {"team": "a"}}, "metadata"),
        ({"sampling": Sampling(logit_bias={"5": 1.0})}, "logit_bias"),
        ({"sampling": Sampling(verbosity="low")}, "verbosity"),
        ({"web_search": WebSearch(allowed_domains=("example.org",))}, "web_search.allowed_domains"),
        ({"web_search": WebSearch("high")}, "web_search.context_size"),
        ({"web_search": WebSearch(blocked_domains=("example.org",))}, "web_search.blocked_domains"),
        ({"web_search": WebSearch(user_location={"country": "CH"})}, "web_search.user_location"),
        ({"web_search": WebSearch(), "tools": (TOOL,)}, "tools"),
        ({"provider_tools": (ProviderTool("codeExecution", {}),), "tools": (TOOL,)}, "tools"),
        ({"provider_tools": (ProviderTool("googleMaps", {}),)}, "googleMaps"),
        ({"provider_tools": (ProviderTool("fileSearch", {}),)}, "operator's account"),
        ({"provider_tools": (ProviderTool("google_search", {}),)}, "web_search"),
        ({"provider_tools": (ProviderTool("mcpServers", {}),)}, "host"),
        ({"provider_tools": (ProviderTool("teleport", {}),)}, "teleport"),
        ({"audio_output": {"voice": "Kore", "format": "mp3"}}, "audio.format"),
    ],
)
def test_what_google_cannot_do_is_refused_by_its_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestNotSupported, match=field):
        build_request(replace(REQUEST, **changes), TARGET, "Google")


@pytest.mark.parametrize("sampling", [Sampling(reasoning_effort="low"), Sampling(reasoning_tokens=0)])
def test_a_model_that_does_not_think_is_not_told_how(sampling: Sampling) -> None:
    with pytest.raises(RequestNotSupported, match="reasoning"):
        build_request(replace(REQUEST, sampling=sampling), replace(TARGET, provider_model="gemini-2.0-flash"), "Google")


def test_neutral_values_are_neither_refused_nor_sent() -> None:
    sampling = Sampling(frequency_penalty=0, presence_penalty=0.0, logprobs=False, top_logprobs=0, logit_bias={})
    body = body_of(replace(REQUEST, sampling=sampling, parallel_tool_calls=True))
    assert body["generationConfig"] == {}


@pytest.mark.parametrize(
    ("choice", "tools", "config"),
    [
        (None, (TOOL,), None),
        (ToolChoice("auto"), (TOOL,), {"mode": "AUTO"}),
        (ToolChoice("none", ("now",)), (TOOL,), {"mode": "NONE"}),
        (ToolChoice("required"), (TOOL,), {"mode": "ANY"}),
        (ToolChoice("required", ("now",)), (TOOL,), {"mode": "ANY", "allowedFunctionNames": ["now"]}),
        (ToolChoice("auto", ("now",)), (TOOL,), {"mode": "VALIDATED", "allowedFunctionNames": ["now"]}),
        (None, (Tool("now", strict=True),), {"mode": "VALIDATED"}),
        (ToolChoice("required"), (Tool("now", strict=True),), {"mode": "ANY"}),
        (ToolChoice("auto"), (), None),
    ],
)
def test_which_tools_may_be_called(choice: ToolChoice | None, tools: tuple[Tool, ...], config: Any) -> None:
    body = body_of(replace(REQUEST, tools=tools, tool_choice=choice))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == config


def test_functions_stand_beside_a_search_from_the_third_generation_on() -> None:
    request = replace(REQUEST, web_search=WebSearch(), tools=(TOOL,), tool_choice=ToolChoice("auto"))
    body = body_of(request, NEW)
    assert body["tools"] == [{"googleSearch": {}}, {"functionDeclarations": [{"name": "now"}]}]
    calling = {"mode": "VALIDATED"}
    assert body["toolConfig"] == {"functionCallingConfig": calling, "includeServerSideToolInvocations": True}


def test_a_search_of_the_second_generation_needs_no_more() -> None:
    body = body_of(replace(REQUEST, web_search=WebSearch(context_size="medium")))
    assert body["tools"] == [{"googleSearch": {}}]
    assert "toolConfig" not in body


@pytest.mark.parametrize(
    ("tool", "built"),
    [
        (ProviderTool("url_context", {"type": "url_context"}), {"urlContext": {}}),
        (ProviderTool("codeExecution", {"type": "codeExecution", "codeExecution": {}}), {"codeExecution": {}}),
    ],
)
def test_tools_of_googles_own_that_cost_tokens_alone_are_passed_on(tool: ProviderTool, built: dict[str, Any]) -> None:
    assert body_of(replace(REQUEST, provider_tools=(tool,)))["tools"] == [built]


def test_a_schema_may_say_what_it_is_for() -> None:
    schema = {"type": "object"}
    wanted = ResponseFormat("json_schema", "colour", schema, "One colour")
    config = body_of(replace(REQUEST, response_format=wanted))["generationConfig"]
    assert config == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "description": "One colour"},
    }
    assert schema == {"type": "object"}




def test_any_json_is_asked_for_without_a_schema() -> None:
    config = body_of(replace(REQUEST, response_format=ResponseFormat("json_object")))["generationConfig"]
    assert config == {"responseMimeType": "application/json"}


def test_top_logprobs_alone_ask_for_logprobs_too() -> None:
    config = body_of(replace(REQUEST, sampling=Sampling(top_logprobs=3, top_k=4)))["generationConfig"]
    assert config == {"responseLogprobs": True, "logprobs": 3, "topK": 4}


@pytest.mark.parametrize(
    ("modalities", "sent"),
    [(("image",), ["TEXT", "IMAGE"]), (("text",), ["TEXT"]), (("text", "audio"), ["AUDIO"])],
)
def test_what_an_answer_may_be_made_of(modalities: tuple[str, ...], sent: list[str]) -> None:
    assert body_of(replace(REQUEST, modalities=modalities))["generationConfig"]["responseModalities"] == sent


def test_building_the_same_request_twice_gives_the_same() -> None:
    request = replace(REQUEST, web_search=WebSearch(), tools=(TOOL,))
    assert build_body(request, NEW) == build_body(request, NEW)
