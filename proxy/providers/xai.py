"""xAI, through its chat completions: https://docs.x.ai/docs/api-reference#chat-completions.

Its server-side search is in the Responses API alone (https://docs.x.ai/docs/guides/tools/overview), so a request that
searches the web goes there.
"""

from dataclasses import replace
from typing import get_args

from proxy.chat import ChatRequest
from proxy.dialects import openai_chat, openai_responses
from proxy.dialects.openai_chat.quirks import TOOLS, ChatQuirks
from proxy.features import Feature, check_features
from proxy.provider import MEBIBYTE, MediaLimits, Provider, ProviderCall, Target

RESPONSES_FORMAT = "xai-responses-v1"

QUIRKS = ChatQuirks(
    code="xai",
    name="xAI",
    takes=TOOLS
    | {
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "logprobs",
        "reasoning_effort",
        "images",
    },
    replays="reasoning_content",
    counts_reasoning_beside=True,
)
"""What all its models take together; quirks_of says what one of them does."""

_NOT_WITH_REASONING: frozenset[Feature] = frozenset({"frequency_penalty", "presence_penalty", "stop"})
"""https://docs.x.ai/docs/guides/reasoning"""
_WITHOUT_REASONING = ("grok-2", "grok-3", "grok-beta", "grok-vision")
_WITHOUT_EFFORT = ("grok-4-", "grok-4.20", "grok-code")


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    if request.web_search is not None:
        if not takes_effort(target):
            check_features(request, frozenset(get_args(Feature)) - {"reasoning_effort"}, QUIRKS.name)
        return openai_responses.build_call(request, target, QUIRKS.code, QUIRKS.name, format=RESPONSES_FORMAT)
    return openai_chat.build_call(request, target, quirks_of(target))


def quirks_of(target: Target) -> ChatQuirks:
    """Models that reason refuse penalties and stop sequences, and most of those do not let their effort be chosen. The
    catalogue's `reasoning` and `reasoning_effort` decide; without them the model's name does.
    """
    refused: set[Feature] = set()
    if reasons(target):
        refused |= _NOT_WITH_REASONING
    if not takes_effort(target):
        refused.add("reasoning_effort")
    return replace(QUIRKS, takes=QUIRKS.takes - refused)


def reasons(target: Target) -> bool:
    known, model = target.capabilities.get("reasoning"), target.provider_model
    if isinstance(known, bool):
        return known
    return model.startswith("grok-3-mini") or not (model.startswith(_WITHOUT_REASONING) or "non-reasoning" in model)


def takes_effort(target: Target) -> bool:
    known, model = target.capabilities.get("reasoning_effort"), target.provider_model
    if isinstance(known, bool):
        return known
    return reasons(target) and model != "grok-4" and not model.startswith(_WITHOUT_EFFORT)


PROVIDER = Provider(
    code=QUIRKS.code,
    name=QUIRKS.name,
    default_base_url="https://api.x.ai/v1",
    media=MediaLimits(image_types=frozenset({"image/jpeg", "image/png"}), max_image_bytes=20 * MEBIBYTE),
    build_call=build_call,
)
