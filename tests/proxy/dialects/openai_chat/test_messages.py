"""Messages in OpenAI's chat dialect, for servers that take more or less of it."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import (
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderItem,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from proxy.dialects.openai_chat.messages import build_messages
from proxy.dialects.openai_chat.quirks import OPENAI, OPENAI_CHAT_FORMAT, ChatQuirks
from proxy.dialects.openai_responses.input import InputRules, build_input
from proxy.errors import RequestNotSupported

PLAIN = ChatQuirks("plain", "Plain", frozenset())
DETAILS = replace(PLAIN, replays="reasoning_details", item_format="openrouter-v1", cache_hints="cache_control")
CONTENT = replace(PLAIN, replays="reasoning_content")
HINT = {"type": "ephemeral"}
CALL = ToolCall("call_1", "f", "{not JSON", signature="S")
SENT_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{not JSON"}}


def build(*messages: Message, quirks: ChatQuirks = OPENAI) -> list[dict[str, Any]]:
    return build_messages(ChatRequest("x", messages), quirks)


def content(*parts: Part, quirks: ChatQuirks = OPENAI) -> Any:
    [message] = build(Message("user", parts), quirks=quirks)
    return message["content"]


def test_parts_of_every_kind_have_their_place() -> None:
    images = (Image("image/png", "QUJD", "low"), Image("image/gif", "QQ=="))
    assert content(Text("see"), *images, Document("application/pdf", "UA=="), Audio("wav", "UklG")) == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,QQ=="}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,UA=="}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]


def test_a_turn_with_calls_and_its_answers_is_told_again() -> None:
    turns = (
        Message("assistant", (), tool_calls=(CALL,)),
        Message("tool", (Text("42"),), tool_call_id="call_1"),
        Message("tool", (), tool_call_id="call_1"),
        Message("assistant", (Text("no"),), name="bot"),
    )
    assert build(*turns) == [
        {"role": "assistant", "content": None, "tool_calls": [SENT_CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "call_1"},
        {"role": "tool", "content": "", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "no", "name": "bot"},
    ]


def test_a_refusal_is_a_part_for_openai_and_text_for_others() -> None:
    refused = Message("assistant", (Refusal("no"),))
    assert build(refused)[0]["content"] == [{"type": "refusal", "refusal": "no"}]
    assert build(refused, quirks=PLAIN)[0]["content"] == "no"


def test_hints_for_the_cache_are_said_as_the_server_wants_them() -> None:
    part = Text("long", HINT)
    assert content(part) == "long"
    assert content(part, quirks=DETAILS) == [{"type": "text", "text": "long", "cache_control": HINT}]
    openai = replace(OPENAI, cache_hints="prompt_cache_breakpoint")
    assert content(part, quirks=openai) == [
        {"type": "text", "text": "long", "prompt_cache_breakpoint": {"mode": "explicit"}}
    ]
    for other in (Image("image/png", "QQ==", None, HINT), Document("application/pdf", "QQ==", "d", HINT)):
        assert content(other, quirks=DETAILS)[0]["cache_control"] == HINT
        assert "cache_control" not in content(other)[0]


def test_references_into_a_document_are_refused_by_its_place() -> None:
    with pytest.raises(RequestNotSupported, match=r"messages\[0\]\.content\[1\]\.citations"):
        content(Text("see"), Document("application/pdf", "UA==", citations=True))


THOUGHT = Reasoning("hm", "anthropic-claude-v1", signature="S")


def test_reasoning_goes_back_to_openrouter_as_it_came() -> None:
    summary = Reasoning("so", "openai-responses-v1@openrouter", "rs_1", encrypted="E", is_summary=True)
    kept = {"type": "reasoning.summary", "summary": "kept", "format": "openai-responses-v1"}
    turn = Message(
        "assistant", (THOUGHT, summary, ProviderItem("openai-responses-v1", kept), Reasoning("plain"), Text("x"))
    )
    [message] = build(turn, quirks=DETAILS)
    assert message["content"] == "x"
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "text": "hm", "signature": "S", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.summary", "summary": "so", "format": "openai-responses-v1", "index": 1},
        {"type": "reasoning.encrypted", "data": "E", "id": "rs_1", "format": "openai-responses-v1", "index": 1},
        kept,
        {"type": "reasoning.text", "text": "plain", "index": 3},
    ]


def test_what_was_sealed_for_another_account_is_not_sent_to_openrouter() -> None:
    """Nor the other way round: OpenAI's own dialect knows the format without its origin alone."""
    sealed_by_openai = Reasoning("so", "openai-responses-v1", "rs_1", encrypted="E", is_summary=True)
    [message] = build(Message("assistant", (sealed_by_openai, Text("x"))), quirks=DETAILS)
    assert [detail["type"] for detail in message["reasoning_details"]] == ["reasoning.summary"]
    sealed_there = replace(sealed_by_openai, format="openai-responses-v1@openrouter")
    _, items = build_input((Message("assistant", (sealed_there, Text("x"))),), InputRules("openai-responses-v1"))
    assert [item["type"] for item in items] == ["message"]


