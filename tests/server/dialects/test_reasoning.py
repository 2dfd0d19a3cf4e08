"""How a model is asked to think, and how its thoughts come back: whole, in pieces, or joined by an SDK."""

from typing import Any

import msgspec
import pytest

from proxy.chat import Part, ProviderItem, Reasoning
from server.dialects.reasoning import (
    Thinking,
    WireDetail,
    WireItem,
    WireReasoning,
    WireThinking,
    read_thinking_options,
    read_thinking_part,
    read_thoughts,
)
from server.errors import RequestInvalid

CLAUDE, RESPONSES = "anthropic-claude-v1", "openai-responses-v1"


def ask(effort: str | None = None, reasoning: object = None, thinking: object = None) -> Thinking:
    return read_thinking_options(
        effort,
        msgspec.convert(reasoning, WireReasoning | None),
        msgspec.convert(thinking, WireThinking | None),
    )


def read(*details: dict[str, Any], items: list[dict[str, Any]] | None = None) -> list[Part]:
    return read_thoughts(
        msgspec.convert(list(details), list[WireDetail]), msgspec.convert(items or [], list[WireItem]), "here"
    )


# Options


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (None, Thinking()),
        ({}, Thinking()),
        ({"effort": "low"}, Thinking("low")),
        ({"max_tokens": 2000}, Thinking(tokens=2000)),
        ({"max_tokens": 0}, Thinking(tokens=0)),
        ({"effort": "high", "summary": "detailed"}, Thinking("high", summary="detailed")),
        ({"exclude": True}, Thinking(summary="none")),
        ({"exclude": False}, Thinking()),
        ({"enabled": True}, Thinking("medium")),
        ({"enabled": True, "effort": "low"}, Thinking("low")),
        ({"enabled": True, "max_tokens": 9}, Thinking(tokens=9)),
        ({"enabled": False}, Thinking(tokens=0)),
    ],
    ids=str,
)
def test_openrouters_shape_is_read(reasoning: object, expected: Thinking) -> None:
    assert ask(reasoning=reasoning) == expected


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, Thinking(tokens=2000)),
        ({"type": "disabled"}, Thinking(tokens=0)),
        ({"type": "adaptive"}, Thinking("high")),
        ({"type": "adaptive", "display": "summarized"}, Thinking("high", summary="auto")),
        ({"type": "enabled", "budget_tokens": 9, "display": "omitted"}, Thinking(None, 9, "none")),
    ],
    ids=str,
)
def test_anthropics_shape_is_read(thinking: object, expected: Thinking) -> None:
    assert ask(thinking=thinking) == expected


def test_the_more_particular_word_wins() -> None:
    assert ask("low", {"effort": "high", "summary": "auto"}) == Thinking("low", summary="auto")
    assert ask(None, {"max_tokens": 5}, {"type": "enabled", "budget_tokens": 9}) == Thinking(tokens=5)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"effort": "e" * 201}, "reasoning_effort"),
        ({"reasoning": {"effort": "e" * 201}}, "reasoning.effort"),
        ({"reasoning": {"max_tokens": -1}}, "reasoning.max_tokens"),
        ({"reasoning": {"max_tokens": 2**32}}, "reasoning.max_tokens"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"thinking": {"type": "on"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "adaptive", "display": "all"}}, "thinking.display"),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(asked: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestInvalid, match=name):
        ask(**asked)


# Thoughts


def test_each_kind_of_detail_is_read() -> None:
    assert read(
        {"type": "reasoning.text", "text": "a", "signature": "s", "id": None, "format": CLAUDE, "index": 0},
        {"type": "reasoning.summary", "summary": "b", "id": "rs_1", "format": RESPONSES, "index": 1},
        {"type": "reasoning.encrypted", "data": "e", "id": "rs_2", "format": RESPONSES, "index": 2},
    ) == [
        Reasoning("a", CLAUDE, signature="s"),
        Reasoning("b", RESPONSES, "rs_1", is_summary=True),
        Reasoning("", RESPONSES, "rs_2", encrypted="e"),
    ]


def test_pieces_of_one_block_are_joined() -> None:
    assert read(
        {"type": "reasoning.text", "text": "a", "index": 0},
        {"type": "reasoning.text", "text": "b", "index": 0},
        {"type": "reasoning.text", "signature": "s", "format": CLAUDE, "index": 0},
        {"type": "reasoning.summary", "summary": "c", "index": 1},
        {"type": "reasoning.summary", "summary": "d", "index": 1},
        {"type": "reasoning.encrypted", "data": "e", "id": "rs", "format": RESPONSES, "index": 1},
    ) == [
        Reasoning("ab", CLAUDE, signature="s"),
        Reasoning("cd", RESPONSES, "rs", encrypted="e", is_summary=True),
    ]


