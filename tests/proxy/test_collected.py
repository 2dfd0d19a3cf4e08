"""What the events of a stream add up to."""

from proxy.chat import (
    ChatEvent,
    Completed,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from proxy.collected import Collected


def collect(*batches: list[ChatEvent]) -> Collected:
    collected = Collected()
    for batch in batches:
        collected.add(batch)
    return collected


def test_texts_are_joined_each_kind_by_itself() -> None:
    collected = collect(
        [TextDelta("a"), ReasoningDelta("x"), RefusalDelta("n")],
        [],
        [TextDelta("b"), ReasoningDelta("y"), RefusalDelta("o")],
    )
    assert (collected.text, collected.reasoning, collected.refusal) == ("ab", "xy", "no")


def test_nothing_is_an_empty_answer_that_did_not_end() -> None:
    collected = collect()
    assert (collected.text, collected.tool_calls, collected.ended, collected.finish_reason) == ("", [], None, "stop")


def test_calls_are_joined_by_their_index_and_come_in_its_order() -> None:
    collected = collect(
        [ToolCallDelta(1, "call_b", "g"), ToolCallDelta(0, "call_a", "f", "{")],
        [ToolCallDelta(1, arguments="[]"), ToolCallDelta(0, arguments="}")],
    )
    assert collected.tool_calls == [ToolCall("call_a", "f", "{}"), ToolCall("call_b", "g", "[]")]


def test_an_id_or_a_name_that_is_repeated_counts_once() -> None:
    collected = collect([ToolCallDelta(0, "call_a", "f", "1"), ToolCallDelta(0, "call_a", "f", "2")])
    assert collected.tool_calls == [ToolCall("call_a", "f", "12")]


def test_the_ending_is_kept() -> None:
    completed = Completed(Usage(output_tokens=1), "0.000001", provisional=False)
    assert collect([Finished("length"), Usage(), completed]).ended == completed
    assert collect([Finished("length")]).finish_reason == "length"
    failed = Failed("network_error", "cut", "x")
    assert collect([TextDelta("a"), failed]).ended == failed


def test_an_answer_does_not_show_in_a_repr() -> None:
    assert "secret" not in repr(collect([TextDelta("secret"), ToolCallDelta(0, "a", "f", "secret")]))
