"""What we send in OpenAI's chat dialect."""

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from proxy.answer import StreamReader
from proxy.chat import ChatRequest, Message, ProviderTool, ResponseFormat, Sampling, Text, Tool, ToolChoice, WebSearch
from proxy.dialects.openai_chat.call import build_body, build_call
from proxy.dialects.openai_chat.quirks import OPENAI, ChatQuirks
from proxy.errors import RequestNotSupported
from proxy.events import Usage
from proxy.features import Feature
from proxy.provider import Target

TARGET = Target("https://api.test/v1/", "sk-1", "x-2025")
REQUEST = ChatRequest("openai/x", (Message("user", (Text("Hi"),)),))
EVERYTHING = replace(OPENAI, takes=frozenset(get_args(Feature)))
PLAIN = ChatQuirks("plain", "Plain", OPENAI.takes)
SERVER = replace(EVERYTHING, reasoning="reasoning", web_search="openrouter:web_search", cache_hints="cache_control")


def body(request: ChatRequest = REQUEST, quirks: ChatQuirks = EVERYTHING) -> dict[str, Any]:
    return build_body(request, "x-2025", quirks)


def asking(**fields: Any) -> ChatRequest:
    return replace(REQUEST, **fields)


def test_the_request_goes_to_the_target_with_its_key_and_its_name_of_the_model() -> None:
    request = build_call(REQUEST, TARGET, replace(OPENAI, headers=(("X-Title", "T"),))).request
    assert (request.method, request.url) == ("POST", "https://api.test/v1/chat/completions")
    assert ("Authorization", "Bearer sk-1") in request.headers
    assert ("X-Title", "T") in request.headers
    assert json.loads(request.body)["model"] == "x-2025"


def test_neither_key_nor_prompt_shows_in_a_repr() -> None:
    shown = repr(build_call(REQUEST, TARGET, OPENAI)) + repr(TARGET) + repr(REQUEST)
    assert "sk-1" not in shown
    assert "Hi" not in shown


def test_the_answer_is_read_as_its_server_counts() -> None:
    quirks = replace(OPENAI, counts_reasoning_beside=True, unreported_searches=1)
    reader = build_call(REQUEST, TARGET, quirks).open_reader("text/event-stream")
    assert isinstance(reader, StreamReader)
    usage = {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 7}}
    [read] = reader.feed(b"data: " + json.dumps({"usage": usage}).encode() + b"\n\n")
    assert read == Usage(output_tokens=5, reasoning_tokens=7, searches=1)


def test_a_refusal_is_told_in_the_servers_name() -> None:
    assert build_call(REQUEST, TARGET, OPENAI).read_refusal(500, {}, b"").provider == "openai"


def test_what_the_client_left_out_is_left_to_the_provider() -> None:
    assert body() == {
        "model": "x-2025",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_wish_has_its_member() -> None:
    sampling = Sampling(
        0.5, 0.9, 0.1, 0.2, 7, ("END",), "low", True, 2, 40, verbosity="low", logit_bias={"50256": -100}
    )
    request = asking(
        max_output_tokens=9,
        sampling=sampling,
        parallel_tool_calls=False,
        modalities=("audio",),
        audio_output={"voice": "alloy", "format": "pcm16"},
        prompt_cache_key="k",
        metadata={"a": "b"},
        end_user="u",
    )
    assert body(request) == body() | {
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "seed": 7,
        "stop": ["END"],
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"50256": -100},
        "verbosity": "low",
        "parallel_tool_calls": False,
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "pcm16"},
        "prompt_cache_key": "k",
        "metadata": {"a": "b"},
        "user": "u",
    }


