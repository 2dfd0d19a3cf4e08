"""OpenRouter, a door to many providers: OpenAI's chat dialect with additions, https://openrouter.ai/docs/api-reference.

Which provider answers is OpenRouter's choice and never a request's. Prompts go to none that keeps them.
"""

from proxy.chat import ChatRequest
from proxy.dialects import openai_chat
from proxy.dialects.openai_chat.quirks import SAMPLING, TOOLS, ChatQuirks
from proxy.provider import MediaLimits, Provider, ProviderCall, Target

QUIRKS = ChatQuirks(
    code="openrouter",
    name="OpenRouter",
    takes=SAMPLING
    | TOOLS
    | {
        "top_k",
        "reasoning_tokens",
        "reasoning_summary",
        "verbosity",
        "provider_tools",
        "web_search",
        "input_audio",
        "images",
        "documents",
        "image_output",
        "audio_output",
        "metadata",
        "prompt_cache_key",
    },
    output_limit="max_tokens",
    reasoning="reasoning",
    replays="reasoning_details",
    web_search="openrouter:web_search",
    cache_hints="cache_control",
    # Others search, fetch, draw, run code or call other models, at prices of their own: https://openrouter.ai/tools.
    provider_tools=frozenset({"openrouter:datetime"}),
    item_format="openrouter-v1",
    headers=(("HTTP-Referer", "https://plantocode.com"), ("X-Title", "PlanToCode")),
    constants={"usage": {"include": True}, "provider": {"data_collection": "deny"}},
)


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    return openai_chat.build_call(request, target, QUIRKS)


PROVIDER = Provider(
    code=QUIRKS.code,
    name=QUIRKS.name,
    default_base_url="https://openrouter.ai/api/v1",
    media=MediaLimits(image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})),
    build_call=build_call,
)
