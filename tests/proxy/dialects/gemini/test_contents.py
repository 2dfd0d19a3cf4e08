"""Conversations as Gemini wants them."""

import json
from typing import Any

import msgspec
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
from proxy.dialects.gemini.contents import FORMAT, NO_SIGNATURE, build_contents, build_instructions
from proxy.errors import RequestNotSupported

OLD, NEW = "gemini-2.5-flash", "gemini-3-flash-preview"
HI = Message("user", (Text("Hi"),))
CALL = ToolCall("c1", "now", '{"zone": "CET"}')
CALLED = Message("assistant", tool_calls=(CALL,))


def contents(*messages: Message, model: str = OLD) -> list[dict[str, Any]]:
    built: list[dict[str, Any]] = json.loads(msgspec.json.encode(build_contents(ChatRequest("x", messages), model)))
    return built


def parts(*given: Part) -> list[dict[str, Any]]:
    """Those of an assistant's turn."""
    found: list[dict[str, Any]] = contents(HI, Message("assistant", given))[1]["parts"]
    return found


def result(text: str, *, is_error: bool | None = None) -> object:
    answer = Message("tool", (Text(text),), tool_call_id="c1", is_error=is_error)
    return contents(HI, CALLED, answer)[2]["parts"][0]["functionResponse"]["response"]


def test_instructions_stand_apart_wherever_they_came() -> None:
    request = ChatRequest("x", (Message("system", (Text("Be brief."),)), HI, Message("system", (Text("Be kind."),))))
    assert build_instructions(request) == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert len(build_contents(request, OLD)) == 1


def test_roles_have_googles_names_and_the_same_may_follow_itself() -> None:
    turns = contents(HI, HI, Message("assistant", (Text("Hello"), Refusal("No."))))
    assert [turn["role"] for turn in turns] == ["user", "user", "model"]
    assert turns[2]["parts"] == [{"text": "Hello"}, {"text": "No."}]


def test_what_the_assistant_said_before_it_called_stands_with_the_call() -> None:
    turns = contents(HI, Message("assistant", (Text("Let me see."),)), CALLED)
    assert [turn["role"] for turn in turns] == ["user", "model"]
    assert [list(part) for part in turns[1]["parts"]] == [["text"], ["functionCall"]]


def test_instructions_without_words_are_none() -> None:
    assert build_instructions(ChatRequest("x", (Message("system", (Text(""),)), HI))) is None


def test_an_assistant_may_have_spoken_first() -> None:
    turns = contents(Message("assistant", (Text("How can I help?"),)), HI)
    assert turns[0] == {"role": "user", "parts": [{"text": "Hello."}]}
    assert [turn["role"] for turn in turns] == ["user", "model", "user"]


@pytest.mark.parametrize("messages", [(), (Message("system", (Text("Be brief."),)),)])
def test_instructions_alone_ask_nothing(messages: tuple[Message, ...]) -> None:
    with pytest.raises(RequestNotSupported, match="messages: at least one"):
        contents(*messages)


def test_results_of_parallel_calls_go_into_one_turn_and_name_their_tools() -> None:
    calls = Message("assistant", (Text("Let me see."),), tool_calls=(CALL, ToolCall("c2", "here", "")))
    answers = (Message("tool", (Text(name),), tool_call_id=id_) for id_, name in (("c2", "Ulm"), ("c1", "noon")))
    turns = contents(HI, calls, *answers, HI)
    assert [turn["role"] for turn in turns] == ["user", "model", "user", "user"]
    results = [part["functionResponse"] for part in turns[2]["parts"]]
    assert [(one["id"], one["name"]) for one in results] == [("c2", "here"), ("c1", "now")]
    assert [part["functionCall"]["args"] for part in turns[1]["parts"][1:]] == [{"zone": "CET"}, {}]


def test_a_result_of_an_unknown_call_is_refused_unless_it_has_a_name() -> None:
    answer = Message("tool", (Text("noon"),), tool_call_id="lost")
    with pytest.raises(RequestNotSupported, match=r"messages\[1\]\.tool_call_id"):
        contents(HI, answer)
    named = Message("tool", (Text("noon"),), "now", tool_call_id="lost")
    assert contents(HI, named)[1]["parts"][0]["functionResponse"]["name"] == "now"


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ('{"a": 1}', {"a": 1}),
        ("plain", {"output": "plain"}),
        ("", {"output": ""}),
        ("[1]", {"output": "[1]"}),
        ('{"a": ', {"output": '{"a": '}),
        ('{"a":' * 5000, {"output": '{"a":' * 5000}),
        ('{"a": {"$ref": "#/$defs/a"}}', {"output": '{"a": {"$ref": "#/$defs/a"}}'}),
    ],
)
def test_a_result_is_an_object(text: str, response: object) -> None:
    assert result(text) == response


def test_a_failed_tool_says_so() -> None:
    assert result("no network", is_error=True) == {"error": "no network"}
    assert result('{"code": 5}', is_error=True) == {"error": {"code": 5}}


