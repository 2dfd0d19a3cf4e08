"""A conversation as the items of the Responses API."""

from typing import Any

import pytest

from proxy.chat import Document, Image, Message, ProviderItem, Reasoning, Refusal, Text, ToolCall
from proxy.dialects.openai_responses.input import InputRules, build_input
from proxy.errors import RequestNotSupported

OURS = "openai-responses-v1"
RULES = InputRules(OURS)
USER = Message("user", (Text("Hi"),))


def items(*messages: Message, rules: InputRules = RULES) -> list[dict[str, Any]]:
    return build_input(messages, rules)[1]


def said(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content)}


def test_leading_system_messages_are_the_instructions() -> None:
    system = Message("system", (Text("One."), Text("Two.")))
    instructions, built = build_input((system, Message("system", (Text("Three."),)), USER, system), RULES)
    assert instructions == "One.\n\nTwo.\n\nThree."
    assert [item["role"] for item in built] == ["user", "system"]


def test_a_request_of_nothing_but_system_messages_has_an_input_all_the_same() -> None:
    instructions, built = build_input((Message("system", (Text("One."),)),), RULES)
    assert instructions is None
    assert built == [said("system", {"type": "input_text", "text": "One."})]


def test_a_system_message_with_an_image_is_no_instruction() -> None:
    system = Message("system", (Text("One."), Image("image/png", "AAAA")))
    instructions, built = build_input((system, USER), RULES)
    assert instructions is None
    assert [item["role"] for item in built] == ["system", "user"]


def test_media_go_as_data_urls() -> None:
    parts = (Text("Look"), Image("image/png", "AAAA", "low"), Document("application/pdf", "BBBB", "a.pdf"))
    content = items(Message("user", parts))[0]["content"]
    assert content[1:] == [
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
    ]


def test_a_turn_of_the_assistant_keeps_its_order() -> None:
    parts = (
        Reasoning("Hm.", OURS, "rs_1", encrypted="seal"),
        ProviderItem(OURS, {"type": "web_search_call", "id": "ws_1"}),
        Text("So:"),
        Refusal("No."),
        ProviderItem(OURS, {"type": "compaction", "id": "cmp_1"}),
    )
    turn = Message("assistant", parts, tool_calls=(ToolCall("call_1", "tide", '{"a":'),))
    assert items(USER, turn)[1:] == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "seal",
        },
        {"type": "web_search_call", "id": "ws_1"},
        said("assistant", {"type": "output_text", "text": "So:"}, {"type": "refusal", "refusal": "No."}),
        {"type": "compaction", "id": "cmp_1"},
        {"type": "function_call", "call_id": "call_1", "name": "tide", "arguments": '{"a":'},
    ]


def test_blocks_of_one_reasoning_item_become_one_again() -> None:
    blocks = (
        Reasoning("One", OURS, "rs_1"),
        Reasoning("Two", OURS, "rs_1", encrypted="first"),
        Reasoning("", OURS, "rs_2", encrypted="second"),
        Reasoning("", OURS, None, encrypted="third"),
        Reasoning("", OURS, None, encrypted="fourth"),
    )
    *built, _ = items(USER, Message("assistant", (*blocks, Text("So"))))[1:]
    assert [(item.get("id"), item["encrypted_content"]) for item in built] == [
        ("rs_1", "first"),
        ("rs_2", "second"),
        (None, "third"),
        (None, "fourth"),
    ]
    assert [part["text"] for part in built[0]["summary"]] == ["One", "Two"]


def test_reasoning_that_nothing_follows_stays_here() -> None:
    """OpenAI refuses it: what was thought of an answer that was broken off."""
    sealed = tuple(Reasoning("", OURS, f"rs_{number}", encrypted="seal") for number in range(2))
    turns = (USER, Message("assistant", (*sealed, Text(""))), USER)
    assert items(*turns) == [said("user", {"type": "input_text", "text": "Hi"})] * 2
    assert items(Message("assistant", sealed), Message("tool", (Text("42"),), tool_call_id="c"))[0]["call_id"] == "c"
    assert len(items(*turns, rules=InputRules(OURS, needs_sealed_reasoning=False))) == 4
    call = ToolCall("call_1", "tide", "{}")
    assert [item["type"] for item in items(Message("assistant", (*sealed, Text("")), tool_calls=(call,)))] == [
        "reasoning",
        "reasoning",
        "function_call",
    ]


def test_a_tools_message_that_answers_no_call_of_ours_is_left_out() -> None:
    item = ProviderItem("other-v1", {"type": "apply_patch_call_output", "call_id": "c"})
    assert items(USER, Message("tool", (item, Text("42")))) == [said("user", {"type": "input_text", "text": "Hi"})]


def test_what_another_provider_made_stays_here() -> None:
    parts = (Reasoning("x", "anthropic-claude-v1", signature="s"), ProviderItem("google-gemini-v1", {"type": "x"}))
    assert items(USER, Message("assistant", (*parts, Text("So")))) == [
        said("user", {"type": "input_text", "text": "Hi"}),
        said("assistant", {"type": "output_text", "text": "So"}),
    ]


def test_reasoning_without_its_seal_goes_back_only_where_it_may() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
    turn = Message("assistant", (Reasoning("Hm.", OURS, "rs_1", is_summary=True),))
    assert items(USER, turn)[1:] == []
    assert items(USER, turn, rules=InputRules(OURS, needs_sealed_reasoning=False))[1:] == [thought]


def test_an_image_from_an_assistant_is_refused() -> None:
    with pytest.raises(RequestNotSupported, match=r"^messages: .* Image"):
        items(USER, Message("assistant", (Image("image/png", "AAAA"),)))


def test_a_marked_instruction_stays_an_item_where_marks_are_taken() -> None:
    system = Message("system", (Text("Long.", {"type": "ephemeral"}),))
    assert build_input((system, USER), RULES)[0] == "Long."
    instructions, built = build_input((system, USER), InputRules(OURS, takes_cache_marks=True))
    assert instructions is None
    assert built[0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}


def test_a_tool_answers_with_text_or_with_media_or_with_an_item_of_its_own() -> None:
    text = Message("tool", (Text("4"), Text("2")), tool_call_id="call_1")
    media = Message("tool", (Text("4"), Image("image/png", "AAAA")), tool_call_id="call_2")
    own = Message("tool", (ProviderItem(OURS, {"type": "computer_call_output", "call_id": "call_3"}),))
    empty = Message("tool", (), tool_call_id="call_4")
    outputs = items(USER, text, media, own, empty)[1:]
    assert [item["type"] for item in outputs] == [
        "function_call_output",
        "function_call_output",
        "computer_call_output",
        "function_call_output",
    ]
    assert (outputs[0]["output"], outputs[3]["output"]) == ("42", "")
    assert [part["type"] for part in outputs[1]["output"]] == ["input_text", "input_image"]


def test_a_call_without_arguments_has_an_empty_object_for_them() -> None:
    [_, call] = items(USER, Message("assistant", tool_calls=(ToolCall("call_1", "tide", ""),)))
    assert call["arguments"] == "{}"
