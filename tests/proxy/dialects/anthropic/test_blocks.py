"""Blocks of an answer, as they are opened and closed; the streams they come in are tested with the reader."""

import msgspec
import pytest

from proxy.chat import ProviderItem
from proxy.dialects.anthropic.blocks import (
    ItemBlock,
    ThinkingBlock,
    ToolBlock,
    WireBlock,
    call_id,
    read_arguments,
    read_item,
)
from proxy.dialects.anthropic.turns import FORMAT
from proxy.events import ReasoningSealed, ToolCallDelta


@pytest.mark.parametrize(
    ("written", "read"),
    [(b'{ "a" : 1.0, "b": [1, 2] }', '{"a":1.0,"b":[1,2]}'), (b"{}", "{}"), (b"null", "{}"), (b"[1]", "{}")],
)
def test_arguments_stay_as_they_were_written_but_for_white_space(written: bytes, read: str) -> None:
    assert read_arguments(WireBlock(input=msgspec.Raw(written))) == read


def test_numbers_of_any_length_survive() -> None:
    long = b'{"n":123456789012345678901234567890}'
    assert read_arguments(WireBlock(input=msgspec.Raw(long))) == long.decode()
    assert read_item(msgspec.Raw(long)).close() == [ProviderItem(FORMAT, {"n": 123456789012345678901234567890})]


def test_thinking_without_a_seal_is_not_sealed() -> None:
    assert ThinkingBlock(0).close() == []
    assert ThinkingBlock(1, encrypted="x").close() == [ReasoningSealed(1, FORMAT, encrypted="x")]


def test_arguments_that_came_in_pieces_are_not_told_twice() -> None:
    assert ToolBlock(0, '{"a":1}').close() == [ToolCallDelta(0, arguments='{"a":1}')]
    assert ToolBlock(0, "{}", has_pieces=True).close() == []


def test_input_that_was_cut_is_left_out() -> None:
    assert ItemBlock({"input": {}}, ['{"a"', ":1}"]).close() == [ProviderItem(FORMAT, {"input": {"a": 1}})]
    assert ItemBlock({"input": {}}, ['{"a"']).close() == [ProviderItem(FORMAT, {"input": {}})]


def test_ids_are_kept_or_made() -> None:
    assert call_id(WireBlock(id="toolu_1")) == "toolu_1"
    assert call_id(WireBlock()) != call_id(WireBlock())
