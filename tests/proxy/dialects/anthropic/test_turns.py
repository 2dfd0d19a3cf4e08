"""Conversations in the shape that Anthropic wants."""

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from proxy.chat import Audio, Document, Image, Message, Part, ProviderItem, Reasoning, Refusal, Text, ToolCall
from proxy.dialects.anthropic.turns import FORMAT, SILENT_ERROR, build_system, build_turns
from proxy.errors import RequestNotSupported

MARK = {"type": "ephemeral", "ttl": "1h"}
HI = Message("user", (Text("Hi"),))


def turns(*messages: Message) -> Any:
    """As they go out: arguments are raw JSON until then."""
    return json.loads(msgspec.json.encode(build_turns(messages)))


def blocks(*parts: Part, role: str = "user") -> Any:
    return turns(Message(role, parts))[0]["content"]  # type: ignore[arg-type]  # the tests' roles are roles


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_every_system_message_goes_into_the_system_prompt() -> None:
    messages = (
        Message("system", (Text("One.", MARK), Text(" "))),
        HI,
        Message("system", (Text("Two."),)),
    )
    assert build_system(messages) == [{**text("One."), "cache_control": MARK}, text("Two.")]
    assert build_turns(messages) == [{"role": "user", "content": [text("Hi")]}]


def test_results_of_parallel_calls_stand_together_before_what_the_user_says() -> None:
    built = turns(
        HI,
        Message("assistant", (Text("Wait."),), tool_calls=(ToolCall("a", "f", '{"x":1.0}'), ToolCall("b|2", "g", ""))),
        Message("tool", (Text("one"),), tool_call_id="a", is_error=True),
        Message("tool", (), tool_call_id="b|2"),
        Message("user", (Text("And?"),)),
    )
    assert [turn["role"] for turn in built] == ["user", "assistant", "user"]
    assert built[1]["content"] == [
        text("Wait."),
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.0}},
        {"type": "tool_use", "id": "b_2", "name": "g", "input": {}},
    ]
    assert built[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": [text("one")], "is_error": True},
        {"type": "tool_result", "tool_use_id": "b_2", "content": []},
        text("And?"),
    ]


def test_a_tool_that_failed_without_a_word_is_given_one() -> None:
    silent = Message("tool", (Text(" "),), tool_call_id="a", is_error=True)
    assert turns(silent)[0]["content"][0]["content"] == [text(SILENT_ERROR)]


def test_the_mark_of_a_result_is_on_its_block() -> None:
    image = Image("image/png", "eA==", cache_control=MARK)
    [result] = turns(Message("tool", (Text("x", {"type": "ephemeral"}), image), tool_call_id="a"))[0]["content"]
    assert result["cache_control"] == MARK
    assert [list(inner) for inner in result["content"]] == [["type", "text"], ["type", "source"]]


NO_OBJECTS = ["{", '{"zone": "CE', "[1]", "null", '"x"', "[" * 5000, '{"a":' * 5000]


@pytest.mark.parametrize("arguments", NO_OBJECTS)
def test_arguments_that_are_no_object_are_shown_as_they_were(arguments: str) -> None:
    called = Message("assistant", (), tool_calls=(ToolCall("b", "g", arguments),))
    assert turns(HI, called)[1]["content"][0]["input"] == {"INVALID_JSON": arguments}


@pytest.mark.parametrize("arguments", ["\ud800", '{"x":"\ud800"}'])
def test_arguments_that_are_no_text_are_refused_by_their_place(arguments: str) -> None:
    calls = (ToolCall("a", "f", "{}"), ToolCall("b", "g", arguments))
    with pytest.raises(RequestNotSupported, match=r"messages\[1\].tool_calls\[1\].arguments"):
        build_turns((HI, Message("assistant", (), tool_calls=calls)))


def test_arguments_keep_their_numbers() -> None:
    message = Message("assistant", (), tool_calls=(ToolCall("a", "f", '{"n": 12345678901234567890123}'),))
    assert b'{"n": 12345678901234567890123}' in msgspec.json.encode(build_turns((message,)))


def test_what_a_claude_thought_comes_back_first_and_what_others_thought_does_not() -> None:
    parts = (
        Text("Answer."),
        Reasoning("thought", FORMAT, signature="sig"),
        Reasoning(format=FORMAT, encrypted="hidden"),
        Reasoning("unsealed", FORMAT),
        Reasoning("theirs", "google-gemini-v1", signature="sig"),
        Refusal("No."),
    )
    assert blocks(*parts, role="assistant") == [
        {"type": "thinking", "thinking": "thought", "signature": "sig"},
        {"type": "redacted_thinking", "data": "hidden"},
        text("Answer."),
        text("No."),
    ]


