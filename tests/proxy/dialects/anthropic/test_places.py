"""Thoughts between words and calls, on their way to a client and back."""

import json
from typing import Any

import msgspec
import pytest

from proxy.chat import Message, Part, Reasoning, Text, ToolCall
from proxy.collected import Collected
from proxy.dialects.anthropic.answer import open_reader
from proxy.dialects.anthropic.places import name_place, read_place
from proxy.dialects.anthropic.turns import FORMAT, build_turns
from proxy.events import ChatEvent, ReasoningSealed

HI = Message("user", (Text("Hi"),))


def thought(words: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": words, "signature": f"seal of {words}"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(id_: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "f", "input": {"a": 1}}


SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}


def brought_back(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What goes to Anthropic in the next turn if a client keeps thoughts, items, text and calls in a list each."""
    reader = open_reader("anthropic", "application/json")
    events: list[ChatEvent] = reader.feed(json.dumps({"content": content}).encode()) + reader.finish()
    collected = Collected()
    collected.add(events)
    parts: list[Part] = []
    blocks = collected.reasoning_blocks
    for number in range(len(blocks) + 1):
        parts += [item for item, after in collected.items if after == number]
        parts += [_as_part(block.text, block.seal) for block in blocks[number : number + 1]]
    message = Message("assistant", (*parts, Text(collected.text)), tool_calls=tuple(collected.tool_calls))
    turns = json.loads(msgspec.json.encode(build_turns((HI, message, HI))))
    found: list[dict[str, Any]] = turns[1]["content"]
    return found


def _as_part(words: str, seal: ReasoningSealed | None) -> Reasoning:
    assert seal is not None
    return Reasoning(words, seal.format, seal.id, seal.signature, seal.encrypted)


@pytest.mark.parametrize(
    "content",
    [
        [thought("one"), text("Hello.")],
        [thought("one"), thought("two"), text("Hello."), call("a")],
        [thought("one"), text("Let me see."), thought("two"), text("So. "), thought("three"), text("It is.")],
        [thought("one"), text("Grüße 🎉"), thought("two"), call("a")],
        [thought("one"), text("Both."), call("a"), thought("two"), call("b")],
        [thought("one"), text("Hm."), thought("two"), thought("three"), call("a")],
        [thought("one"), SEARCH, FOUND, text("First."), thought("two"), SEARCH, FOUND, thought("three"), text("End.")],
        [text("Hello."), {"type": "redacted_thinking", "data": "sealed"}, text("Bye.")],
    ],
)
def test_a_thought_comes_back_where_it_was(content: list[dict[str, Any]]) -> None:
    assert brought_back(content) == content


def test_white_space_that_a_thought_left_alone_is_no_block() -> None:
    content = [thought("one"), text("\n\n"), thought("two"), text("Hello.\n"), thought("three"), call("a")]
    assert brought_back(content) == [thought("one"), *content[2:]]


def test_a_text_that_was_shortened_loses_no_thought() -> None:
    parts = (Reasoning("b", FORMAT, "after_900_0", "s"), Reasoning("a", FORMAT, "after_2_0", "s"), Text("Hello."))
    [_, turn] = build_turns((HI, Message("assistant", parts, tool_calls=(ToolCall("a", "f", "{}"),))))
    assert [block["type"] for block in turn["content"]] == ["text", "thinking", "text", "thinking", "tool_use"]


def test_ids_of_others_are_no_places() -> None:
    assert name_place(0, 0) is None
    for id_ in (None, "", "rs_1", "after_1", "after_1_2_3", "after_99999999999_0"):
        assert read_place(Reasoning("x", FORMAT, id_)) is None
