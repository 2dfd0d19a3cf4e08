"""The vocabulary: values that can be logged without telling what was said."""

from dataclasses import FrozenInstanceError

import pytest

from proxy.chat import (
    ChatRequest,
    Document,
    Image,
    Message,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    ResponseFormat,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)

SECRET = "a private matter"
SPOKEN = [
    Text(SECRET),
    Refusal(SECRET),
    Image("image/png", SECRET),
    Document("application/pdf", SECRET),
    ToolCall("call_1", "f", SECRET),
    Tool("f", SECRET, {"description": SECRET}),
    TextDelta(SECRET),
    ReasoningDelta(SECRET),
    RefusalDelta(SECRET),
    ToolCallDelta(0, "call_1", "f", SECRET),
    ResponseFormat("json_schema", "x", {"x": SECRET}, SECRET),
    ChatRequest("m", (Message("user", (Text(SECRET),)),)),
]


@pytest.mark.parametrize("value", SPOKEN, ids=lambda value: type(value).__name__)
def test_what_was_said_does_not_show_in_a_repr(value: object) -> None:
    assert SECRET not in repr(value)


def test_values_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Usage().input_tokens = 1  # type: ignore[misc] # that is the point


def test_the_buckets_of_usage_add_up_without_overlap() -> None:
    usage = Usage(1, 20, 300, 4000, 50_000, 600_000, 7_000_000, 80_000_000, 900_000_000, searches=5)
    assert (usage.prompt_tokens, usage.completion_tokens) == (7_600_321, 980_054_000)