def test_what_an_sdk_joined_is_the_same_block() -> None:
    joined = {"type": "reasoning.encrypted", "summary": "cd", "data": "e", "id": "rs", "format": RESPONSES, "index": 0}
    assert read(joined) == [Reasoning("cd", RESPONSES, "rs", encrypted="e", is_summary=True)]


def test_a_summary_and_a_text_are_two_parts() -> None:
    joined = {"type": "reasoning.text", "summary": "c", "text": "t", "signature": "s", "index": 0}
    apart = [{"summary": "c", "index": 0}, {"text": "t", "signature": "s", "index": 0}]
    assert read(joined) == read(*apart) == [Reasoning("c", is_summary=True), Reasoning("t", signature="s")]


@pytest.mark.parametrize(
    "details",
    [
        [{"text": "a"}, {"text": "b"}],
        [{"text": "a", "index": 0}, {"text": "b", "index": 1}],
        [{"text": "a", "index": 0, "id": "x"}, {"text": "b", "index": 0, "id": "y"}],
        [{"text": "a", "index": 0}, {"summary": "b", "index": 0}],
        [{"text": "a", "index": 0, "signature": "s"}, {"text": "b", "index": 0}],
        [{"text": "a", "index": 0, "signature": "s"}, {"signature": "t", "index": 0}],
        [{"data": "a", "index": 0}, {"data": "b", "index": 0}],
    ],
    ids=str,
)
def test_what_cannot_be_one_block_is_two(details: list[dict[str, Any]]) -> None:
    assert len(read(*details)) == 2


def test_a_block_without_words_is_kept_for_its_seal() -> None:
    sealed = {"type": "reasoning.text", "text": "", "signature": "s", "format": CLAUDE, "index": 0}
    assert read(sealed) == [Reasoning("", CLAUDE, signature="s")]


def test_what_says_nothing_is_left_out() -> None:
    assert read({}, {"type": "reasoning.text", "text": "", "format": CLAUDE}) == []


def test_ten_thousand_pieces_are_joined_in_a_moment() -> None:
    assert read(*[{"text": "x", "index": 0}] * 10_000) == [Reasoning("x" * 10_000)]


# Items


def test_items_stand_where_they_came() -> None:
    first, second, last = ({"type": "web_search_call", "id": str(number)} for number in range(3))
    details = [{"text": "a", "index": 0}, {"text": "b", "index": 0}, {"text": "c", "index": 1}]
    items: list[dict[str, Any]] = [
        {"format": RESPONSES, "item": last},
        {"format": RESPONSES, "item": second, "after_reasoning": 1},
        {"format": RESPONSES, "item": first, "after_reasoning": 0},
    ]
    assert read(*details, items=items) == [
        ProviderItem(RESPONSES, first),
        Reasoning("ab"),
        ProviderItem(RESPONSES, second),
        Reasoning("c"),
        ProviderItem(RESPONSES, last),
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "system", "content": "Obey"},
        {"type": "item_reference", "id": "rs_of_somebody_else"},
        {"role": "system", "content": "Obey"},
        {"type": "function_call", "name": "f"},
        {"type": "function_call_output", "output": "x"},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "https://x"}},
        {"type": "custom_tool_call_output", "output": [{"type": "input_file", "file_url": "https://x"}]},
    ],
    ids=str,
)
def test_what_no_provider_ran_is_no_item(item: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match=r"here\.provider_items\[0\]"):
        read(items=[{"format": RESPONSES, "item": item}])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"type": "file_search_call", "results": [{"file_id": "f", "text": "x"}]},
        {"type": "computer_call_output", "output": {"type": "x", "image_url": "data:image/png;base64,"}},
        {"type": "file", "file": {"hash": "h", "content": [{"type": "text", "text": "x"}]}},
    ],
    ids=str,
)
def test_what_a_provider_ran_goes_back_untouched(item: dict[str, Any]) -> None:
    assert read(items=[{"format": "f", "item": item}]) == [ProviderItem("f", item)]


# Anthropic's parts


@pytest.mark.parametrize("part", [{}, {"type": "thinking"}, {"type": "thinking", "thinking": 1}, {"type": "text"}])
def test_another_part_is_no_thought(part: dict[str, Any]) -> None:
    assert read_thinking_part(part) is None


def test_a_thought_may_be_unsigned() -> None:
    assert read_thinking_part({"type": "thinking", "thinking": "Hm"}) == Reasoning("Hm", CLAUDE)
