"""Building requests for Anthropic's Messages API: https://platform.claude.com/docs/en/api/messages/create."""

from typing import Any

import msgspec

from proxy.chat import ChatRequest, ResponseFormat
from proxy.dialects.anthropic.endings import began_without_thought, trim_end
from proxy.dialects.anthropic.models import ModelWays, read_ways
from proxy.dialects.anthropic.schemas import narrow
from proxy.dialects.anthropic.thinking import build_effort, build_thinking
from proxy.dialects.anthropic.tools import build_tool_choice, build_tools, needed_betas
from proxy.dialects.anthropic.turns import build_system, build_turns
from proxy.errors import RequestNotSupported
from proxy.features import Feature, check_features
from proxy.provider import Target, UpstreamRequest

VERSION = "2023-06-01"
"""https://platform.claude.com/docs/en/api/versioning"""
DEFAULT_MAX_TOKENS = 4096
"""The API has no default of its own; the catalogue normally says one."""
MIN_TOP_P_WITH_THINKING = 0.95
MAX_TEMPERATURE = 1.0
"""Others go up to 2. Anthropic's own translation makes 1 of what is more:
https://platform.claude.com/docs/en/cli-sdks-libraries/libraries/openai-sdk.
"""

_TAKES: frozenset[Feature] = frozenset(
    {
        "temperature",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "provider_tools",
        "response_format",
        "web_search",
        "images",
        "documents",
    }
)
_RANDOMNESS: frozenset[Feature] = frozenset({"top_p", "top_k"})
_REASONING: frozenset[Feature] = frozenset({"reasoning_effort", "reasoning_tokens", "reasoning_summary"})


def build_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    """Always streamed. Raises RequestNotSupported, naming the field, for what the API or this model cannot do."""
    headers = [
        ("x-api-key", target.api_key),
        ("anthropic-version", VERSION),
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream"),
    ]
    betas = needed_betas(request)
    if betas:
        headers.append(("anthropic-beta", ",".join(betas)))
    url = f"{target.base_url.rstrip('/')}/messages"
    return UpstreamRequest(url, tuple(headers), msgspec.json.encode(build_body(request, target)))


def build_body(request: ChatRequest, target: Target) -> dict[str, Any]:
    """What is None or empty is left out, so that the API's own default holds."""
    ways = read_ways(target)
    check_features(request, _taken(ways), "Anthropic")
    max_tokens = request.max_output_tokens or DEFAULT_MAX_TOKENS
    turns = build_turns(request.messages)
    thinking = build_thinking(request, ways, max_tokens)
    if _has_budget(thinking) and began_without_thought(turns):
        thinking = None
    tools = build_tools(request, target)
    body: dict[str, Any] = {
        "model": target.provider_model,
        "max_tokens": max_tokens,
        "system": build_system(request.messages),
        "messages": trim_end(turns, thinks=_is_on(thinking)),
        "stop_sequences": request.sampling.stop,
        "thinking": thinking,
        "output_config": _build_output(request, ways),
        "tools": tools,
        "tool_choice": build_tool_choice(request, has_tools=bool(tools)),
        "cache_control": request.cache_control,
        "metadata": request.end_user and {"user_id": request.end_user},
        "stream": True,
    }
    body |= _build_randomness(request, ways, thinks=_is_on(thinking))
    if _has_budget(thinking):
        _check_choice(body["tool_choice"])
    return {name: value for name, value in body.items() if value not in (None, "", (), [], {})}


def _taken(ways: ModelWays) -> frozenset[Feature]:
    """Temperature always: the shipped clients send it with every request, and a model that does without loses it."""
    taken = _TAKES
    if ways.randomness != "none":
        taken |= _RANDOMNESS
    return taken if ways.thinking == "never" else taken | _REASONING


def _is_on(thinking: dict[str, Any] | None) -> bool:
    return thinking is not None and thinking["type"] != "disabled"


def _has_budget(thinking: dict[str, Any] | None) -> bool:
    return thinking is not None and thinking["type"] == "enabled"


def _build_randomness(request: ChatRequest, ways: ModelWays, *, thinks: bool) -> dict[str, Any]:
    """Models since Opus 4.1 refuse temperature beside top_p, thinking ones refuse it at all: the rarer word counts, and
    a top_p of 1, which many clients send with everything, says nothing.
    """
    temperature, top_p = request.sampling.temperature, request.sampling.top_p
    if thinks:
        _check_thinking_randomness(request)
    if ways.randomness == "none" or (ways.randomness == "one" and top_p == 1 and temperature is not None):
        top_p = None
    if thinks or ways.randomness == "none" or (ways.randomness == "one" and top_p is not None):
        temperature = None
    return {
        "temperature": None if temperature is None else min(temperature, MAX_TEMPERATURE),
        "top_p": top_p,
        "top_k": request.sampling.top_k,
    }


def _check_thinking_randomness(request: ChatRequest) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking#feature-compatibility"""
    sampling = request.sampling
    if sampling.top_k is not None:
        raise RequestNotSupported("top_k: Anthropic does not take it together with reasoning")
    if sampling.top_p is not None and sampling.top_p < MIN_TOP_P_WITH_THINKING:
        raise RequestNotSupported(f"top_p: at least {MIN_TOP_P_WITH_THINKING} together with reasoning")


def _check_choice(choice: dict[str, Any] | None) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows: not together with a budget."""
    if choice is not None and choice["type"] in {"any", "tool"}:
        raise RequestNotSupported("tool_choice: Anthropic cannot require a call of a model that reasons with a budget")


def _build_output(request: ChatRequest, ways: ModelWays) -> dict[str, Any]:
    """https://platform.claude.com/docs/en/build-with-claude/structured-outputs"""
    output = {"effort": build_effort(request.sampling, ways), "format": _build_format(request.response_format)}
    return {name: value for name, value in output.items() if value is not None}


def _build_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """A schema is always kept to, and has neither a name nor a description of its own."""
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type != "json_schema" or wanted.schema is None:
        raise RequestNotSupported("response_format: Anthropic wants the schema of the JSON: use json_schema")
    return {"type": "json_schema", "schema": narrow(wanted.schema)}
