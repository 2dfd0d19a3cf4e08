"""Building requests for the Responses API: https://developers.openai.com/api/docs/api-reference/responses/create.

xAI has the same endpoint; `Variant` says where it differs. Nothing is stored at the provider unless the answer is made
in the background, where it cannot be fetched otherwise; it is deleted afterwards.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from proxy.chat import ChatRequest, ProviderTool, ResponseFormat, Sampling, Tool, WebSearch
from proxy.dialects.openai_responses.answer import open_reader, read_refusal
from proxy.dialects.openai_responses.background import build_background
from proxy.dialects.openai_responses.input import InputRules, build_input
from proxy.errors import RequestNotSupported
from proxy.features import Feature, check_features
from proxy.provider import ProviderCall, Target, UpstreamRequest

DEEP_RESEARCH_SEARCH = WebSearch(max_searches=100)
"""What a deep-research model searches with when nothing was said of it: it refuses to work without a search. Its own
bound is 225.
"""

_TAKEN: frozenset[Feature] = frozenset(
    {
        "temperature",
        "top_p",
        "logprobs",
        "reasoning_effort",
        "reasoning_summary",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "web_search",
        "images",
        "documents",
        "prompt_cache_key",
    }
)

_TOKENS_ONLY = frozenset(
    {"function", "custom", "namespace", "tool_search", "apply_patch", "local_shell", "computer", "computer_use_preview"}
)
"""Tools that the client runs, or that only choose among those."""

_REFUSED_TOOLS: Mapping[str, str] = MappingProxyType(
    {
        "code_interpreter": "its containers are paid for by time",
        "file_search": "it is paid for by the call",
        "image_generation": "its images have a price of their own",
        "mcp": "its server would be named by a request",
        "web_search": "it is asked for with web_search_options",
        "web_search_preview": "it is asked for with web_search_options",
    }
)


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs between the providers of this API."""

    takes: frozenset[Feature]
    end_user_field: str
    has_background: bool
    needs_sealed_reasoning: bool
    asks_for_logprobs: bool
    """Whether a flag asks for logprobs, or an entry of `include`."""
    blocked_domains_filter: str | None
    takes_search_hints: bool
    min_output_tokens: int = 1
    """Less is refused. Programs that ask for a token or two want to know whether a model answers at all."""
    max_call_id: int | None = None


OPENAI = Variant(
    takes=_TAKEN | {"provider_tools", "metadata", "verbosity"},
    end_user_field="safety_identifier",
    has_background=True,
    needs_sealed_reasoning=True,
    asks_for_logprobs=False,
    blocked_domains_filter=None,
    takes_search_hints=True,
    min_output_tokens=16,
    max_call_id=64,
)
XAI = Variant(
    takes=_TAKEN,
    end_user_field="user",
    has_background=False,
    needs_sealed_reasoning=False,
    asks_for_logprobs=True,
    blocked_domains_filter="excluded_domains",
    takes_search_hints=False,
)
_VARIANTS: Mapping[str, Variant] = MappingProxyType({"openai-responses-v1": OPENAI, "xai-responses-v1": XAI})


