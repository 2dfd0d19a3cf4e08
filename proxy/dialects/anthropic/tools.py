"""Tools as Anthropic's Messages API has them: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.chat import ChatRequest, ProviderTool, Tool, WebSearch
from proxy.dialects.anthropic.schemas import narrow
from proxy.errors import RequestNotSupported
from proxy.provider import Target

WEB_SEARCH = "web_search_20250305"

_TOKENS_ONLY = re.compile(
    r"custom|(computer|text_editor|bash|memory|web_fetch|tool_search_tool_(bm25|regex))(_\d{8})?", re.ASCII
)
"""What costs nothing but tokens: the client runs it, or Anthropic does so without a fee. `custom` is a client's own
tool with members that only Anthropic knows (`defer_loading`, `eager_input_streaming`, `input_examples`).
"""
_REFUSED = {
    "web_search": "ask for it as web_search, so that its searches are counted",
    "code_execution": "its containers are charged by time, which this server has no price for",
    "mcp": "which hosts are called is not for a request to say",
    "advisor": "it runs another model at another price",
}
_BETAS = {
    "computer_20241022": "computer-use-2024-10-22",
    "text_editor_20241022": "computer-use-2024-10-22",
    "bash_20241022": "computer-use-2024-10-22",
    "computer_20250124": "computer-use-2025-01-24",
    "computer_20251124": "computer-use-2025-11-24",
    "memory_20250818": "context-management-2025-06-27",
    "web_fetch_20250910": "web-fetch-2025-09-10",
}
"""The header that a tool's documentation asks for; the others are generally available."""


def build_tools(request: ChatRequest, target: Target) -> list[dict[str, Any]]:
    """Raises RequestNotSupported for tools that cost more than tokens."""
    tools = [_build_tool(tool) for tool in request.tools]
    tools += [_build_provider_tool(tool) for tool in request.provider_tools]
    if request.web_search is not None:
        tools.append(_build_web_search(request.web_search, target))
    return tools


def needed_betas(request: ChatRequest) -> list[str]:
    """Values of the header anthropic-beta, each once."""
    return sorted({_BETAS[tool.type] for tool in request.provider_tools if tool.type in _BETAS})


def build_tool_choice(request: ChatRequest, *, has_tools: bool) -> dict[str, Any] | None:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use#forcing-tool-use"""
    choice = _build_choice(request)
    if not has_tools:
        if choice is not None and choice["type"] in {"any", "tool"}:
            raise RequestNotSupported("tool_choice: a call is required, and there are no tools")
        return None
    if request.parallel_tool_calls is not None and (choice is None or choice["type"] != "none"):
        choice = choice or {"type": "auto"}
        choice["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return choice


def _build_choice(request: ChatRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None:
        return None
    if not choice.names:
        return {"type": "any" if choice.mode == "required" else choice.mode}
    if len(choice.names) == 1 and choice.mode == "required":
        return {"type": "tool", "name": choice.names[0]}
    raise RequestNotSupported("tool_choice: Anthropic can be told to call one tool by name, not to choose among some")


def _build_tool(tool: Tool) -> dict[str, Any]:
    built = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": _build_schema(tool.parameters, is_strict=bool(tool.strict)),
        "strict": tool.strict,
        "cache_control": tool.cache_control,
    }
    return {name: value for name, value in built.items() if value is not None}


def _build_schema(parameters: Mapping[str, object] | None, *, is_strict: bool) -> Mapping[str, object]:
    """Anthropic wants to be told that arguments are an object, which others take for granted."""
    schema = {"properties": {}} if parameters is None else parameters
    schema = schema if "type" in schema else {"type": "object", **schema}
    return narrow(schema) if is_strict else schema


def _build_provider_tool(tool: ProviderTool) -> dict[str, Any]:
    if not _TOKENS_ONLY.fullmatch(tool.type):
        kind = next((kind for kind in _REFUSED if tool.type.startswith(kind)), "")
        reason = _REFUSED.get(kind, "this server does not know what it costs")
        raise RequestNotSupported(f"tools: {tool.type[:100]} is not taken: {reason}")
    if tool.type == "custom" and not {"name", "input_schema"} <= tool.definition.keys():
        raise RequestNotSupported("tools: Anthropic wants name and input_schema of a custom tool")
    return {**tool.definition, "type": tool.type}


def _build_web_search(search: WebSearch, target: Target) -> dict[str, Any]:
    """The capability `web_search` may name a newer version of the tool, which filters what it found by code of its own
    (without a fee): https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool.
    """
    _check_search(search)
    version = target.capabilities.get("web_search")
    tool: dict[str, Any] = {
        "type": version if isinstance(version, str) else WEB_SEARCH,
        "name": "web_search",
        "max_uses": search.max_searches,
    }
    return tool | dict(_search_limits(search))


def _search_limits(search: WebSearch) -> Iterator[tuple[str, Any]]:
    if search.allowed_domains:
        yield "allowed_domains", search.allowed_domains
    if search.blocked_domains:
        yield "blocked_domains", search.blocked_domains
    if search.user_location is not None:
        yield "user_location", {"type": "approximate", **search.user_location}


def _check_search(search: WebSearch) -> None:
    if search.allowed_domains and search.blocked_domains:
        raise RequestNotSupported("web_search: either allowed_domains or blocked_domains")
    if search.context_size not in {None, "medium"}:
        raise RequestNotSupported("web_search.context_size: Anthropic cannot be told; leave it out")
