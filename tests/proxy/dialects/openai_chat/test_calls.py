"""Tool calls are numbered from 0 and have one id each, whatever a server sends."""

import re
from typing import Any

import msgspec
import pytest

from proxy.chat import ToolCall
from proxy.collected import Collected
from proxy.dialects.openai_chat.calls import MAX_CALLS, CallNumbers, WireCall, make_call_id
from proxy.events import ToolCallDelta


def read(*pieces: dict[str, Any], is_whole: bool = False) -> list[ToolCallDelta]:
    calls = CallNumbers(iter([f"made_{number}" for number in range(9)]).__next__)
    read_ = [calls.read(msgspec.convert(piece, WireCall, strict=False), is_whole=is_whole) for piece in pieces]
    return [call for call in read_ if call is not None]


def joined(*pieces: dict[str, Any], is_whole: bool = False) -> list[ToolCall]:
    collected = Collected()
    collected.add([*read(*pieces, is_whole=is_whole)])
    return collected.tool_calls


def piece(arguments: object = None, name: str | None = None, **rest: object) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **rest}


def test_openais_pieces_are_joined_by_their_index() -> None:
    assert read(
        piece("", "f", index=0, id="a"), piece("{", index=0), piece("", "g", index=1, id="b"), piece("}", index=0)
    ) == [
        ToolCallDelta(0, "a", "f", ""),
        ToolCallDelta(0, None, None, "{"),
        ToolCallDelta(1, "b", "g", ""),
        ToolCallDelta(0, None, None, "}"),
    ]


def test_an_index_that_does_not_count_from_0_is_counted_here() -> None:
    assert [call.index for call in read(piece("", "f", index=3, id="a"), piece("", "g", index=7, id="b"))] == [0, 1]


def test_id_and_name_are_told_once_though_every_piece_has_them() -> None:
    again = [piece("{", "f", index=0, id="a"), piece("}", "f", index=0, id="a")]
    assert read(*again) == [ToolCallDelta(0, "a", "f", "{"), ToolCallDelta(0, None, None, "}")]


def test_whole_calls_with_the_same_index_are_told_apart_by_their_ids() -> None:
    calls = [ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")]
    assert joined(piece("{}", "f", index=0, id="a"), piece("{}", "f", index=0, id="b")) == calls
    assert joined(piece("{}", "f", id="a"), piece("{}", "f", id="b")) == calls


def test_a_piece_with_a_new_id_and_no_name_goes_on_with_its_call() -> None:
    assert joined(piece("{", "f", index=0, id="a"), piece("}", index=0, id="other")) == [ToolCall("a", "f", "{}")]


def test_pieces_without_an_index_go_on_with_the_last_call_or_that_of_their_id() -> None:
    pieces = [piece("{", "f", id="a"), piece("}"), piece("[", "g", id="b"), piece("]"), piece("!", id="a")]
    assert joined(*pieces) == [ToolCall("a", "f", "{}!"), ToolCall("b", "g", "[]")]


@pytest.mark.parametrize("id_", [None, ""])
def test_a_call_without_an_id_gets_one(id_: str | None) -> None:
    calls = joined(piece("{}", "f", id=id_), piece("{}", "g", id=id_), is_whole=True)
    assert calls == [ToolCall("made_0", "f", "{}"), ToolCall("made_1", "g", "{}")]


def test_whole_calls_without_ids_and_with_the_same_index_are_two() -> None:
    calls = [ToolCall("made_0", "f", '{"a":1}'), ToolCall("made_1", "f", '{"a":2}')]
    pieces = [piece(call.arguments, "f", index=0, id="") for call in calls]
    assert joined(*pieces) == calls
    assert joined(*pieces, piece("", index=0)) == calls


def test_a_repeated_name_is_no_other_call_as_long_as_its_arguments_go_on() -> None:
    assert joined(piece('{"a":', "f", index=0), piece("{}", "f", index=0), piece("}", "f", index=0)) == [
        ToolCall("made_0", "f", '{"a":{}}')
    ]
    assert joined(piece("{}", "f", index=0), piece("", "f", index=0)) == [ToolCall("made_0", "f", "{}")]


def test_an_id_may_be_a_number() -> None:
    assert joined(piece("{}", "f", index=0, id=0), piece("{}", "g", index=1, id=1)) == [
        ToolCall("0", "f", "{}"),
        ToolCall("1", "g", "{}"),
    ]


def test_no_two_calls_have_the_same_id() -> None:
    calls = joined(piece("{}", "f", id="a"), piece("{}", "g", id="a"), is_whole=True)
    assert [call.id for call in calls] == ["a", "made_0"]
    assert [call.id for call in joined(piece("", "f", index=0, id="a"), piece("", "g", index=1, id="a"))] == [
        "a",
        "made_0",
    ]


def test_ids_made_here_look_like_ids() -> None:
    assert re.fullmatch(r"call_[0-9a-f]{24}", make_call_id())
    assert make_call_id() != make_call_id()


def test_in_a_whole_answer_every_entry_is_a_call() -> None:
    calls = joined(piece("{}", "f", index=0, id="a"), piece("{}", "f", index=0, id=None), is_whole=True)
    assert [call.id for call in calls] == ["a", "made_0"]


@pytest.mark.parametrize(
    ("arguments", "text"), [({"a": [1]}, '{"a":[1]}'), (None, ""), ("{not JSON", "{not JSON"), (7, "7")]
)
def test_arguments_become_text(arguments: object, text: str) -> None:
    assert joined(piece(arguments, "f", id="a")) == [ToolCall("a", "f", text)]


def test_a_custom_tools_input_is_its_arguments() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "f", "input": "any text"}}
    assert joined(custom, is_whole=True) == [ToolCall("a", "f", "any text")]


def test_googles_seal_goes_with_its_call() -> None:
    [call] = read(piece("{}", "f", id="a", extra_content={"google": {"thought_signature": "S"}}))
    assert call.signature == "S"


@pytest.mark.parametrize("extra", [None, 1, [], {"google": None}, {"google": {"thought_signature": 1}}])
def test_other_extra_content_is_no_seal(extra: object) -> None:
    [call] = read(piece("{}", "f", id="a", extra_content=extra))
    assert call.signature is None


def test_calls_are_bounded() -> None:
    calls = CallNumbers()
    told = [calls.read(WireCall(index=number), is_whole=False) for number in range(MAX_CALLS + 5)]
    assert told.count(None) == 5
    assert len(calls) == MAX_CALLS
