"""Tools: functions in both of OpenAI's shapes, searches under every provider's name, and what only a provider knows."""

from typing import Any

import pytest

from proxy.chat import ProviderTool, Tool, ToolChoice, WebSearch
from server.dialects.tools import MAX_DOMAINS, MAX_TOOLS, Offered, WireSearchOptions, read_tool_choice, read_tools
from server.errors import RequestInvalid

FUNCTION = {"name": "look", "description": "Looks", "parameters": {"type": "object"}, "strict": True}
LOOK = Tool("look", "Looks", {"type": "object"}, True)
MARK = {"type": "ephemeral", "ttl": "1h"}


def refuse(*tools: dict[str, Any]) -> str:
    with pytest.raises(RequestInvalid) as caught:
        read_tools([{"type": "function", "name": "f"}, *tools])
    return str(caught.value)


def search(**members: Any) -> WebSearch | None:
    return read_tools([{"type": "web_search", **members}]).web_search


# Functions


def test_nothing_is_offered_where_nothing_is_said() -> None:
    assert read_tools(None) == read_tools([]) == Offered((), (), None)


def test_a_function_may_be_nested_or_flat() -> None:
    offered = read_tools([{"type": "function", "function": FUNCTION}, {"type": "function", **FUNCTION}])
    assert offered.functions == (LOOK, LOOK)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f"}, "cache_control": MARK},
        {"type": "function", "function": {"name": "f", "cache_control": MARK}},
        {"type": "function", "name": "f", "cache_control": MARK},
    ],
    ids=str,
)
def test_a_function_may_end_what_is_to_be_cached(tool: dict[str, Any]) -> None:
    assert read_tools([tool]).functions == (Tool("f", cache_control=MARK),)


@pytest.mark.parametrize(
    "tool",
    [
        {},
        {"function": FUNCTION},
        {"type": None},
        {"type": ""},
        {"type": 1},
        {"type": ["function"]},
        {"type": "t" * 201},
        {"type": "function"},
        {"type": "function", "function": "f"},
        {"type": "function", "function": {"name": 1}},
        {"type": "function", "name": "f", "parameters": []},
        {"type": "function", "name": "f", "cache_control": "x"},
    ],
    ids=str,
)
def test_what_is_no_tool_is_refused_by_its_place(tool: dict[str, Any]) -> None:
    assert refuse(tool).startswith("tools[1]")


def test_nobody_offers_so_many_tools() -> None:
    with pytest.raises(RequestInvalid, match="tools: more than"):
        read_tools([{"type": "function", "name": "f"}] * (MAX_TOOLS + 1))


def test_a_tool_that_only_a_provider_knows_is_passed_on_as_it_is() -> None:
    tool = {"type": "code_interpreter", "container": {"type": "auto"}}
    offered = read_tools([tool, {"type": "function", **FUNCTION}])
    assert offered.provider_tools == (ProviderTool("code_interpreter", tool),)
    assert offered.functions == (LOOK,)


# Searches


@pytest.mark.parametrize(
    "type_",
    ["web_search", "web_search_preview", "web_search_preview_2025_03_11", "web_search_20250305"],
)
def test_a_search_has_many_names(type_: str) -> None:
    assert read_tools([{"type": type_, "name": "web_search"}]).web_search == WebSearch()


def test_openais_members_are_read() -> None:
    place = {"type": "approximate", "country": "FR", "region": None, "city": "Lyon", "timezone": "Europe/Paris"}
    found = search(search_context_size="low", user_location=place, filters={"allowed_domains": ["a.org"]})
    assert found == WebSearch("low", {"country": "FR", "city": "Lyon", "timezone": "Europe/Paris"}, ("a.org",))


def test_anthropics_members_are_read() -> None:
    found = search(name="web_search", max_uses=3, blocked_domains=["b.org"], cache_control=MARK)
    assert found == WebSearch(blocked_domains=("b.org",), max_searches=3)
    assert search(allowed_domains=["a.org"]) == WebSearch(allowed_domains=("a.org",))


def test_xais_members_are_read() -> None:
    assert search(filters={"excluded_domains": ["b.org"]}) == WebSearch(blocked_domains=("b.org",))


def test_the_options_of_chat_completions_win() -> None:
    options = WireSearchOptions("high", {"type": "approximate", "approximate": {"country": "FR"}})
    offered = read_tools([{"type": "web_search", "search_context_size": "low"}], options)
    assert offered.web_search == WebSearch("high", {"country": "FR"})
    assert read_tools(None, WireSearchOptions()).web_search == WebSearch()


def test_a_place_that_says_nothing_is_none() -> None:
    assert search(user_location={"type": "approximate"}) == WebSearch()


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"search_context_size": "huge"}, ".search_context_size"),
        ({"search_context_size": {}}, ".search_context_size"),
        ({"user_location": "Lyon"}, ".user_location"),
        ({"user_location": {"approximate": "Lyon"}}, ".user_location"),
        ({"user_location": {"city": 1}}, ".user_location.city"),
        ({"user_location": {"city": "x" * 201}}, ".user_location.city"),
        ({"allowed_domains": "a.org"}, "domains"),
        ({"allowed_domains": [1]}, "domains"),
        ({"blocked_domains": ["a" * 254]}, "domains"),
        ({"allowed_domains": ["a"] * (MAX_DOMAINS + 1)}, "domains"),
        ({"filters": ["a.org"]}, ".filters"),
        ({"max_uses": 0}, ".max_uses"),
        ({"max_uses": 1.5}, ".max_uses"),
        ({"max_uses": True}, ".max_uses"),
        ({"external_web_access": False}, ".external_web_access"),
    ],
    ids=str,
)
def test_what_a_search_does_not_know_is_named(members: dict[str, Any], name: str) -> None:
    message = refuse({"type": "web_search", **members})
    assert message.startswith("tools[1]")
    assert name in message


# Choices


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", ("f",))),
        ({"type": "function", "name": "f"}, ToolChoice("required", ("f",))),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            ToolChoice("auto", ("f",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}],
            },
            ToolChoice("required", ("f", "g")),
        ),
    ],
    ids=str,
)
def test_a_choice_is_read_in_both_shapes(choice: str | dict[str, Any] | None, expected: ToolChoice | None) -> None:
    assert read_tool_choice(choice) == expected


@pytest.mark.parametrize(
    "choice",
    [
        "",
        "any",
        {},
        {"type": "function"},
        {"type": "function", "function": {"name": 1}},
        {"type": "custom", "custom": {"name": "c"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
        {"type": "allowed_tools", "mode": "auto", "tools": ["f"]},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]},
    ],
    ids=str,
)
def test_another_choice_is_refused(choice: str | dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match="tool_choice"):
        read_tool_choice(choice)