def test_thinking_between_searches_stays_where_it_was() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "https://a.test"}]}
    first, second = (Reasoning(words, FORMAT, signature="s") for words in ("one", "two"))
    items = (ProviderItem(FORMAT, search), ProviderItem(FORMAT, found), ProviderItem("openai-responses-v1", {"a": 1}))
    kinds = [block["type"] for block in blocks(first, *items, second, Text("x"), role="assistant")]
    assert kinds == ["thinking", "server_tool_use", "web_search_tool_result", "thinking", "text"]
    assert [block["type"] for block in blocks(*items, second, Text("x"), role="assistant")] == kinds[1:]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "document", "source": {"type": "text", "data": "x"}},
        {"type": "mcp_tool_use", "name": "x"},
        {"type": "mcp_tool_result"},
        {"type": "tool_result"},
        {"type": 5},
        {},
        {"type": "search_result", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]},
        {"type": "x_tool_result", "content": {"a": [{"b": {"source": {"type": "url", "url": "http://a"}}}]}},
        {"type": "x_tool_result", "content": [{"type": "container_upload"}]},
    ],
)
def test_blocks_that_name_files_or_hosts_are_refused(item: dict[str, object]) -> None:
    with pytest.raises(RequestNotSupported, match=r"messages\[0\]: an Anthropic block"):
        blocks(ProviderItem(FORMAT, item), role="assistant")


def test_media_are_sent_inline() -> None:
    plain = b64encode("Grüße".encode()).decode()
    assert blocks(
        Image("image/png", "eA==", detail="low", cache_control=MARK),
        Document("application/pdf", "eQ==", "Plan", MARK, citations=True),
        Document("text/plain", plain),
    ) == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "eA=="},
            "cache_control": MARK,
        },
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "eQ=="},
            "title": "Plan",
            "citations": {"enabled": True},
            "cache_control": MARK,
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
    ]


@pytest.mark.parametrize("data", ["%%%", "/w==", "a"])
def test_a_text_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(RequestNotSupported, match=r"messages\[0\]: a document of text"):
        blocks(Document("text/plain", data))


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("assistant", Image("image/png", "eA==")),
        ("assistant", Document("application/pdf", "eA==")),
        ("user", Reasoning("x")),
        ("user", Audio("wav", "eA==")),
    ],
)
def test_parts_in_the_wrong_place_are_refused(role: str, part: Part) -> None:
    with pytest.raises(RequestNotSupported, match=rf"messages\[0\]: Anthropic takes no {type(part).__name__}"):
        blocks(part, role=role)
    with pytest.raises(RequestNotSupported, match=r"messages\[0\]"):
        build_system((Message("system", (part,)),))


@pytest.mark.parametrize("messages", [(), (Message("system", (Text("x"),)),), (Message("user", (Text(" \n"),)),)])
def test_there_must_be_something_to_answer(messages: tuple[Message, ...]) -> None:
    with pytest.raises(RequestNotSupported, match="messages: "):
        build_turns(messages)


def test_results_come_before_what_the_user_said_while_the_tools_ran() -> None:
    results = [Message("tool", (Text(name),), tool_call_id=name) for name in ("a", "b")]
    said = Message("user", (Text("Hurry."),))
    calls = Message("assistant", tool_calls=(ToolCall("a", "f", ""), ToolCall("b", "f", "")))
    for order in ((*results, said), (results[0], said, results[1]), (said, *results)):
        assert [block["type"] for block in turns(HI, calls, *order)[2]["content"]] == ["tool_result"] * 2 + ["text"]


def test_an_answer_that_was_cut_off_while_it_was_thought_of_is_left_out() -> None:
    thoughts = (Reasoning("Hm", FORMAT, signature="s"), Reasoning(format=FORMAT, encrypted="e"))
    assert turns(HI, Message("assistant", (*thoughts, Text(""))), HI) == [
        {"role": "user", "content": [text("Hi"), text("Hi")]}
    ]


def test_neighbours_of_one_role_become_one_turn() -> None:
    said = [Message("assistant", parts) for parts in ((Text("A"),), (), (Text("B"),))]
    built = turns(HI, HI, *said)
    assert built == [
        {"role": "user", "content": [text("Hi"), text("Hi")]},
        {"role": "assistant", "content": [text("A"), text("B")]},
    ]