def test_zero_is_not_nothing() -> None:
    sampling = Sampling(temperature=0.0, top_p=0.0, seed=0, frequency_penalty=0.0, presence_penalty=0.0)
    sent = body(asking(sampling=sampling))
    assert [sent[name] for name in ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")] == [0] * 5


def test_the_limit_has_the_name_that_the_server_knows() -> None:
    sent = body(asking(max_output_tokens=7), replace(EVERYTHING, output_limit="max_tokens"))
    assert sent["max_tokens"] == 7
    assert "max_completion_tokens" not in sent


def test_what_a_server_does_not_take_is_refused_by_name() -> None:
    with pytest.raises(RequestNotSupported, match=r"seed: Plain"):
        body(asking(sampling=Sampling(seed=3)), replace(PLAIN, takes=PLAIN.takes - {"seed"}))


def test_neutral_values_of_what_a_server_does_not_take_are_not_sent() -> None:
    neutral = Sampling(top_p=1.0, frequency_penalty=0, presence_penalty=0, logprobs=False, top_logprobs=0)
    sent = body(asking(sampling=neutral, parallel_tool_calls=True), replace(PLAIN, takes=frozenset()))
    assert sent.keys() == body().keys()


def test_what_is_dropped_is_neither_sent_nor_refused() -> None:
    quirks = replace(PLAIN, takes=PLAIN.takes - {"temperature"}, drops=frozenset({"temperature"}))
    sent = body(asking(sampling=Sampling(temperature=0.5, seed=3)), quirks)
    assert "temperature" not in sent
    assert sent["seed"] == 3


def test_what_a_server_refuses_of_every_body_is_left_out() -> None:
    left_out = frozenset({"user", "stream_options"})
    sent = body(asking(end_user="u"), replace(PLAIN, leaves_out=left_out))
    assert sent["stream"] is True
    assert not sent.keys() & left_out


def test_whole_numbers_of_a_bias_are_written_as_such() -> None:
    sent = body(asking(sampling=Sampling(logit_bias={"5": -100.0, "6": 0.5})))
    assert json.dumps(sent["logit_bias"]) == '{"5": -100, "6": 0.5}'


@pytest.mark.parametrize(("format_", "is_streamed"), [("pcm16", True), ("wav", False), ("mp3", False)])
def test_sound_is_streamed_where_its_format_can_be(format_: str, is_streamed: bool) -> None:
    request = asking(modalities=("audio",), audio_output={"voice": "alloy", "format": format_})
    built = build_call(request, TARGET, OPENAI).request
    sent = json.loads(built.body)
    assert (sent["stream"], "stream_options" in sent) == (is_streamed, is_streamed)
    assert ("Accept", "text/event-stream" if is_streamed else "application/json") in built.headers


def test_members_of_every_body_are_the_servers_and_not_a_requests() -> None:
    assert body(quirks=replace(PLAIN, constants={"usage": {"include": True}}))["usage"] == {"include": True}


TOOLS = (Tool("f"), Tool("g", "does g", {"type": "object"}, strict=False, cache_control={"type": "ephemeral"}))


def test_a_tool_is_sent_with_what_is_known_of_it() -> None:
    g = {"name": "g", "description": "does g", "parameters": {"type": "object"}, "strict": False}
    f = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    assert body(asking(tools=TOOLS))["tools"] == [f, {"type": "function", "function": g}]
    hinted = {"type": "function", "function": g, "cache_control": {"type": "ephemeral"}}
    assert body(asking(tools=TOOLS), SERVER)["tools"] == [f, hinted]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none"), "none"),
        (ToolChoice("required", ("g",)), {"type": "function", "function": {"name": "g"}}),
        (
            ToolChoice("auto", ("g",)),
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
            },
        ),
    ],
)
def test_a_choice_of_tools_is_said_in_openais_words(choice: ToolChoice | None, sent: object) -> None:
    assert body(asking(tools=TOOLS, tool_choice=choice)).get("tool_choice") == sent


def test_a_server_that_cannot_narrow_its_choice_is_offered_only_what_is_allowed() -> None:
    sent = body(asking(tools=TOOLS, tool_choice=ToolChoice("auto", ("g",))), PLAIN)
    assert sent["tool_choice"] == "auto"
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["g"]


def test_a_tool_that_must_be_called_leaves_the_others_offered() -> None:
    sent = body(asking(tools=TOOLS, tool_choice=ToolChoice("required", ("g",))), PLAIN)
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert len(sent["tools"]) == 2


