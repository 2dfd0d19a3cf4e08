"""Tools as they are offered to Anthropic's models, and those that are not."""

from typing import Any

import pytest

from proxy.chat import ChatRequest, Message, ProviderTool, Text, Tool, ToolChoice, WebSearch
from proxy.dialects.anthropic.tools import build_tool_choice, build_tools, needed_betas
from proxy.errors import RequestNotSupported
from proxy.provider import Target

TARGET = Target("https://api.test", "key", "claude-sonnet-4-5")
MARK = {"type": "ephemeral"}


def request(**members: Any) -> ChatRequest:
    return ChatRequest("x", (Message("user", (Text("Hi"),)),), **members)


def test_functions_keep_their_schema_and_marks() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}}}
    tools = (Tool("f", "does f", schema, strict=False, cache_control=MARK), Tool("g"))
    assert build_tools(request(tools=tools), TARGET) == [
        {"name": "f", "description": "does f", "input_schema": schema, "strict": False, "cache_control": MARK},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_a_schema_says_that_arguments_are_an_object() -> None:
    tools = (Tool("f", parameters={}), Tool("g", parameters={"properties": {"a": {}}}))
    schemas = [tool["input_schema"] for tool in build_tools(request(tools=tools), TARGET)]
    assert schemas == [{"type": "object"}, {"type": "object", "properties": {"a": {}}}]


def test_a_search_is_bounded() -> None:
    search = WebSearch("medium", {"country": "DE"}, allowed_domains=("a.test",), max_searches=4)
    [tool] = build_tools(request(web_search=search), TARGET)
    assert tool == {
        "type": "web_search_20250305",
        "name": "web_search",
        "max_uses": 4,
        "allowed_domains": ("a.test",),
        "user_location": {"type": "approximate", "country": "DE"},
    }
    assert build_tools(request(web_search=WebSearch(blocked_domains=("b.test",))), TARGET)[0]["max_uses"] == 10


def test_the_catalogue_may_name_another_search() -> None:
    target = Target("https://api.test", "key", "x", {"web_search": "web_search_20260209"})
    assert build_tools(request(web_search=WebSearch()), target)[0]["type"] == "web_search_20260209"


@pytest.mark.parametrize(
    ("search", "field"),
    [
        (WebSearch("high"), "web_search.context_size"),
        (WebSearch(allowed_domains=("a",), blocked_domains=("b",)), "web_search: either"),
    ],
)
def test_what_a_search_cannot_do_is_refused(search: WebSearch, field: str) -> None:
    with pytest.raises(RequestNotSupported, match=field):
        build_tools(request(web_search=search), TARGET)


@pytest.mark.parametrize(
    ("type_", "betas"),
    [
        ("computer_20250124", ["computer-use-2025-01-24"]),
        ("text_editor_20250728", []),
        ("bash_20250124", []),
        ("memory_20250818", ["context-management-2025-06-27"]),
        ("tool_search_tool_regex_20251119", []),
        ("tool_search_tool_bm25", []),
        ("web_fetch_20250910", ["web-fetch-2025-09-10"]),
    ],
)
def test_tools_that_cost_tokens_only_are_passed_on(type_: str, betas: list[str]) -> None:
    tool = ProviderTool(type_, {"type": type_, "name": "n", "display_width_px": 800})
    asked = request(provider_tools=(tool, tool))
    assert build_tools(asked, TARGET)[0] == {"type": type_, "name": "n", "display_width_px": 800}
    assert needed_betas(asked) == betas


def test_a_function_may_have_members_that_only_anthropic_knows() -> None:
    definition = {"name": "f", "input_schema": {"type": "object"}, "defer_loading": True}
    [tool] = build_tools(request(provider_tools=(ProviderTool("custom", definition),)), TARGET)
    assert tool == {**definition, "type": "custom"}
    with pytest.raises(RequestNotSupported, match="input_schema"):
        build_tools(request(provider_tools=(ProviderTool("custom", {"custom": {}}),)), TARGET)


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        ("code_execution_20250825", "charged by time"),
        ("mcp", "which hosts"),
        ("mcp_toolset", "which hosts"),
        ("advisor_20260301", "another model"),
        ("web_search_20250305", "ask for it as web_search"),
        ("bash_code_execution_20250825", "does not know what it costs"),
        ("computer_x", "does not know what it costs"),
        ("custom ", "does not know what it costs"),
    ],
)
def test_other_tools_are_refused_with_the_reason(type_: str, reason: str) -> None:
    tools = (ProviderTool("bash_20250124", {"name": "bash"}), ProviderTool(type_, {"name": "x"}))
    with pytest.raises(RequestNotSupported, match=rf"tools: {type_} is not taken: .*{reason}"):
        build_tools(request(provider_tools=tools), TARGET)


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), True, {"type": "auto", "disable_parallel_tool_use": False}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("required", ("f",)), False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
    ],
)
def test_choices(choice: ToolChoice | None, parallel: bool | None, sent: object) -> None:
    asked = request(tool_choice=choice, parallel_tool_calls=parallel)
    assert build_tool_choice(asked, has_tools=True) == sent


def test_a_choice_without_tools_says_nothing_unless_it_requires_one() -> None:
    asked = request(tool_choice=ToolChoice("auto"), parallel_tool_calls=False)
    assert build_tool_choice(asked, has_tools=False) is None
    with pytest.raises(RequestNotSupported, match="tool_choice"):
        build_tool_choice(request(tool_choice=ToolChoice("required")), has_tools=False)


@pytest.mark.parametrize("choice", [ToolChoice("required", ("f", "g")), ToolChoice("auto", ("f",))])
def test_a_choice_among_some_is_refused(choice: ToolChoice) -> None:
    with pytest.raises(RequestNotSupported, match="tool_choice"):
        build_tool_choice(request(tool_choice=choice), has_tools=True)