def build_call(
    request: ChatRequest,
    target: Target,
    provider_code: str,
    provider_name: str,
    *,
    format: str = "openai-responses-v1",
) -> ProviderCall:
    """Streamed, or in the background for models that think for many minutes.

    Reads of the target's capabilities: `reasoning` (asks for the sealed reasoning), `background`, and
    `cache_breakpoints` (takes marks for its prompt cache). Raises RequestNotSupported, naming the field. `format` is
    one of the vocabulary's.
    """
    variant = _VARIANTS[format]
    check_features(request, variant.takes, provider_name)
    in_background = variant.has_background and is_background(target)
    body = build_body(request, target, format, in_background=in_background)
    headers = (
        ("Authorization", f"Bearer {target.api_key}"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json" if in_background else "text/event-stream"),
    )
    url = f"{target.base_url.rstrip('/')}/responses"
    return ProviderCall(
        UpstreamRequest(url, headers, msgspec.json.encode(body)),
        partial(open_reader, provider_code, format),
        partial(read_refusal, provider_code),
        build_background(target) if in_background else None,
    )


def is_background(target: Target) -> bool:
    return target.capabilities.get("background") is True or is_deep_research(target)


def is_deep_research(target: Target) -> bool:
    return "deep-research" in target.provider_model


def build_body(request: ChatRequest, target: Target, item_format: str, *, in_background: bool) -> dict[str, Any]:
    """What is None is left out, so that the provider's own default holds."""
    variant, sampling = _VARIANTS[item_format], request.sampling
    marks_cache = target.capabilities.get("cache_breakpoints") is True and _has_marks(request)
    instructions, items = build_input(request.messages, _input_rules(request, item_format, marks_cache=marks_cache))
    search = request.web_search or (DEEP_RESEARCH_SEARCH if is_deep_research(target) else None)
    body: dict[str, Any] = {
        "model": target.provider_model,
        "instructions": instructions,
        "input": items,
        "max_output_tokens": request.max_output_tokens and max(request.max_output_tokens, variant.min_output_tokens),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "logprobs": True if variant.asks_for_logprobs and _wants_logprobs(sampling) else None,
        "top_logprobs": sampling.top_logprobs,
        "tools": list(_build_tools(request, search, target, variant)) or None,
        "tool_choice": _build_tool_choice(request),
        "parallel_tool_calls": request.parallel_tool_calls,
        "max_tool_calls": search.max_searches if search else None,
        "text": _build_text(request),
        "reasoning": _build_reasoning(sampling),
        "metadata": request.metadata or None,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"} if marks_cache else None,
        variant.end_user_field: request.end_user,
        "include": list(_build_include(request, target, variant, in_background)) or None,
        "store": in_background,
        "background": True if in_background else None,
        "stream": not in_background,
    }
    return _present(body)


def _input_rules(request: ChatRequest, item_format: str, *, marks_cache: bool) -> InputRules:
    """OpenAI wants to read the word JSON where any JSON object is asked for, and does not look at the instructions."""
    variant, wanted = _VARIANTS[item_format], request.response_format
    is_any_json = wanted is not None and wanted.type == "json_object"
    return InputRules(item_format, variant.needs_sealed_reasoning, marks_cache, not is_any_json, variant.max_call_id)


def _has_marks(request: ChatRequest) -> bool:
    return any(getattr(part, "cache_control", None) for message in request.messages for part in message.parts)


def _build_include(request: ChatRequest, target: Target, variant: Variant, in_background: bool) -> Iterator[str]:
    """Models that do not reason refuse to be asked for the seal. In the background nobody comes back with one."""
    sampling = request.sampling
    if target.capabilities.get("reasoning") is True and not in_background:
        yield "reasoning.encrypted_content"
    if _wants_logprobs(sampling) and not variant.asks_for_logprobs:
        yield "message.output_text.logprobs"
    if request.web_search is not None and variant.takes_search_hints and not is_deep_research(target):
        yield "web_search_call.action.sources"


def _wants_logprobs(sampling: Sampling) -> bool:
    return bool(sampling.logprobs or sampling.top_logprobs)


def _build_text(request: ChatRequest) -> dict[str, Any] | None:
    text = {"format": _build_response_format(request.response_format), "verbosity": request.sampling.verbosity}
    return _present(text) or None


def _build_response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema"} | _present(schema)


def _build_reasoning(sampling: Sampling) -> dict[str, Any] | None:
    summary = None if sampling.reasoning_summary == "none" else sampling.reasoning_summary
    return _present({"effort": sampling.reasoning_effort, "summary": summary}) or None


def _build_tools(
    request: ChatRequest, search: WebSearch | None, target: Target, variant: Variant
) -> Iterator[dict[str, Any]]:
    """Deep-research models know the search by its first name alone, which has no filters."""
    yield from (_build_function(tool) for tool in request.tools)
    yield from (_build_provider_tool(tool) for tool in request.provider_tools)
    if search is not None:
        tool = _build_search(search, variant)
        if is_deep_research(target) and "filters" not in tool:
            tool["type"] = "web_search_preview"
        yield tool


def _build_function(tool: Tool) -> dict[str, Any]:
    """Strict is the default here and not in chat completions, so it is said always."""
    function = {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
        "strict": bool(tool.strict),
    }
    return _present(function)


def _build_provider_tool(tool: ProviderTool) -> dict[str, Any]:
    """Only what costs nothing but tokens: https://developers.openai.com/api/docs/pricing."""
    environment = tool.definition.get("environment")
    is_local_shell = tool.type == "shell" and isinstance(environment, Mapping) and environment.get("type") == "local"
    if tool.type not in _TOKENS_ONLY and not is_local_shell:
        reason = _REFUSED_TOOLS.get(tool.type, "it may cost more than tokens")
        raise RequestNotSupported(f"provider_tools: {tool.type[:100]} is not offered here, for {reason}")
    return {**tool.definition, "type": tool.type}


def _build_search(search: WebSearch, variant: Variant) -> dict[str, Any]:
    filters: dict[str, Any] = {"allowed_domains": list(search.allowed_domains) or None}
    if search.blocked_domains:
        if variant.blocked_domains_filter is None:
            raise RequestNotSupported("web_search.blocked_domains: this model's provider cannot leave out domains")
        filters[variant.blocked_domains_filter] = list(search.blocked_domains)
    tool: dict[str, Any] = {"type": "web_search", "filters": _present(filters) or None}
    if variant.takes_search_hints:
        tool["search_context_size"] = search.context_size
        tool["user_location"] = _build_location(search)
    return _present(tool)


def _build_location(search: WebSearch) -> dict[str, Any] | None:
    return {"type": "approximate", **search.user_location} if search.user_location else None


def _build_tool_choice(request: ChatRequest) -> str | dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None:
        return None
    if not choice.names or choice.mode == "none":
        return choice.mode
    tools = [_build_chosen(name, request) for name in choice.names]
    if len(tools) == 1 and choice.mode == "required":
        return tools[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}


def _build_chosen(name: str, request: ChatRequest) -> dict[str, Any]:
    """A name is that of a function, of a custom tool, or the type of a tool that has no name."""
    if any(tool.name == name for tool in request.tools):
        return {"type": "function", "name": name}
    for tool in request.provider_tools:
        if tool.definition.get("name") == name:
            return {"type": tool.type, "name": name}
    if name == "web_search" or any(tool.type == name for tool in request.provider_tools):
        return {"type": name}
    return {"type": "function", "name": name}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
