"""OpenAI's chat completions as providers speak it: https://platform.openai.com/docs/api-reference/chat."""

from collections.abc import Mapping
from functools import partial
from typing import Any, get_args

import msgspec

from proxy.chat import ChatRequest, ProviderTool, ResponseFormat, Tool, ToolChoice, WebSearch
from proxy.dialects.openai_chat.answer import Reading, open_reader
from proxy.dialects.openai_chat.errors import read_refusal
from proxy.dialects.openai_chat.messages import build_messages
from proxy.dialects.openai_chat.quirks import ChatQuirks
from proxy.errors import RequestNotSupported
from proxy.features import Feature, check_features
from proxy.provider import ProviderCall, Target, UpstreamRequest

_FEATURES = frozenset(get_args(Feature))
_MODALITIES = frozenset({"text", "image", "audio"})


def build_call(request: ChatRequest, target: Target, quirks: ChatQuirks) -> ProviderCall:
    """The request on this dialect's wire, and how its answer is read. Streamed wherever that can be: an answer that
    nobody waits for can be closed in its middle. Raises RequestNotSupported.
    """
    reading = Reading(quirks.item_format, quirks.counts_reasoning_beside, quirks.unreported_searches)
    return ProviderCall(
        build_request(request, target, quirks),
        partial(open_reader, quirks.code, reading=reading),
        partial(read_refusal, quirks.code),
    )


def build_request(request: ChatRequest, target: Target, quirks: ChatQuirks) -> UpstreamRequest:
    headers = (
        ("Authorization", f"Bearer {target.api_key}"),
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream" if _is_streamed(request) else "application/json"),
        *quirks.headers,
    )
    body = build_body(request, target.provider_model, quirks)
    url = f"{target.base_url.rstrip('/')}/chat/completions"
    return UpstreamRequest(url, headers, msgspec.json.encode(body))


def build_body(request: ChatRequest, provider_model: str, quirks: ChatQuirks) -> dict[str, Any]:
    """What is None is left out, so that the provider's own default holds; so is what the server does not take."""
    check_features(request, quirks.takes | quirks.drops, quirks.name)
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": provider_model,
        "messages": build_messages(request, quirks),
        quirks.output_limit: request.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "logprobs": sampling.logprobs,
        "top_logprobs": sampling.top_logprobs if "logprobs" in quirks.takes else None,
        "logit_bias": _build_bias(sampling.logit_bias),
        "verbosity": sampling.verbosity,
        "tools": _build_tools(request, quirks) or None,
        "tool_choice": build_tool_choice(request.tool_choice, quirks),
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": build_response_format(request.response_format),
        "modalities": _build_modalities(request.modalities),
        "audio": request.audio_output,
        "metadata": request.metadata or None,
        "prompt_cache_key": request.prompt_cache_key if "prompt_cache_key" in quirks.takes else None,
        "user": request.end_user,
        "stream": _is_streamed(request),
        "stream_options": {"include_usage": True} if _is_streamed(request) else None,
    }
    body |= _build_reasoning(request, quirks) | _build_caching(request, quirks) | _build_search(request, quirks)
    left_out = quirks.leaves_out | (_FEATURES - quirks.takes)
    taken = {name: value for name, value in body.items() if name not in left_out}
    return {name: value for name, value in taken.items() if value is not None} | dict(quirks.constants)


def _is_streamed(request: ChatRequest) -> bool:
    """Sound is streamed in one format alone, and refused in others: https://platform.openai.com/docs/guides/audio."""
    return (request.audio_output or {}).get("format", "pcm16") == "pcm16"


def _build_bias(bias: Mapping[str, float] | None) -> dict[str, float] | None:
    """Whole numbers go as such: the API calls them integers."""
    if bias is None:
        return None
    return {token: int(value) if int(value) == value else value for token, value in bias.items()}


def build_tool_choice(choice: ToolChoice | None, quirks: ChatQuirks) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if _is_one(choice):
        return {"type": "function", "function": {"name": choice.names[0]}}
    if not choice.names or not quirks.takes_allowed_tools:
        return choice.mode
    tools = [{"type": "function", "function": {"name": name}} for name in choice.names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}


def build_response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": {name: value for name, value in schema.items() if value is not None}}


def _is_one(choice: ToolChoice) -> bool:
    return len(choice.names) == 1 and choice.mode == "required"


