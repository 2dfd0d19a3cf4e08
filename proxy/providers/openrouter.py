"""OpenRouter, a door to many providers: OpenAI's chat dialect with additions, https://openrouter.ai/docs/api-reference.

Which provider answers is OpenRouter's choice and never a request's. Prompts go to none that keeps them.
"""

import re
from collections.abc import Mapping

import msgspec

from proxy.answer import NOT_JSON
from proxy.chat import ChatRequest
from proxy.dialects import openai_chat
from proxy.dialects.openai_chat.quirks import SAMPLING, TOOLS, ChatQuirks
from proxy.dialects.openai_chat.usage import read_usage
from proxy.events import Usage
from proxy.provider import Lookup, MediaLimits, Provider, ProviderCall, Target, UpstreamRequest

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

_ID = re.compile(r"gen-[A-Za-z0-9-]{1,200}")
"""An id becomes a part of URLs that carry our key."""
_ID_OF_CHUNK = re.compile(rb'"id"\s*:\s*"(gen-[A-Za-z0-9-]{1,200})"')
"""Every chunk begins with it. Text of a model cannot look like this: its quotation marks are escaped."""


class _Generation(msgspec.Struct):
    """Its numbers are JSON numbers of any form. Tokens as the model's own provider counts and bills them."""

    id: str
    native_tokens_prompt: int | None = None
    native_tokens_completion: int | None = None
    native_tokens_completion_images: int | None = None
    native_tokens_reasoning: int | None = None
    native_tokens_cached: int | None = None


class _Reply(msgspec.Struct):
    data: _Generation


_decode_reply = msgspec.json.Decoder(_Reply, strict=False).decode


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    return openai_chat.build_call(request, target, QUIRKS)


def read_generation_id(headers: Mapping[str, str], body: bytes) -> str | None:
    """The header is there before the first token: https://openrouter.ai/docs/api_reference/streaming."""
    id_ = headers.get("x-generation-id", "")
    if _ID.fullmatch(id_):
        return id_
    found = _ID_OF_CHUNK.search(body)
    return found[1].decode() if found else None


def build_lookup(target: Target, id_: str) -> UpstreamRequest:
    """https://openrouter.ai/docs/api/api-reference/generations/get-generation; 404 for some seconds after the end."""
    headers = (("Authorization", f"Bearer {target.api_key}"), ("Accept", "application/json"))
    return UpstreamRequest(f"{target.base_url.rstrip('/')}/generation?id={id_}", headers, b"", "GET")


def read_generation(body: bytes, id_: str) -> Usage | None:
    """None for another generation, and for one without tokens: that is no word. Cached tokens are those that were
    read: what was written to a cache is not told, nor how often it searched.
    """
    try:
        told = _decode_reply(body).data
    except NOT_JSON:
        return None
    completion = {
        "reasoning_tokens": told.native_tokens_reasoning,
        "image_tokens": told.native_tokens_completion_images,
    }
    reported = {
        "prompt_tokens": told.native_tokens_prompt,
        "completion_tokens": told.native_tokens_completion,
        "prompt_tokens_details": {"cached_tokens": told.native_tokens_cached},
        "completion_tokens_details": completion,
    }
    usage = read_usage(reported)
    return None if told.id != id_ or usage == Usage() else usage


PROVIDER = Provider(
    code=QUIRKS.code,
    name=QUIRKS.name,
    default_base_url="https://openrouter.ai/api/v1",
    media=MediaLimits(image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})),
    build_call=build_call,
    lookup=Lookup(read_generation_id, build_lookup, read_generation),
)
