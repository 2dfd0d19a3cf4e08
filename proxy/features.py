"""What a request asks for beyond plain text, by name, so that a provider can say what it takes.

A field that a provider cannot carry is refused with its name: silence would be a wrong answer that looks right.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from proxy.chat import Attached, Audio, ChatRequest, Document, Image, Part, Sampling
from proxy.errors import RequestNotSupported

Feature = Literal[
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "logprobs",
    "logit_bias",
    "reasoning_effort",
    "reasoning_tokens",
    "reasoning_summary",
    "verbosity",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "provider_tools",
    "response_format",
    "web_search",
    "input_audio",
    "attached",
    "images",
    "documents",
    "image_output",
    "audio_output",
    "metadata",
    "prompt_cache_key",
]
"""The last is a hint that changes no answer: a provider that does not know it leaves it out, and nobody refuses it."""

_MEMBERS: Mapping[Feature, str] = {
    "reasoning_tokens": "reasoning.max_tokens",
    "reasoning_summary": "reasoning.summary",
    "provider_tools": "all tools but functions",
    "web_search": "web_search_options",
    "image_output": "'image' of modalities",
    "audio_output": "audio, and 'audio' of modalities,",
    "attached": "the file",
}
"""What clients call it, where they have another name."""
_PARTS: Mapping[Feature, type[Part]] = {
    "images": Image,
    "documents": Document,
    "input_audio": Audio,
    "attached": Attached,
}


def check_features(request: ChatRequest, takes: frozenset[Feature], provider: str) -> None:
    """Raises RequestNotSupported for the first feature that is used and not taken, and says where a client wrote it."""
    for feature in used_features(request):
        if feature not in takes:
            member = _locate(request, feature)
            raise RequestNotSupported(f"{feature}: {provider} does not take it for this model; leave {member} out")


def used_features(request: ChatRequest) -> Iterator[Feature]:
    """What would change the answer; a neutral value (a penalty of 0) asks for nothing."""
    yield from _sampling_features(request.sampling)
    yield from _answer_features(request)
    kinds = {type(part) for message in request.messages for part in message.parts}
    yield from (feature for feature, kind in _PARTS.items() if kind in kinds)


def _locate(request: ChatRequest, feature: Feature) -> str:
    """The member that asks for it, where it has another name; of media, the first message that holds any."""
    kind = _PARTS.get(feature)
    if kind is None or feature in _MEMBERS:
        return _MEMBERS.get(feature, "it")
    holders = (number for number, message in enumerate(request.messages) if kind in map(type, message.parts))
    return f"those of messages[{next(holders)}]"


def _sampling_features(sampling: Sampling) -> Iterator[Feature]:
    used: dict[Feature, bool] = {
        "temperature": sampling.temperature is not None,
        "top_p": sampling.top_p not in {None, 1},
        "top_k": sampling.top_k is not None,
        "frequency_penalty": bool(sampling.frequency_penalty),
        "presence_penalty": bool(sampling.presence_penalty),
        "seed": sampling.seed is not None,
        "stop": bool(sampling.stop),
        "logprobs": bool(sampling.logprobs or sampling.top_logprobs),
        "logit_bias": bool(sampling.logit_bias),
    }
    yield from (feature for feature, is_used in used.items() if is_used)
    yield from _reasoning_features(sampling)


def _reasoning_features(sampling: Sampling) -> Iterator[Feature]:
    used: dict[Feature, object] = {
        "reasoning_effort": sampling.reasoning_effort,
        "reasoning_tokens": sampling.reasoning_tokens,
        "reasoning_summary": sampling.reasoning_summary,
        "verbosity": sampling.verbosity,
    }
    yield from (feature for feature, value in used.items() if value is not None)


def _answer_features(request: ChatRequest) -> Iterator[Feature]:
    wants_format = request.response_format is not None and request.response_format.type != "text"
    used: dict[Feature, bool] = {
        "tools": bool(request.tools),
        "tool_choice": request.tool_choice is not None,
        "parallel_tool_calls": request.parallel_tool_calls is False,
        "provider_tools": bool(request.provider_tools),
        "response_format": wants_format,
        "web_search": request.web_search is not None,
        "image_output": "image" in request.modalities,
        "audio_output": "audio" in request.modalities or request.audio_output is not None,
        "metadata": bool(request.metadata),
    }
    yield from (feature for feature, is_used in used.items() if is_used)
