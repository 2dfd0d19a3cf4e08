"""What a request asks for, by name."""

import re
from dataclasses import replace
from typing import Any, get_args

import pytest

from proxy.chat import (
    Attached,
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderTool,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolChoice,
    WebSearch,
)
from proxy.errors import RequestNotSupported
from proxy.features import Feature, check_features, used_features
from tests.proxy.file_calls import make_file

PLAIN = ChatRequest("m", (Message("user", (Text("Hello"),)),), max_output_tokens=5, task_type="x", end_user="u")

SAMPLING: dict[Feature, Any] = {
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 4,
    "frequency_penalty": -0.1,
    "presence_penalty": 0.1,
    "seed": 0,
    "stop": ("END",),
    "logprobs": True,
    "logit_bias": {"5": 1.0},
    "reasoning_effort": "low",
    "reasoning_tokens": 0,
    "reasoning_summary": "auto",
    "verbosity": "low",
}
ANSWER: dict[Feature, dict[str, Any]] = {
    "tools": {"tools": (Tool("f"),)},
    "tool_choice": {"tool_choice": ToolChoice("auto")},
    "parallel_tool_calls": {"parallel_tool_calls": False},
    "provider_tools": {"provider_tools": (ProviderTool("x", {}),)},
    "response_format": {"response_format": ResponseFormat("json_object")},
    "web_search": {"web_search": WebSearch()},
    "image_output": {"modalities": ("text", "image")},
    "audio_output": {"modalities": ("audio",)},
    "metadata": {"metadata": {"a": "b"}},
}
PARTS: dict[Feature, Part] = {
    "images": Image("image/png", ""),
    "documents": Document("application/pdf", ""),
    "input_audio": Audio("wav", ""),
    "attached": Attached("video/mp4", make_file(5), 1),
}

MEMBERS: dict[Feature, str] = {
    "reasoning_tokens": "reasoning.max_tokens",
    "reasoning_summary": "reasoning.summary",
    "provider_tools": "all tools but functions",
    "web_search": "web_search_options",
    "image_output": "'image' of modalities",
    "audio_output": "audio, and 'audio' of modalities,",
    "images": "those of messages[1]",
    "documents": "those of messages[1]",
    "input_audio": "those of messages[1]",
    "attached": "the file",
}


def asking_for(feature: Feature) -> ChatRequest:
    if feature in SAMPLING:
        return replace(PLAIN, sampling=Sampling(**{feature: SAMPLING[feature]}))
    if feature in ANSWER:
        return replace(PLAIN, **ANSWER[feature])
    return replace(PLAIN, messages=(*PLAIN.messages, Message("user", (Text("x"), PARTS[feature]))))


every_feature = pytest.mark.parametrize("feature", [one for one in get_args(Feature) if one != "prompt_cache_key"])


@every_feature
def test_what_is_asked_for_is_known_by_its_name(feature: Feature) -> None:
    assert list(used_features(asking_for(feature))) == [feature]


@every_feature
def test_what_is_not_taken_is_refused_with_its_name_and_where_a_client_wrote_it(feature: Feature) -> None:
    others = frozenset(get_args(Feature)) - {feature}
    place = re.escape(MEMBERS.get(feature, "it"))
    with pytest.raises(RequestNotSupported, match=f"^{feature}: Somebody .*; leave {place} out$"):
        check_features(asking_for(feature), others, "Somebody")
    check_features(asking_for(feature), frozenset({feature}), "Somebody")


@pytest.mark.parametrize(
    "neutral",
    [
        PLAIN,
        replace(PLAIN, sampling=Sampling(top_p=1, frequency_penalty=0, presence_penalty=0.0, logprobs=False)),
        replace(PLAIN, parallel_tool_calls=True, response_format=ResponseFormat("text"), modalities=("text",)),
        replace(PLAIN, prompt_cache_key="a hint"),
        replace(PLAIN, metadata={}, sampling=Sampling(logit_bias={}, top_logprobs=0)),
    ],
)
def test_neutral_values_ask_for_nothing(neutral: ChatRequest) -> None:
    assert list(used_features(neutral)) == []
    check_features(neutral, frozenset(), "Somebody")
