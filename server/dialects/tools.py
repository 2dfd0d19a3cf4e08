"""Tools as clients offer them: functions, the provider's own search, and tools that only a provider knows. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from proxy.chat import ProviderTool, Tool, ToolChoice, WebSearch
from server.dialects.bounds import MAX_NAME, check_count, check_name, check_range, read_cache_control
from server.errors import RequestInvalid

MAX_TOOLS = 1000
"""Providers take 128; this only keeps one request from costing the others their turn."""
MAX_DOMAINS = 100
MAX_SEARCHES = 1000

_SEARCH = "web_search"
"""How every provider's name for it begins: `web_search`, `web_search_preview`, `web_search_20250305`, …"""
_SEARCH_MEMBERS = frozenset(
    {
        "type",
        "name",
        "cache_control",
        "search_context_size",
        "user_location",
        "allowed_domains",
        "blocked_domains",
        "filters",
        "max_uses",
    }
)
_PLACES = ("country", "region", "city", "timezone")


class WireFunctionTool(msgspec.Struct):
    """Nested in `function` as in chat completions, or flat as in Responses."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class WireSearchOptions(msgspec.Struct):
    """`web_search_options`: https://platform.openai.com/docs/api-reference/chat/create."""

    search_context_size: str | None = None
    user_location: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """What ChatRequest says of tools."""

    functions: tuple[Tool, ...]
    provider_tools: tuple[ProviderTool, ...]
    web_search: WebSearch | None

    @property
    def any(self) -> bool:
        return bool(self.functions or self.provider_tools or self.web_search)


def read_tools(tools: list[dict[str, Any]] | None, options: WireSearchOptions | None = None) -> Offered:
    """A search is asked for by `web_search_options`, or by a tool of a type that a provider calls its search."""
    check_count(tools, MAX_TOOLS, "tools")
    functions: list[Tool] = []
    others: list[ProviderTool] = []
    search = None if options is None else _read_search_options(options)
    for number, tool in enumerate(tools or ()):
        where = f"tools[{number}]"
        type_ = _read_type(tool, where)
        if type_ == "function":
            functions.append(_read_function(tool, where))
        elif type_.startswith(_SEARCH):
            search = search or _read_search_tool(tool, where)
        else:
            others.append(ProviderTool(type_, _flatten(type_, tool)))
    return Offered(tuple(functions), tuple(others), search)


def read_tool_choice(choice: str | dict[str, Any] | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return ToolChoice("required", (name,))
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            return ToolChoice(mode, _read_allowed(tools))
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(tools)}:
            return ToolChoice(mode, _read_allowed(tools))
    raise RequestInvalid("tool_choice: 'auto', 'none', 'required', one function by its name, or allowed_tools")


def _flatten(type_: str, tool: dict[str, Any]) -> dict[str, Any]:
    """`custom` tools have their members one level down in chat completions, and at the top everywhere else."""
    inner = tool.get(type_) if type_ == "custom" else None
    return {"type": type_, **inner} if isinstance(inner, dict) else tool


def _read_type(tool: dict[str, Any], where: str) -> str:
    type_ = tool.get("type")
    if not isinstance(type_, str) or not type_ or len(type_) > MAX_NAME:
        raise RequestInvalid(f"{where}.type: 'function', or the type of a tool that the provider knows")
    return type_


def _read_function(tool: dict[str, Any], where: str) -> Tool:
    inner = tool.get("function")
    try:
        function = msgspec.convert(tool if inner is None else inner, WireFunctionTool)
    except msgspec.ValidationError as error:
        raise RequestInvalid(f"{where}: {error}") from error
    mark = tool.get("cache_control") or (isinstance(inner, dict) and inner.get("cache_control")) or None
    cache_control = read_cache_control(mark, where)
    return Tool(function.name, function.description, function.parameters, function.strict, cache_control)


def _read_allowed(tools: list[Any]) -> tuple[str, ...]:
    check_count(tools, MAX_TOOLS, "tool_choice.tools")
    return tuple(_read_allowed_name(tool) for tool in tools)


def _read_allowed_name(tool: object) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
    raise RequestInvalid("tool_choice.tools: functions by their names")


def _read_search_options(options: WireSearchOptions) -> WebSearch:
    where = "web_search_options"
    return WebSearch(_read_context_size(options.search_context_size, where), _read_place(options.user_location, where))


def _read_search_tool(tool: dict[str, Any], where: str) -> WebSearch:
    """OpenAI's, Anthropic's and xAI's members; another would change the answer, so it is not passed over."""
    unknown = [name for name, value in tool.items() if value is not None and name not in _SEARCH_MEMBERS]
    if unknown:
        raise RequestInvalid(f"{where}.{unknown[0][:50]}: is not known of a web search")
    filters = tool.get("filters") or {}
    if not isinstance(filters, dict):
        raise RequestInvalid(f"{where}.filters: an object with allowed_domains")
    max_uses = tool.get("max_uses")
    if max_uses is not None and type(max_uses) is not int:
        raise RequestInvalid(f"{where}.max_uses: must be a whole number")
    check_range(max_uses, 1, MAX_SEARCHES, f"{where}.max_uses")
    return WebSearch(
        _read_context_size(tool.get("search_context_size"), where),
        _read_place(tool.get("user_location"), where),
        _read_domains(tool.get("allowed_domains") or filters.get("allowed_domains"), where),
        _read_domains(_blocked(tool, filters), where),
        max_uses or WebSearch().max_searches,
    )


def _blocked(tool: Mapping[str, Any], filters: Mapping[str, Any]) -> object:
    """xAI calls them excluded: https://docs.x.ai/docs/guides/tools/search-tools."""
    return tool.get("blocked_domains") or filters.get("blocked_domains") or filters.get("excluded_domains")


def _read_context_size(size: object, where: str) -> Literal["low", "medium", "high"] | None:
    match size:
        case None | "low" | "medium" | "high":
            return size
    raise RequestInvalid(f"{where}.search_context_size: 'low', 'medium' or 'high'")


def _read_place(location: object, where: str) -> dict[str, str] | None:
    """Nested in `approximate` as in chat completions, or flat as elsewhere."""
    if location is None:
        return None
    inner = location.get("approximate", location) if isinstance(location, dict) else None
    if not isinstance(inner, dict):
        raise RequestInvalid(f"{where}.user_location: {{'type': 'approximate', 'approximate': {{'country': …}}}}")
    place = {name: inner[name] for name in _PLACES if inner.get(name) is not None}
    for name, value in place.items():
        if not isinstance(value, str):
            raise RequestInvalid(f"{where}.user_location.{name}: a text")
        check_name(value, f"{where}.user_location.{name}")
    return place or None


def _read_domains(domains: object, where: str) -> tuple[str, ...]:
    if domains is None:
        return ()
    if not isinstance(domains, list) or not all(isinstance(domain, str) and len(domain) <= 253 for domain in domains):
        raise RequestInvalid(f"{where}: domains are a list of names")
    check_count(domains, MAX_DOMAINS, f"{where}: domains")
    return tuple(domains)
