"""OpenAI: its chat completions, and its Responses API for what only that can do.

Chat completions are the rule, so that any server that speaks them works by setting `OPENAI_BASE_URL`. Responses are
used for models that the catalogue says need them (`api` is `responses`, or `background` is true) and for deep research;
for a search of the web, which chat completions only do with models named for it; for a summary of the reasoning; for
tools that only they know; for images and documents that a tool found; and when a conversation brings back items that
came from them.

Recordings are written down by its audio API. What differs between its models there stands in the catalogue:
`transcript_formats`, `streams_transcript`, `translates`, `diarizes`, `transcript_hints`, `transcript_logprobs`, and
`billed_by_seconds`.
"""

import re
from dataclasses import replace

from proxy.chat import ChatRequest, Document, Image, Message, Part, ProviderItem, Reasoning
from proxy.dialects import openai_audio, openai_chat, openai_responses
from proxy.dialects.openai_audio.quirks import read_quirks
from proxy.dialects.openai_chat.quirks import openai_quirks
from proxy.provider import MEBIBYTE, MediaLimits, Provider, ProviderCall, Target, Transcriber
from proxy.transcript import TranscriptRequest

_RESPONSES = "openai-responses-v1"
_REASONING_MODEL = re.compile(r"o\d|gpt-(?:[5-9]|\d\d)|codex|computer-use")
"""https://developers.openai.com/api/docs/models. Where the catalogue says whether a model reasons, that counts."""


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    """Reasoning models refuse `temperature` and `top_p`, which the shipped clients always send: they are dropped,
    unless the model is asked not to think.
    """
    reasons = is_reasoning(target)
    samples = request.sampling.reasoning_effort == "none"
    if not reasons:
        request = _without_reasoning(request)
    elif not samples:
        request = replace(request, sampling=replace(request.sampling, temperature=None, top_p=None))
    if needs_responses(request, target):
        target = replace(target, capabilities={**target.capabilities, "reasoning": reasons})
        return openai_responses.build_call(request, target, PROVIDER.code, PROVIDER.name, format=_RESPONSES)
    quirks = openai_quirks(target.provider_model, reasons=reasons, samples=samples, capabilities=target.capabilities)
    return openai_chat.build_call(_without_defaults(request, reasons=reasons), target, quirks)


def is_reasoning(target: Target) -> bool:
    told = target.capabilities.get("reasoning")
    if isinstance(told, bool):
        return told
    model = target.provider_model
    return _REASONING_MODEL.match(model) is not None and not model.startswith("gpt-5-chat")


def needs_responses(request: ChatRequest, target: Target) -> bool:
    if target.capabilities.get("api") == "responses" or openai_responses.is_background(target):
        return True
    searches = request.web_search is not None and "-search-" not in target.provider_model
    summarizes = request.sampling.reasoning_summary not in {None, "none"}
    return searches or summarizes or bool(request.provider_tools) or _brings_items(request)


def _brings_items(request: ChatRequest) -> bool:
    """Chat completions take no media from a tool, either."""
    return any(_is_item(part, message) for message in request.messages for part in message.parts)


def _is_item(part: Part, message: Message) -> bool:
    if isinstance(part, Reasoning | ProviderItem):
        return part.format == _RESPONSES
    return message.role == "tool" and isinstance(part, Image | Document)


def _without_reasoning(request: ChatRequest) -> ChatRequest:
    """A model that does not reason refuses what another one thought, and need not be told to leave it."""
    messages = tuple(
        replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))
        for message in request.messages
    )
    sampling = request.sampling
    if sampling.reasoning_tokens == 0:
        sampling = replace(sampling, reasoning_tokens=None)
    return replace(request, messages=messages, sampling=sampling)


def _without_defaults(request: ChatRequest, *, reasons: bool) -> ChatRequest:
    """Chat completions tell no summary unasked; and some models that reason refuse to be told to call in parallel,
    which is the default.
    """
    if request.sampling.reasoning_summary is not None:
        request = replace(request, sampling=replace(request.sampling, reasoning_summary=None))
    return replace(request, parallel_tool_calls=None) if reasons and request.parallel_tool_calls else request


def build_transcription(request: TranscriptRequest, target: Target) -> ProviderCall:
    quirks = read_quirks(PROVIDER.code, PROVIDER.name, target.capabilities)
    return openai_audio.build_call(request, target, quirks)


PROVIDER = Provider(
    code="openai",
    name="OpenAI",
    default_base_url="https://api.openai.com/v1",
    media=MediaLimits(
        image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"}),
        document_types=frozenset({"application/pdf"}),
        max_images=500,
        max_total_image_bytes=50 * MEBIBYTE,
    ),
    build_call=build_call,
    build_background=openai_responses.build_background,
    transcriber=Transcriber(
        build_transcription,
        openai_audio.MAX_BYTES,
        openai_audio.TOKENS_PER_SECOND,
        openai_audio.output_tokens_per_second,
    ),
)
