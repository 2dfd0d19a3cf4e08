"""Reasoning is told once, in blocks, and what seals it comes with it."""

from typing import Any

import pytest

from proxy.chat import ProviderItem
from proxy.dialects.openai_chat.reasoning import ReasoningBlocks
from proxy.events import ChatEvent, ReasoningDelta, ReasoningSealed


def read(*deltas: tuple[str, list[dict[str, Any]] | None]) -> list[ChatEvent]:
    blocks, events = ReasoningBlocks(), list[ChatEvent]()
    for plain, details in deltas:
        blocks.read(plain, details, events)
    return events


def text(said: str, index: int | None = 0, **rest: Any) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": said, "index": index, **rest}


def summary(said: str, index: int = 0) -> dict[str, Any]:
    return {"type": "reasoning.summary", "summary": said, "format": "openai-responses-v1", "index": index}


def sealed(data: str, index: int | None = 0) -> dict[str, Any]:
    return {
        "type": "reasoning.encrypted",
        "data": data,
        "id": f"rs_{data}",
        "format": "openai-responses-v1",
        "index": index,
    }


def seal(index: int, data: str) -> ReasoningSealed:
    return ReasoningSealed(index, "openai-responses-v1@openrouter", f"rs_{data}", None, data)


def test_a_plain_text_is_one_block() -> None:
    assert read(("a", None), ("b", None)) == [ReasoningDelta("a"), ReasoningDelta("b")]


def test_the_same_text_in_both_members_is_told_once() -> None:
    assert read(("a", [text("a")]), ("b", [text("b")])) == [ReasoningDelta("a"), ReasoningDelta("b")]


def test_a_signature_at_the_end_seals_its_block() -> None:
    format_ = "anthropic-claude-v1"
    told = read(("a", [text("a", format=format_)]), ("", [text("", signature="S", format=format_)]))
    assert told == [ReasoningDelta("a"), ReasoningSealed(0, format_, signature="S")]


def test_a_text_with_its_signature_is_a_block() -> None:
    assert read(("a", [text("a", signature="S")])) == [ReasoningDelta("a"), ReasoningSealed(0, signature="S")]


def test_a_summary_and_its_sealed_form_are_one_block() -> None:
    told = read(("a", [summary("a")]), ("", [sealed("X")]))
    assert told == [ReasoningDelta("a", 0, is_summary=True), seal(0, "X")]


def test_an_index_of_their_own_makes_two_blocks() -> None:
    assert read(("a", [summary("a", 0), sealed("X", 1)])) == [ReasoningDelta("a", 0, is_summary=True), seal(1, "X")]


def test_what_comes_after_a_seal_is_the_next_block() -> None:
    told = read(("a", [text("a")]), ("", [sealed("X")]), ("b", [text("b")]), ("", [sealed("Y")]))
    assert told == [ReasoningDelta("a"), seal(0, "X"), ReasoningDelta("b", 1), seal(1, "Y")]


def test_blocks_are_numbered_as_they_come() -> None:
    told = read(("ab", [text("a", 4), text("b", 9)]), ("c", [text("c", 4)]))
    assert told == [ReasoningDelta("a", 0), ReasoningDelta("b", 1), ReasoningDelta("c", 0)]


def test_where_the_two_members_differ_the_plain_one_is_shown() -> None:
    assert read(("a\nb", [text("a"), text("b", 1)])) == [ReasoningDelta("a\nb")]


def test_a_plain_text_with_nothing_but_a_seal_is_told() -> None:
    assert read(("a", [sealed("X")])) == [ReasoningDelta("a"), seal(0, "X")]


def test_what_the_server_does_not_show_only_goes_back() -> None:
    detail = summary("kept")
    assert read(("", [sealed("X", 1), detail])) == [seal(0, "X"), ProviderItem("openai-responses-v1", detail)]


@pytest.mark.parametrize("details", [1, {}, "x", [1, None, {"type": 7}, {"index": "x"}], [{}]])
def test_details_of_another_shape_are_left_out(details: Any) -> None:
    assert read(("a", details)) == [ReasoningDelta("a")]


def test_open_blocks_are_bounded() -> None:
    blocks, events = ReasoningBlocks(), list[ChatEvent]()
    for index in range(5000):
        blocks.read("a", [text("a", index)], events)
    assert len(blocks._open) <= 1000  # what fills the memory cannot be seen from outside