def test_a_servers_own_tool_is_passed_on_if_it_costs_tokens_only() -> None:
    quirks = replace(EVERYTHING, provider_tools=frozenset({"free"}))
    definition = {"type": "free", "parameters": {"a": 1}}
    assert body(asking(provider_tools=(ProviderTool("free", definition),)), quirks)["tools"] == [definition]
    with pytest.raises(RequestNotSupported, match="tools: 'dear'"):
        body(asking(provider_tools=(ProviderTool("dear", {"type": "dear"}),)), quirks)


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormat("text"), {"type": "text"}),
        (ResponseFormat("json_object"), {"type": "json_object"}),
        (
            ResponseFormat("json_schema", "n", {"type": "object"}, "d", strict=True),
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True},
            },
        ),
    ],
)
def test_the_format_of_the_answer_is_said(wanted: ResponseFormat, sent: object) -> None:
    assert body(asking(response_format=wanted))["response_format"] == sent


@pytest.mark.parametrize(
    ("modalities", "sent"), [((), None), (("text",), None), (("image", "text"), ["text", "image"])]
)
def test_text_is_always_wanted_too(modalities: tuple[str, ...], sent: object) -> None:
    assert body(asking(modalities=modalities)).get("modalities") == sent


def test_an_unknown_modality_is_refused_by_name() -> None:
    with pytest.raises(RequestNotSupported, match="modalities"):
        body(asking(modalities=("smell",)))


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        (Sampling(), None),
        (Sampling(reasoning_effort="low"), {"effort": "low"}),
        (Sampling(reasoning_tokens=500), {"max_tokens": 500}),
        (Sampling(reasoning_tokens=500, reasoning_effort="low"), {"max_tokens": 500}),
        (Sampling(reasoning_tokens=0), {"enabled": False}),
        (Sampling(reasoning_effort="low", reasoning_summary="auto"), {"effort": "low", "summary": "auto"}),
        (Sampling(reasoning_summary="none"), {"exclude": True}),
    ],
)
def test_reasoning_is_asked_for_in_openrouters_object(sampling: Sampling, sent: object) -> None:
    made = body(asking(sampling=sampling), SERVER)
    assert made.get("reasoning") == sent
    assert "reasoning_effort" not in made


LOCATION = {"country": "GB", "city": "London"}


def test_a_search_model_is_asked_in_openais_words() -> None:
    sent = body(asking(web_search=WebSearch("low", LOCATION)))
    location = {"type": "approximate", "approximate": LOCATION}
    assert sent["web_search_options"] == {"search_context_size": "low", "user_location": location}
    assert body(asking(web_search=WebSearch()))["web_search_options"] == {}


def test_domains_that_cannot_be_said_are_refused() -> None:
    with pytest.raises(RequestNotSupported, match="web_search"):
        body(asking(web_search=WebSearch(allowed_domains=("a.test",))))
    with pytest.raises(RequestNotSupported, match="web_search"):
        body(asking(web_search=WebSearch(allowed_domains=("a.test",), blocked_domains=("b.test",))), SERVER)


def test_openrouters_search_is_a_tool_with_its_bounds() -> None:
    sent = body(asking(tools=TOOLS[:1], web_search=WebSearch("low", LOCATION, ("a.test",), max_searches=3)), SERVER)
    assert sent["tools"][1] == {
        "type": "openrouter:web_search",
        "parameters": {
            "max_uses": 3,
            "search_context_size": "low",
            "user_location": {"type": "approximate", **LOCATION},
            "allowed_domains": ["a.test"],
        },
    }
    assert "web_search_options" not in sent


def test_caching_of_the_whole_prompt_is_asked_for_where_that_is_known() -> None:
    request = asking(cache_control={"type": "ephemeral"})
    assert body(request, SERVER)["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in body(request)


def test_openais_marks_come_with_their_option() -> None:
    marked = asking(messages=(Message("user", (Text("Hi", {"type": "ephemeral"}),)),))
    quirks = replace(OPENAI, cache_hints="prompt_cache_breakpoint")
    assert body(marked, quirks)["prompt_cache_options"] == {"mode": "explicit", "ttl": "30m"}
    assert "prompt_cache_options" not in body(REQUEST, quirks)
    assert "prompt_cache_options" not in body(marked, OPENAI)
