"""The vocabulary: values that can be logged without telling what was said."""

import pytest

from proxy.chat import ChatRequest, Document, Image, Message, Refusal, ResponseFormat, Text, Tool, ToolCall

SECRET = "a private matter"
SPOKEN = [
    Text(SECRET),
    Refusal(SECRET),
    Image("image/png", SECRET),
    Document("application/pdf", SECRET),
    ToolCall("call_1", "f", SECRET),
    Tool("f", SECRET, {"description": SECRET}),
    ResponseFormat("json_schema", "x", {"x": SECRET}, SECRET),
    ChatRequest("m", (Message("user", (Text(SECRET),)),)),
]


@pytest.mark.parametrize("value", SPOKEN, ids=lambda value: type(value).__name__)
def test_what_was_said_does_not_show_in_a_repr(value: object) -> None:
    assert SECRET not in repr(value)