def test_only_plain_reasoning_goes_back_as_a_text() -> None:
    turn = Message("assistant", (Reasoning("a"), THOUGHT, Reasoning("b", "unknown"), Text("x")))
    assert build(turn, quirks=CONTENT) == [{"role": "assistant", "content": "x", "reasoning_content": "ab"}]


@pytest.mark.parametrize("quirks", [OPENAI, PLAIN])
def test_reasoning_is_not_sent_to_a_server_that_wants_none(quirks: ChatQuirks) -> None:
    turn = Message("assistant", (THOUGHT, Reasoning("plain"), Text("x")))
    assert build(turn, quirks=quirks) == [{"role": "assistant", "content": "x"}]


def test_a_turn_of_nothing_but_reasoning_does_not_become_an_empty_one() -> None:
    user, thought = Message("user", (Text("Hi"),)), Message("assistant", (THOUGHT,))
    assert build(user, thought) == [{"role": "user", "content": "Hi"}]
    [_, kept] = build(user, thought, quirks=DETAILS)
    assert kept["content"] == ""
    assert len(kept["reasoning_details"]) == 1


def test_a_request_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(RequestNotSupported, match="messages"):
        build(Message("assistant", (THOUGHT,)))
    with pytest.raises(RequestNotSupported, match="messages"):
        build()


def test_signatures_go_back_to_googles_servers_alone() -> None:
    google = replace(PLAIN, takes_signatures=True)
    sealed = Reasoning("", "google-gemini-v1", signature="T")
    turn = Message("assistant", (sealed, THOUGHT), tool_calls=(CALL,))
    [message] = build(turn, quirks=google)
    assert message["extra_content"] == {"google": {"thought_signature": "T"}}
    assert message["tool_calls"] == [SENT_CALL | {"extra_content": {"google": {"thought_signature": "S"}}}]
    assert "extra_content" not in build(turn)[0]
    assert "extra_content" not in build(Message("assistant", (Text("x"),)), quirks=google)[0]


def test_what_a_server_made_goes_back_to_it_and_to_no_other() -> None:
    file = {"type": "file", "file": {"hash": "h"}}
    turn = Message("assistant", (Text("x"), ProviderItem("openrouter-v1", file), ProviderItem("other", file)))
    assert build(turn, quirks=DETAILS)[0]["annotations"] == [file]
    assert build(turn) == [{"role": "assistant", "content": "x"}]


def test_a_spoken_turn_is_named_by_its_id() -> None:
    spoken = Message("assistant", (ProviderItem(OPENAI_CHAT_FORMAT, {"type": "audio", "id": "audio_1"}),))
    assert build(spoken) == [{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}]


def test_a_call_of_another_server_has_an_id_that_this_one_takes() -> None:
    long = ToolCall("chatcmpl-tool-592bcd4c265c48e3a93a244f28627ca3", "f", "{}")
    turns = (Message("assistant", tool_calls=(long, CALL)), Message("tool", (Text("42"),), tool_call_id=long.id))
    calls, answer = build(*turns)
    ids = [call["id"] for call in calls["tool_calls"]]
    assert len(ids[0]) <= 40
    assert ids == [answer["tool_call_id"], "call_1"]
    assert build(*turns, quirks=PLAIN)[1]["tool_call_id"] == long.id


def test_what_answers_a_call_that_only_another_server_knows_is_left_out() -> None:
    item = {"type": "apply_patch_call_output", "call_id": "c"}
    turns = (Message("user", (Text("Hi"),)), Message("tool", (ProviderItem("openai-responses-v1", item),)))
    assert build(*turns) == [{"role": "user", "content": "Hi"}]


def test_a_call_without_arguments_has_an_empty_object_for_them() -> None:
    [message] = build(Message("assistant", tool_calls=(ToolCall("call_1", "f", ""),)))
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"
