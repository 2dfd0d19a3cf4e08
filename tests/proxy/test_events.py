"""The events of an answer: values that can be logged without telling what was said."""

from dataclasses import FrozenInstanceError

import pytest

from proxy.events import ChatEvent, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, Usage

SECRET = "a private matter"
SPOKEN = [
    TextDelta(SECRET),
    ReasoningDelta(SECRET),
    RefusalDelta(SECRET),
    ToolCallDelta(0, "call_1", "f", SECRET),
]


@pytest.mark.parametrize("event", SPOKEN, ids=lambda event: type(event).__name__)
def test_what_was_said_does_not_show_in_a_repr(event: ChatEvent) -> None:
    assert SECRET not in repr(event)


def test_values_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Usage().input_tokens = 1  # type: ignore[misc] # that is the point


def test_the_buckets_of_usage_add_up_without_overlap() -> None:
    usage = Usage(1, 20, 300, 4000, 50_000, 600_000, 7_000_000, 80_000_000, 900_000_000, searches=5)
    assert (usage.prompt_tokens, usage.completion_tokens) == (7_600_321, 980_054_000)
