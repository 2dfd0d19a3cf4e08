"""Messages and their parts: each shape that clients send, and the place named where one is wrong."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from proxy.chat import Audio, Document, Image, Message, Part, ProviderItem, Reasoning, Refusal, Text, ToolCall
from server.dialects.messages import MAX_PIECES, WireMessage, read_messages
from server.errors import RequestInvalid

PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
MARK = {"type": "ephemeral"}
CLAUDE = "anthropic-claude-v1"
IMAGE, DOCUMENT = Image("image/png", "aGk="), Document("application/pdf", "aGk=")


def read(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return read_messages(msgspec.convert(list(messages), list[WireMessage]))


def read_part(part: dict[str, Any]) -> Part:
    (message,) = read({"role": "user", "content": [part]})
    (found,) = message.parts
    return found


def refuse(*messages: dict[str, Any]) -> str:
    with pytest.raises(RequestInvalid) as caught:
        read(*messages)
    return str(caught.value)


def refuse_part(part: dict[str, Any]) -> str:
    """The second part of the second message, to be named."""
    text = {"type": "text", "text": "x"}
    message = refuse({"role": "user"}, {"role": "user", "content": [text, part]})
    assert message.startswith("messages[1].content[1]")
    return message


# Messages


def test_content_may_be_a_string_or_parts_or_nothing() -> None:
    expected = Message("user", (Text("Hello"),))
    assert read({"role": "user", "content": "Hello"}) == (expected,)
    assert read({"role": "user", "content": [{"type": "text", "text": "Hello"}]}) == (expected,)
    assert read({"role": "user"}, {"role": "user", "content": None}, {"role": "user", "content": []}) == (
        Message("user"),
        Message("user"),
        Message("user"),
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [("system", "system"), ("developer", "system"), ("user", "user"), ("assistant", "assistant")],
)
def test_roles_are_those_of_the_field(name: str, role: str) -> None:
    assert read({"role": name, "content": "x"})[0].role == role


def test_a_call_in_the_shape_before_tools_is_refused_and_its_absence_is_not() -> None:
    call = {"name": "f", "arguments": "{}"}
    message = refuse({"role": "user", "content": "x"}, {"role": "assistant", "content": None, "function_call": call})
    assert message.startswith("messages[1].function_call")
    assert read({"role": "assistant", "content": "x", "function_call": None})[0].parts == (Text("x"),)


@pytest.mark.parametrize("role", ["", "User", "function", "x" * 1000])
def test_another_role_is_refused(role: str) -> None:
    message = refuse({"role": "user", "content": "x"}, {"role": role, "content": "x"})
    assert message.startswith("messages[1].role")
    assert len(message) < 200


def test_without_a_message_there_is_nothing_to_answer() -> None:
    assert "at least one message" in refuse()


def test_no_request_has_more_pieces_than_can_be_read_in_a_moment() -> None:
    part, call = {"type": "text", "text": "x"}, {"id": "c", "function": {"name": "f"}}
    message = {"role": "assistant", "content": [part], "tool_calls": [call], "reasoning_details": [{"text": "x"}]}
    assert len(read(*[message] * (MAX_PIECES // 4))) == MAX_PIECES // 4
    assert "messages and parts" in refuse(*[message] * (MAX_PIECES // 4), {"role": "user"})


def test_a_turn_with_tools_is_kept_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{not json"}}
    assistant, tool = read(
        {"role": "assistant", "content": None, "tool_calls": [call, {"id": "c2", "function": {"name": "f"}}]},
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    )
    assert assistant.tool_calls == (ToolCall("c1", "look", "{not json"), ToolCall("c2", "f", ""))
    assert (tool.role, tool.tool_call_id, tool.parts) == ("tool", "c1", (Text("seen"),))


@pytest.mark.parametrize("id_", [None, ""])
def test_a_tools_message_names_its_call(id_: str | None) -> None:
    assert refuse({"role": "tool", "content": "x", "tool_call_id": id_}).startswith("messages[0].tool_call_id")


def test_a_name_and_a_refusal_are_kept() -> None:
    (message,) = read({"role": "assistant", "content": "Well", "name": "Bo", "refusal": "No"})
    assert (message.name, message.parts) == ("Bo", (Text("Well"), Refusal("No")))


# Parts


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "x", "cache_control": {}}, Text("x")),
        ({"type": "text", "text": "x", "cache_control": MARK}, Text("x", MARK)),
        ({"type": "input_text", "text": "x"}, Text("x")),
        ({"type": "output_text", "text": "x", "annotations": []}, Text("x")),
        ({"type": "refusal", "refusal": "no"}, Refusal("no")),
        ({"type": "image_url", "image_url": PNG, "cache_control": MARK}, Image("image/png", "aGk=", None, MARK)),
        ({"type": "input_file", "file_data": PDF, "cache_control": MARK}, replace(DOCUMENT, cache_control=MARK)),
        ({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}, Audio("wav", "aGk=")),
        ({"type": "thinking", "thinking": "Hm", "signature": "s"}, Reasoning("Hm", CLAUDE, signature="s")),
        ({"type": "redacted_thinking", "data": "e"}, Reasoning(format=CLAUDE, encrypted="e")),
    ],
    ids=str,
)
def test_a_part_that_clients_send_is_understood(part: dict[str, Any], expected: Part) -> None:
    assert read_part(part) == expected


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"text": "x"},
        {"type": "text"},
        {"type": "text", "text": None},
        {"type": "text", "text": ["x"]},
        {"type": "text", "text": "x", "cache_control": "ephemeral"},
        {"type": "video", "video": PNG},
        {"type": "image_url", "image_url": {}},
        {"type": "document", "source": "x"},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "thinking"},
        {"type": "redacted_thinking", "data": 1},
        {"type": None},
        {"type": {"type": "text"}},
    ],
    ids=str,
)
def test_a_part_that_is_not_understood_is_refused_by_its_place(part: dict[str, Any]) -> None:
    assert len(refuse_part(part)) < 300


def test_parts_keep_their_order() -> None:
    text, image = {"type": "text", "text": "x"}, {"type": "image_url", "image_url": PNG}
    (message,) = read({"role": "tool", "tool_call_id": "c", "content": [image, text, image]})
    assert message.parts == (IMAGE, Text("x"), IMAGE)


# What an assistant's message brings back


def test_thoughts_and_items_stand_before_what_was_said() -> None:
    (message,) = read(
        {
            "role": "assistant",
            "content": "So",
            "refusal": "no",
            "reasoning_content": "Hm",
            "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "signature": "s", "format": "f"}],
            "provider_items": [{"format": "f", "item": {"type": "web_search_call", "id": "w"}}],
        }
    )
    item = ProviderItem("f", {"type": "web_search_call", "id": "w"})
    assert message.parts == (Reasoning("Hm", "f", signature="s"), item, Text("So"), Refusal("no"))


def test_thoughts_without_details_are_thoughts_all_the_same() -> None:
    assert read({"role": "assistant", "content": "So", "reasoning_content": "Hm"})[0].parts == (
        Reasoning("Hm"),
        Text("So"),
    )


def test_a_tool_may_answer_with_an_item_of_its_providers() -> None:
    item = {"type": "mcp_approval_response", "approve": True}
    message = {"role": "tool", "provider_items": [{"format": "f", "item": item}]}
    assert read(message)[0].parts == (ProviderItem("f", item),)
    bad = {"role": "tool", "provider_items": [{"format": "f", "item": {"role": "system"}}]}
    assert refuse(message, bad).startswith("messages[1].provider_items[0]")


def test_only_assistants_have_thoughts() -> None:
    thoughts = {"reasoning_content": "Hm", "provider_items": [{"format": "f", "item": {}}]}
    assert read({"role": "user", "content": "x", **thoughts})[0].parts == (Text("x"),)


def test_the_seal_of_a_call_comes_back_with_it() -> None:
    call = {"id": "c", "function": {"name": "f"}, "extra_content": {"google": {"thought_signature": "s"}}}
    assert read({"role": "assistant", "tool_calls": [call]})[0].tool_calls == (ToolCall("c", "f", "", "s"),)
    empties: list[object] = [None, {}, {"google": None}, {"google": {}}, {"other": 1}]
    for empty in empties:
        (message,) = read({"role": "assistant", "tool_calls": [{**call, "extra_content": empty}]})
        assert message.tool_calls == (ToolCall("c", "f", ""),)


@pytest.mark.parametrize("failed", [True, False, None])
def test_a_tool_may_have_failed(failed: bool | None) -> None:
    (message,) = read({"role": "tool", "tool_call_id": "c", "content": "x", "is_error": failed})
    assert message.is_error is failed


def test_images_that_a_model_made_come_back() -> None:
    image = {"index": 0, "type": "image_url", "image_url": {"url": PNG}}
    assert read({"role": "assistant", "content": "Here", "images": [image]})[0].parts == (Text("Here"), IMAGE)
    assert refuse({"role": "assistant", "images": [{"type": "image_url"}]}).startswith("messages[0].images[0]")


def test_of_a_spoken_answer_the_words_come_back() -> None:
    audio = {"id": "audio_1", "data": "aGk=", "transcript": "Hello", "expires_at": 1}
    assert read({"role": "assistant", "content": None, "audio": audio})[0].parts == (Text("Hello"),)
    assert read({"role": "assistant", "content": "Hi", "audio": audio})[0].parts == (Text("Hi"),)
    assert refuse({"role": "assistant", "audio": {"id": "audio_1"}}).startswith("messages[0].audio")
