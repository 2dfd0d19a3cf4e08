"""OpenAI: its chat completions, and its Responses API for what only that can do.

Chat completions are the rule, so that any server that speaks them works by setting `OPENAI_BASE_URL`. Responses are
used for models that the catalogue says need them (`api` is `responses`, or `background` is true) and for deep research;
for a search of the web, which chat completions only do with models named for it; for a summary of the reasoning; for
tools that only they know; and when a conversation brings back items that came from them.
"""

import re
from dataclasses import replace

from proxy.chat import ChatRequest, ProviderItem, Reasoning
from proxy.dialects import openai_chat, openai_responses
from proxy.dialects.openai_chat.quirks import openai_quirks
from proxy.provider import MediaLimits, Provider, ProviderCall, Target

MEBIBYTE = 1024 * 1024
_RESPONSES = "openai-responses-v1"
_REASONING_MODEL = re.compile(r"o\d|gpt-(?:[5-9]|\d\d)|codex|computer-use")
"""https://developers.openai.com/api/docs/models. Where the catalogue says whether a model reasons, that counts."""


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    """Reasoning models refuse `temperature` and `top_p`, which the shipped clients always send: they are dropped."""
    reasons = is_reasoning(target)
    if reasons:
        request = replace(request, sampling=replace(request.sampling, temperature=None, top_p=None))
    if needs_responses(request, target):
        target = replace(target, capabilities={**target.capabilities, "reasoning": reasons})
        return openai_responses.build_call(request, target, PROVIDER.code, PROVIDER.name, format=_RESPONSES)
    if request.sampling.reasoning_summary is not None:  # `none`: it is what chat completions tell
        request = replace(request, sampling=replace(request.sampling, reasoning_summary=None))
    quirks = openai_quirks(target.provider_model, reasons=reasons, capabilities=target.capabilities)
    return openai_chat.build_call(request, target, quirks)


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
    parts = (part for message in request.messages for part in message.parts)
    return any(isinstance(part, Reasoning | ProviderItem) and part.format == _RESPONSES for part in parts)


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
)