def _build_tools(request: ChatRequest, quirks: ChatQuirks) -> list[dict[str, Any]]:
    """A server that cannot narrow its choice to some tools is offered these alone."""
    choice, offered = request.tool_choice, request.tools
    if choice is not None and choice.names and not _is_one(choice) and not quirks.takes_allowed_tools:
        offered = tuple(tool for tool in offered if tool.name in choice.names)
    tools = [_build_tool(tool, quirks) for tool in offered]
    tools += [_build_provider_tool(tool, quirks) for tool in request.provider_tools]
    if request.web_search is not None and quirks.web_search == "openrouter:web_search":
        tools.append(_build_search_tool(request.web_search))
    return tools


def _build_tool(tool: Tool, quirks: ChatQuirks) -> dict[str, Any]:
    """Some servers refuse a function without parameters: https://github.com/dirac-run/dirac/issues/58 (xAI)."""
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
        "strict": tool.strict,
    }
    known = {name: value for name, value in function.items() if value is not None}
    hint = {"cache_control": tool.cache_control} if tool.cache_control and quirks.cache_hints == "cache_control" else {}
    return {"type": "function", "function": known} | hint


def _build_provider_tool(tool: ProviderTool, quirks: ChatQuirks) -> dict[str, Any]:
    if tool.type not in quirks.provider_tools:
        kind = tool.type[:50]
        raise RequestNotSupported(f"tools: {kind!r} is not passed on to {quirks.name}: it costs more than tokens there")
    return dict(tool.definition)


def _build_modalities(modalities: tuple[str, ...]) -> list[str] | None:
    unknown = set(modalities) - _MODALITIES
    if unknown:
        raise RequestNotSupported(f"modalities: only {', '.join(sorted(_MODALITIES))} are known")
    beside_text = [name for name in modalities if name != "text"]
    return ["text", *beside_text] if beside_text else None


def _build_reasoning(request: ChatRequest, quirks: ChatQuirks) -> dict[str, Any]:
    sampling = request.sampling
    if quirks.reasoning == "reasoning_effort":
        return {"reasoning_effort": sampling.reasoning_effort}
    return {"reasoning": _build_reasoning_object(request) or None}


def _build_reasoning_object(request: ChatRequest) -> dict[str, Any]:
    """OpenRouter takes an effort or a number of tokens, not both: the number says more.
    https://openrouter.ai/docs/use-cases/reasoning-tokens
    """
    sampling = request.sampling
    built: dict[str, Any] = {}
    if sampling.reasoning_tokens == 0:
        built["enabled"] = False
    elif sampling.reasoning_tokens is not None:
        built["max_tokens"] = sampling.reasoning_tokens
    elif sampling.reasoning_effort is not None:
        built["effort"] = sampling.reasoning_effort
    if sampling.reasoning_summary == "none":
        built["exclude"] = True
    elif sampling.reasoning_summary is not None:
        built["summary"] = sampling.reasoning_summary
    return built


def _build_caching(request: ChatRequest, quirks: ChatQuirks) -> dict[str, Any]:
    if quirks.cache_hints == "cache_control":
        return {"cache_control": request.cache_control}
    marked = any(getattr(part, "cache_control", None) for message in request.messages for part in message.parts)
    if quirks.cache_hints and marked:
        return {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}}
    return {}


def _build_search(request: ChatRequest, quirks: ChatQuirks) -> dict[str, Any]:
    """OpenAI's search models: https://platform.openai.com/docs/guides/tools-web-search?api-mode=chat."""
    wanted = request.web_search
    if wanted is None or quirks.web_search != "web_search_options":
        return {}
    if wanted.allowed_domains or wanted.blocked_domains:
        raise RequestNotSupported(f"web_search: {quirks.name} takes no domains for this model; leave them out")
    options: dict[str, Any] = {"search_context_size": wanted.context_size} if wanted.context_size else {}
    if wanted.user_location:
        options["user_location"] = {"type": "approximate", "approximate": wanted.user_location}
    return {"web_search_options": options}


def _build_search_tool(wanted: WebSearch) -> dict[str, Any]:
    """https://openrouter.ai/docs/guides/features/server-tools/web-search; the `web` plugin is its deprecated
    predecessor. It takes domains to allow or to exclude, not both.
    """
    if wanted.allowed_domains and wanted.blocked_domains:
        raise RequestNotSupported("web_search: either allowed or blocked domains; OpenRouter does not take both")
    parameters: dict[str, Any] = {
        "max_uses": wanted.max_searches,
        "search_context_size": wanted.context_size,
        "user_location": {"type": "approximate", **wanted.user_location} if wanted.user_location else None,
        "allowed_domains": list(wanted.allowed_domains) or None,
        "excluded_domains": list(wanted.blocked_domains) or None,
    }
    known = {name: value for name, value in parameters.items() if value is not None}
    return {"type": "openrouter:web_search", "parameters": known}
