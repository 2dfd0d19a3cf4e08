"""xAI's own ways."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import ChatRequest, Message, Reasoning, Sampling, Text, WebSearch
from proxy.errors import RequestNotSupported
from proxy.events import Usage
from proxy.provider import Target
from proxy.providers.xai import PROVIDER

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),), 5, Sampling(temperature=0.5))
SEARCH = replace(REQUEST, web_search=WebSearch())


def target(model: str, **capabilities: object) -> Target:
    return Target(PROVIDER.default_base_url, "xai-1", model, capabilities)


def build(request: ChatRequest, to: Target) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(PROVIDER.build_call(request, to).request.body)
    return sent


def asking(**sampling: Any) -> ChatRequest:
    return replace(REQUEST, sampling=Sampling(**sampling))


def test_it_lives_where_xai_says() -> None:
    assert PROVIDER.build_call(REQUEST, target("grok-4")).request.url == "https://api.x.ai/v1/chat/completions"


@pytest.mark.parametrize("model", ["grok-4", "grok-3", "grok-3-mini", "grok-4-fast-non-reasoning"])
def test_every_model_takes_the_temperature_that_clients_always_send(model: str) -> None:
    assert build(REQUEST, target(model))["temperature"] == 0.5


@pytest.mark.parametrize("field", [{"stop": ("a",)}, {"presence_penalty": 0.5}, {"frequency_penalty": 0.5}])
@pytest.mark.parametrize("model", ["grok-4", "grok-3-mini-fast", "grok-4-fast-reasoning", "grok-code-fast-1"])
def test_a_model_that_reasons_takes_no_penalty_and_no_stop(model: str, field: dict[str, Any]) -> None:
    with pytest.raises(RequestNotSupported, match=next(iter(field))):
        build(asking(**field), target(model))


@pytest.mark.parametrize("model", ["grok-3", "grok-2-vision", "grok-beta", "grok-4-fast-non-reasoning"])
def test_a_model_that_does_not_reason_takes_them(model: str) -> None:
    sent = build(asking(stop=("a",), presence_penalty=0.5, frequency_penalty=0.5), target(model))
    assert (sent["stop"], sent["presence_penalty"], sent["frequency_penalty"]) == (["a"], 0.5, 0.5)


def test_penalties_of_nothing_are_not_sent_to_a_model_that_refuses_them() -> None:
    sent = build(asking(presence_penalty=0.0, frequency_penalty=0.0), target("grok-4"))
    assert not sent.keys() & {"presence_penalty", "frequency_penalty"}


@pytest.mark.parametrize("model", ["grok-3-mini", "grok-3-mini-fast-latest", "grok-4.3", "grok-4.5"])
def test_some_models_let_their_effort_be_chosen(model: str) -> None:
    assert build(asking(reasoning_effort="low"), target(model))["reasoning_effort"] == "low"


@pytest.mark.parametrize("request_", [REQUEST, SEARCH])
@pytest.mark.parametrize("model", ["grok-4", "grok-4-fast", "grok-4.20-reasoning", "grok-code-fast-1", "grok-3"])
def test_others_refuse_it_by_name(model: str, request_: ChatRequest) -> None:
    with pytest.raises(RequestNotSupported, match="reasoning_effort"):
        build(replace(request_, sampling=Sampling(reasoning_effort="low")), target(model))


def test_the_catalogue_knows_better_than_a_name() -> None:
    chosen = asking(reasoning_effort="low", stop=("a",))
    assert build(chosen, target("grok-4", reasoning=False, reasoning_effort=True))["stop"] == ["a"]
    with pytest.raises(RequestNotSupported):
        build(chosen, target("grok-3", reasoning=True, reasoning_effort=True))


@pytest.mark.parametrize("field", [{"top_k": 3}, {"logit_bias": {"1": 1}}, {"reasoning_tokens": 5}])
def test_what_xai_does_not_have_is_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(RequestNotSupported, match=next(iter(field))):
        build(asking(**field), target("grok-4"))


def test_plain_reasoning_goes_back() -> None:
    turn = Message("assistant", (Reasoning("hm"), Text("x")))
    sent = build(replace(REQUEST, messages=(*REQUEST.messages, turn)), target("grok-3-mini"))
    assert sent["messages"][1] == {"role": "assistant", "content": "x", "reasoning_content": "hm"}


def test_a_search_goes_to_the_responses_api() -> None:
    call = PROVIDER.build_call(SEARCH, target("grok-4"))
    assert call.request.url == "https://api.x.ai/v1/responses"
    assert json.loads(call.request.body)["tools"][0]["type"] == "web_search"
    assert call.read_refusal(500, {}, b"").provider == "xai"


def test_its_reasoning_is_counted_beside_the_completion() -> None:
    usage = {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 7}}
    reader = PROVIDER.build_call(REQUEST, target("grok-4")).open_reader("text/event-stream")
    told = reader.feed(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    assert told == [Usage(output_tokens=5, reasoning_tokens=7)]


def test_it_takes_two_types_of_images_and_no_documents() -> None:
    assert PROVIDER.media.image_types == {"image/jpeg", "image/png"}
    assert PROVIDER.media.document_types == frozenset()
    assert PROVIDER.media.max_image_bytes == 20 * 1024 * 1024
