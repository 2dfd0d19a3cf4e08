"""OpenAI's own ways: which of its two APIs a request goes to, and what reasoning models are not sent."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import (
    Attached,
    ChatRequest,
    Image,
    Message,
    ProviderItem,
    ProviderTool,
    Reasoning,
    Sampling,
    Text,
    WebSearch,
)
from proxy.errors import RequestNotSupported
from proxy.provider import Target
from proxy.providers.openai import PROVIDER, is_reasoning
from proxy.transcript import TranscriptRequest
from tests.proxy.forms import read_form
from tests.sounds import SILENCE

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),), 50, Sampling(temperature=0.5, top_p=0.9))
PLAIN = replace(REQUEST, sampling=Sampling())
PICTURE = Image("image/png", "QQ==")
CUSTOM = ProviderTool("custom", {"type": "custom", "name": "patch"})


def target(model: str, **capabilities: object) -> Target:
    return Target("https://api.test/v1", "sk-1", model, capabilities)


def sent(request: ChatRequest, to: Target) -> tuple[str, dict[str, Any]]:
    built = PROVIDER.build_call(request, to).request
    return built.url.removeprefix("https://api.test/v1/"), json.loads(built.body)


def with_turn(*parts: Reasoning | ProviderItem) -> ChatRequest:
    return replace(PLAIN, messages=(*PLAIN.messages, Message("assistant", parts), *PLAIN.messages))


@pytest.mark.parametrize("api", ["", "responses"])
@pytest.mark.parametrize(
    ("model", "takes_temperature"),
    [
        ("gpt-4o-mini", True),
        ("gpt-4.1", True),
        ("gpt-5-chat-latest", True),
        ("o3", False),
        ("o4-mini", False),
        ("gpt-5-nano", False),
        ("gpt-5.2-codex", False),
        ("gpt-6", False),
    ],
)
def test_reasoning_models_are_sent_no_temperature(model: str, takes_temperature: bool, api: str) -> None:
    _, body = sent(REQUEST, target(model, api=api))
    assert body["model"] == model
    assert ("temperature" in body, "top_p" in body) == (takes_temperature, takes_temperature)
    assert ("include" in body) == (api == "responses" and not takes_temperature)


@pytest.mark.parametrize("api", ["", "responses"])
def test_a_model_that_is_asked_not_to_think_is_sent_what_others_are(api: str) -> None:
    asked = replace(REQUEST, sampling=replace(REQUEST.sampling, reasoning_effort="none"))
    _, body = sent(asked, target("gpt-5.2", api=api))
    assert (body["temperature"], body["top_p"]) == (0.5, 0.9)


def test_what_another_model_thought_is_not_sent_to_one_that_does_not() -> None:
    thought = with_turn(Reasoning("", "openai-responses-v1", "rs_1", encrypted="seal"))
    assert sent(thought, target("gpt-4.1"))[0] == "chat/completions"
    _, body = sent(thought, target("gpt-4.1", api="responses"))
    assert [item["type"] for item in body["input"]] == ["message", "message"]


def test_a_model_that_does_not_think_need_not_be_told_to_leave_it() -> None:
    asked = replace(PLAIN, sampling=Sampling(reasoning_tokens=0))
    assert sent(asked, target("gpt-4o")) == sent(PLAIN, target("gpt-4o"))
    with pytest.raises(RequestNotSupported):
        sent(asked, target("o3"))


def test_calls_in_parallel_are_asked_of_a_model_that_reasons_by_saying_nothing() -> None:
    parallel = replace(PLAIN, parallel_tool_calls=True)
    assert "parallel_tool_calls" not in sent(parallel, target("o3-mini"))[1]
    assert sent(parallel, target("gpt-4o"))[1]["parallel_tool_calls"] is True


def test_the_catalogue_knows_better_than_a_name_whether_a_model_reasons() -> None:
    assert is_reasoning(target("custom", reasoning=True))
    assert not is_reasoning(target("o3", reasoning=False))
    assert is_reasoning(target("o3", reasoning="?"))


@pytest.mark.parametrize(
    ("request_", "to"),
    [
        (PLAIN, target("gpt-4o")),
        (PLAIN, target("o3", reasoning=True)),
        (replace(PLAIN, web_search=WebSearch()), target("gpt-4o-search-preview")),
        (replace(PLAIN, sampling=Sampling(reasoning_summary="none")), target("o3")),
        (with_turn(Reasoning("x", "anthropic-claude-v1", signature="s")), target("gpt-4o")),
    ],
)
def test_chat_completions_are_the_rule(request_: ChatRequest, to: Target) -> None:
    path, body = sent(request_, to)
    assert path == "chat/completions"
    assert body["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("request_", "to"),
    [
        (PLAIN, target("gpt-5.2-codex", api="responses")),
        (PLAIN, target("o3-deep-research")),
        (PLAIN, target("gpt-5.2-pro", background=True)),
        (replace(PLAIN, web_search=WebSearch()), target("gpt-4o")),
        (replace(PLAIN, sampling=Sampling(reasoning_summary="auto")), target("o3")),
        (replace(PLAIN, provider_tools=(CUSTOM,)), target("gpt-5")),
        (with_turn(Reasoning("", "openai-responses-v1", "rs_1", encrypted="seal")), target("o3")),
        (with_turn(ProviderItem("openai-responses-v1", {"type": "compaction"})), target("gpt-4o")),
        (replace(PLAIN, messages=(*PLAIN.messages, Message("tool", (PICTURE,), tool_call_id="c"))), target("gpt-4o")),
    ],
)
def test_what_only_responses_can_do_goes_there(request_: ChatRequest, to: Target) -> None:
    path, body = sent(request_, to)
    assert path == "responses"
    assert body["max_output_tokens"] == 50


def test_only_what_takes_many_minutes_is_made_in_the_background() -> None:
    assert PROVIDER.build_call(PLAIN, target("gpt-5.2-pro", background=True)).background is not None
    assert PROVIDER.build_call(PLAIN, target("gpt-5.2-codex", api="responses")).background is None


def test_it_lives_where_openai_says() -> None:
    to = Target(PROVIDER.default_base_url, "sk-1", "gpt-4o")
    assert PROVIDER.build_call(REQUEST, to).request.url == "https://api.openai.com/v1/chat/completions"
    assert PROVIDER.needs_key


def test_a_recording_goes_to_the_audio_api_as_the_catalogue_says_of_its_model() -> None:
    request = TranscriptRequest("openai/x", Attached("audio/mpeg", SILENCE, 2.0), format="srt")
    assert PROVIDER.transcriber is not None
    with pytest.raises(RequestNotSupported, match=r"^response_format"):
        PROVIDER.transcriber.build_call(request, target("x"))
    built = PROVIDER.transcriber.build_call(request, target("x", transcript_formats=["srt"])).request
    assert built.url == "https://api.test/v1/audio/transcriptions"
    assert read_form(built)[1].value == b"srt"