def test_numbers_of_arguments_are_sent_to_the_letter() -> None:
    call = ToolCall("c1", "now", '{"n": 12345678901234567890123, "x": 1.10}')
    built = build_contents(ChatRequest("x", (HI, Message("assistant", tool_calls=(call,)))), OLD)
    assert b'{"n": 12345678901234567890123, "x": 1.10}' in msgspec.json.encode(built)


def test_arguments_that_are_no_object_are_shown_as_they_were() -> None:
    call = ToolCall("c1", "now", '{"zone": ')
    turn = contents(HI, Message("assistant", tool_calls=(call,)))[1]
    assert turn["parts"][0]["functionCall"]["args"] == {"arguments": '{"zone": '}


def test_a_call_takes_its_signature_back() -> None:
    signed = ToolCall("c1", "now", "{}", "c2VhbA==")
    turn = contents(HI, Message("assistant", tool_calls=(signed, ToolCall("c2", "now", "{}"))), model=NEW)[1]
    assert [part.get("thoughtSignature") for part in turn["parts"]] == ["c2VhbA==", None]


def test_calls_of_other_models_say_that_they_have_no_signature_where_one_is_wanted() -> None:
    message = Message("assistant", tool_calls=(CALL, ToolCall("c2", "now", "{}")))
    for model, signatures in ((NEW, [NO_SIGNATURE, None]), (OLD, [None, None])):
        turn = contents(HI, message, model=model)[1]
        assert [part.get("thoughtSignature") for part in turn["parts"]] == signatures


def test_thoughts_go_back_to_google_alone() -> None:
    thought = Reasoning("Hm.", FORMAT, signature="c2VhbA==")
    assert parts(thought, Text("Red")) == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "c2VhbA=="},
        {"text": "Red"},
    ]
    assert parts(Reasoning("Hm.", "anthropic-claude-v1", signature="x"), Text("Red")) == [{"text": "Red"}]


@pytest.mark.parametrize("order", [0, 1])
def test_the_signature_of_a_text_goes_back_onto_it(order: int) -> None:
    given: list[Part] = [Text("Red"), Reasoning(format=FORMAT, signature="c2VhbA==")]
    assert parts(*given[order:], *given[:order]) == [{"text": "Red", "thoughtSignature": "c2VhbA=="}]


def test_a_signature_without_a_text_stands_alone() -> None:
    assert parts(Reasoning(format=FORMAT, signature="c2VhbA==")) == [{"text": "", "thoughtSignature": "c2VhbA=="}]


def test_what_google_ran_goes_back_untouched_and_nothing_else_of_its_form() -> None:
    ran = {"toolCall": {"id": "s1"}, "thoughtSignature": "c2VhbA=="}
    others = (
        ProviderItem("openai-responses-v1", {"executableCode": {}}),
        ProviderItem(FORMAT, {"fileData": {"fileUri": "https://example.org/x"}}),
        ProviderItem(FORMAT, {"groundingMetadata": {"webSearchQueries": ["x"]}}),
        ProviderItem(FORMAT, {}),
    )
    assert parts(ProviderItem(FORMAT, ran), *others, Text("Red")) == [ran, {"text": "Red"}]


def test_a_turn_of_which_nothing_is_left_is_left_out() -> None:
    assert len(contents(HI, Message("assistant", (Reasoning("Hm.", "x"), Text(""))), HI)) == 2
    assert contents(Message("user"))[0]["parts"] == [{"text": ""}]


def test_media_are_inlined() -> None:
    message = Message("user", (Image("image/webp", "AA=="), Document("application/pdf", "BB=="), Audio("mp3", "CC==")))
    assert [part["inlineData"] for part in contents(message)[0]["parts"]] == [
        {"mimeType": "image/webp", "data": "AA=="},
        {"mimeType": "application/pdf", "data": "BB=="},
        {"mimeType": "audio/mp3", "data": "CC=="},
    ]


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (Audio("opus", "AA=="), r"messages\[0\]\.content\[0\].*opus"),
        (Document("application/pdf", "AA==", citations=True), r"messages\[0\]\.content\[0\]\.citations"),
    ],
)
def test_a_part_that_google_cannot_take_is_named(part: Part, complaint: str) -> None:
    with pytest.raises(RequestNotSupported, match=complaint):
        contents(Message("user", (part,)))


def test_an_image_in_instructions_is_named() -> None:
    request = ChatRequest("x", (Message("system", (Image("image/png", "AA=="),)), HI))
    with pytest.raises(RequestNotSupported, match=r"messages\[0\]\.content\[0\].*Image"):
        build_instructions(request)


def test_an_image_in_a_result_stands_in_it_or_beside_it() -> None:
    answer = Message("tool", (Text("A map"), Image("image/png", "AA==")), tool_call_id="c1")
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    new = contents(HI, CALLED, answer, model=NEW)[2]["parts"]
    assert new == [
        {"functionResponse": {"id": "c1", "name": "now", "response": {"output": "A map"}, "parts": [image]}}
    ]
    old = contents(HI, CALLED, answer)[2]["parts"]
    assert old == [{"functionResponse": {"id": "c1", "name": "now", "response": {"output": "A map"}}}, image]
