"""What is read of the Responses API, whichever of its events tell it: servers that imitate it leave some out."""

import json
from typing import Any

import pytest

from proxy.chat import ProviderItem
from proxy.collected import Collected
from proxy.dialects.openai_responses.answer import open_reader
from proxy.events import (
    ChatEvent,
    Citation,
    Finished,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from tests.proxy.replay import feed

OURS = "openai-responses-v1"
STREAM, WHOLE = "text/event-stream", "application/json"


def read(*told: dict[str, Any], item_format: str = OURS) -> list[ChatEvent]:
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    return feed(open_reader("openai", item_format, STREAM), [body])


def read_whole(**response: Any) -> list[ChatEvent]:
    return feed(open_reader("openai", OURS, WHOLE), [json.dumps(response).encode()])


def text(delta: str, output: int | None = 0, content: int | None = 0, **more: Any) -> dict[str, Any]:
    place = {"output_index": output, "content_index": content}
    return {"type": "response.output_text.delta", "delta": delta, **place, **more}


def begun(item: dict[str, Any], output: int | None = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": output, "item": item}


def done(item: dict[str, Any], output: int | None = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": output, "item": item}


def completed(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"status": "completed", "output": list(output), **more}}


def message(*texts: str, id_: str = "msg_1") -> dict[str, Any]:
    return {"type": "message", "id": id_, "content": [{"type": "output_text", "text": text} for text in texts]}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "tide", "arguments": '{"a":1}'}
THOUGHT = {"type": "reasoning", "id": "rs_1", "encrypted_content": "seal", "summary": []}


def thinks(delta: str, part: int = 0, output: int = 0, kind: str = "reasoning_summary_text") -> dict[str, Any]:
    place = {"output_index": output, "summary_index": part, "content_index": part, "item_id": "rs_1"}
    return {"type": f"response.{kind}.delta", "delta": delta, **place}


@pytest.mark.parametrize(
    "told",
    [
        (text("A"), text("B"), {"type": "response.output_text.done", "text": "AB"}, done(message("AB"))),
        ({"type": "response.output_text.done", "text": "AB"}, done(message("AB"))),
        ({"type": "response.content_part.done", "part": message("AB")["content"][0]},),
        (done(message("AB")),),
        (),
        (text("A", None, None), text("B", None, None), done(message("AB"), None)),
        (text("AB", 3), done(message("AB", id_="another"), 3)),
        (text("AB", 3),),
    ],
)
@pytest.mark.parametrize("last", [completed(message("AB")), completed(THOUGHT | {"id": "rs_9"}, message("AB"))])
def test_a_text_comes_out_once_whichever_events_tell_it(told: tuple[dict[str, Any], ...], last: dict[str, Any]) -> None:
    events = read(*told, last)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "AB"
    assert events[-1] == Finished("stop")


def test_where_nothing_is_counted_items_are_told_apart_by_their_ids() -> None:
    one, two = message("One."), message("Two.", id_="msg_2")
    other = CALL | {"id": "fc_2", "call_id": "call_2", "arguments": '{"b":22}'}
    said = [begun(item, None) for item in (one, CALL, two, other)]
    deltas = [text(words, None, item_id=id_) for words, id_ in (("One.", "msg_1"), ("Two.", "msg_2"))]
    kind = "response.function_call_arguments.delta"
    deltas += [{"type": kind, "delta": item["arguments"], "item_id": item["id"]} for item in (other, CALL)]
    ends = [done(item, None) for item in (two, other, CALL, one)]
    for told in ([*said, *deltas, *ends], [*deltas, *ends], [*said, *deltas]):
        events = read(*told, completed(one, CALL, two, other))
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["One.", "Two."]
        collected = Collected()
        collected.add(events)
        arguments = {call.id: call.arguments for call in collected.tool_calls}
        assert arguments == {"call_1": '{"a":1}', "call_2": '{"b":22}'}


def test_messages_at_the_same_place_are_told_apart_by_their_ids() -> None:
    one, two = message("One."), message("Two.", id_="msg_2")
    events = read(begun(one), text("One."), done(one), begun(two), text("Two."), done(two), completed(one, two))
    assert events == [TextDelta("One."), TextDelta("Two."), Finished("stop")]


def test_a_part_that_was_never_streamed_comes_out_beside_one_that_was() -> None:
    events = read(text("One."), done(message("One.", "Two.")), completed())
    assert events == [TextDelta("One."), TextDelta("Two."), Finished("stop")]


@pytest.mark.parametrize("told", [(), (text("One."), done(message("One."))), (text("Two.", 2),)])
def test_every_message_of_an_answer_comes_out_once(told: tuple[dict[str, Any], ...]) -> None:
    output = [message("One."), THOUGHT, message("Two.", id_="msg_2"), CALL, CALL | {"call_id": "call_2"}]
    texts = [event.text for event in read(*told, completed(*output)) if isinstance(event, TextDelta)]
    assert sorted(texts) == ["One.", "Two."]
    calls = [event.id for event in read(completed(*output)) if isinstance(event, ToolCallDelta) and event.id]
    assert calls == ["call_1", "call_2"]


def test_text_that_stands_only_outside_of_the_items_is_told() -> None:
    assert read_whole(output=[], output_text="Hi") == [TextDelta("Hi"), Finished("stop")]
    assert read_whole(output=[message("Hi")], output_text="Hi") == [TextDelta("Hi"), Finished("stop")]


@pytest.mark.parametrize(
    "told",
    [
        (
            begun(CALL | {"arguments": ""}),
            {"type": "response.function_call_arguments.delta", "delta": '{"a"', "output_index": 0},
            {"type": "response.function_call_arguments.delta", "delta": ":1}", "output_index": 0},
            {"type": "response.function_call_arguments.done", "arguments": '{"a":1}', "output_index": 0},
            done(CALL),
        ),
        (begun(CALL), {"type": "response.function_call_arguments.done", "arguments": '{"a":1}', "output_index": 0}),
        (
            begun(CALL),
            {"type": "response.function_call_arguments.delta", "delta": '{"a"', "output_index": 0},
            done(CALL),
        ),
        ({"type": "response.function_call_arguments.delta", "delta": '{"a":1}', "output_index": 0}, done(CALL)),
        (done(CALL),),
        (done(CALL, 5),),
        (),
    ],
)
def test_a_call_comes_out_once_whichever_events_tell_it(told: tuple[dict[str, Any], ...]) -> None:
    events = read(*told, completed(CALL))
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert "".join(call.arguments for call in calls) == '{"a":1}'
    assert [(call.id, call.name) for call in calls if call.id or call.name] == [("call_1", "tide")]
    assert {call.index for call in calls} == {0}
    assert events[-1] == Finished("tool_calls")


def test_calls_are_counted_from_zero_wherever_they_stand() -> None:
    other = CALL | {"id": "fc_2", "call_id": "call_2"}
    events = read(done(message("Hm.")), begun(CALL, 1), begun(other, 4), completed(message("Hm."), CALL, other))
    named = [(event.index, event.id) for event in events if isinstance(event, ToolCallDelta) and event.id]
    assert named == [(0, "call_1"), (1, "call_2")]


def test_no_two_calls_have_the_same_id() -> None:
    nameless = {"type": "function_call", "arguments": {"a": 1}}
    events = read_whole(output=[CALL, CALL, nameless, nameless])
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    ids = [call.id for call in calls if call.id]
    assert ids[0] == "call_1"
    assert len(set(ids)) == 4
    assert [json.loads(call.arguments) for call in calls if call.arguments] == [{"a": 1}] * 4


def test_each_part_of_a_summary_is_a_block_and_the_last_has_the_seal() -> None:
    events = read(begun(THOUGHT), thinks("One"), thinks(" and"), thinks("Two", 1), done(THOUGHT), completed(THOUGHT))
    assert events == [
        ReasoningDelta("One", 0, is_summary=True),
        ReasoningDelta(" and", 0, is_summary=True),
        ReasoningSealed(0, OURS, "rs_1"),
        ReasoningDelta("Two", 1, is_summary=True),
        ReasoningSealed(1, OURS, "rs_1", encrypted="seal"),
        Finished("stop"),
    ]


def test_a_summary_that_was_never_streamed_says_the_same() -> None:
    summary = [{"type": "summary_text", "text": "One and"}, {"type": "summary_text", "text": "Two"}]
    item = THOUGHT | {"summary": summary, "content": [{"type": "reasoning_text", "text": "Raw"}]}
    expected = [
        ReasoningDelta("One and", 0, is_summary=True),
        ReasoningSealed(0, OURS, "rs_1"),
        ReasoningDelta("Two", 1, is_summary=True),
        ReasoningSealed(1, OURS, "rs_1"),
        ReasoningDelta("Raw", 2),
        ReasoningSealed(2, OURS, "rs_1", encrypted="seal"),
    ]
    assert read_whole(output=[item])[:-1] == expected
    assert read(done(item), completed(item))[:-1] == expected


def test_reasoning_without_words_is_sealed_all_the_same() -> None:
    assert read(begun(THOUGHT), done(THOUGHT), completed(THOUGHT))[0] == ReasoningSealed(
        0, OURS, "rs_1", encrypted="seal"
    )
    assert read_whole(output=[THOUGHT | {"encrypted_content": None}]) == [Finished("stop")]


def test_reasoning_has_the_format_of_whoever_made_it() -> None:
    sealed = read(done(THOUGHT), completed(), item_format="xai-responses-v1")[0]
    assert sealed == ReasoningSealed(0, "xai-responses-v1", "rs_1", encrypted="seal")
    assert read_whole(output=[THOUGHT | {"format": "x-v1"}])[0] == ReasoningSealed(0, "x-v1", "rs_1", encrypted="seal")


@pytest.mark.parametrize("kind", ["reasoning_summary_text", "reasoning_text"])
def test_thoughts_that_are_told_by_their_end_alone_come_out_once(kind: str) -> None:
    end = thinks("") | {"type": f"response.{kind}.done", "text": "Hm."}
    for told in ((end,), (thinks("Hm.", kind=kind), end), (thinks("Hm.", kind=kind),)):
        thoughts = [event for event in read(*told, completed(THOUGHT)) if isinstance(event, ReasoningDelta)]
        assert thoughts == [ReasoningDelta("Hm.", 0, is_summary=kind == "reasoning_summary_text")]


def test_a_refusal_comes_out_once() -> None:
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    delta = {"type": "response.refusal.delta", "delta": "No."}
    end = {"type": "response.refusal.done", "refusal": "No."}
    for told in ((delta, end, done(item)), (end, done(item)), (done(item),), ()):
        assert read(*told, completed(item)) == [RefusalDelta("No."), Finished("stop")]


def test_logprobs_follow_the_text_that_they_speak_of() -> None:
    entry = {"token": "A", "logprob": -0.5, "top_logprobs": []}
    assert read(text("A", logprobs=[entry]), completed())[:2] == [TextDelta("A"), Logprobs((entry,))]
    part = {"type": "output_text", "text": "A", "logprobs": [entry]}
    assert read_whole(output=[{"type": "message", "content": [part]}])[1] == Logprobs((entry,))


def test_citations_count_characters_of_the_whole_text_and_come_once() -> None:
    cited = {"type": "url_citation", "url": "https://a.org", "title": "A", "start_index": 1, "end_index": 2}
    item = {"type": "message", "content": [{"type": "output_text", "text": "Two.", "annotations": [cited]}]}
    added = {"type": "response.output_text.annotation.added", "output_index": 1, "annotation": cited}
    first = (text("One."), done(message("One.")))
    citation = Citation("https://a.org", "A", 5, 6)
    for told in ((text("Two.", 1), added, done(item, 1)), (text("Two.", 1), done(item, 1)), (done(item, 1),), ()):
        events = read(*first, *told, completed(message("One."), item))
        assert [event for event in events if isinstance(event, Citation)] == [citation]


@pytest.mark.parametrize(
    ("annotation", "citation"),
    [
        ({"type": "file_citation", "filename": "a.txt", "index": 3}, Citation(None, "a.txt", 3, 3)),
        (
            {"type": "container_file_citation", "filename": "a.png", "start_index": 0, "end_index": 0},
            Citation(None, "a.png", 0, 0),
        ),
        ({"type": "file_path", "file_id": "f", "index": 1}, Citation(None, None, 1, 1)),
        ({"type": "url_citation", "url": "https://a.org"}, Citation("https://a.org")),
    ],
)
def test_every_kind_of_source_is_a_citation(annotation: dict[str, Any], citation: Citation) -> None:
    part = {"type": "output_text", "text": "Hi there", "annotations": [annotation, 5]}
    assert read_whole(output=[{"type": "message", "content": [part]}])[1:] == [citation, Finished("stop")]


def test_items_of_the_provider_pass_untouched_once() -> None:
    item = {"type": "mcp_call", "id": "mcp_1", "content": "odd", "deep": {"a": [1.5, None]}}
    for told in ((begun(item), done(item)), ()):
        assert read(*told, completed(item)) == [ProviderItem(OURS, item), Finished("stop")]


@pytest.mark.parametrize(
    ("output_format", "media_type"), [(None, "image/png"), ("webp", "image/webp"), ("svg", "image/svg+xml")]
)
def test_an_image_is_shown_beside_its_item(output_format: str | None, media_type: str) -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "result": "AAAA", "output_format": output_format}
    partial = {"type": "response.image_generation_call.partial_image", "partial_image_b64": "BBBB"}
    assert read(partial, done(item), completed(item))[1:] == [ImageDelta(media_type, "AAAA"), Finished("stop")]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"type": "computer_call", "call_id": "c"}], "tool_calls"),
        ([{"type": "custom_tool_call", "call_id": "c"}], "tool_calls"),
        ([{"type": "shell_call", "call_id": "c"}, {"type": "shell_call_output", "call_id": "c"}], "stop"),
        ([{"type": "tool_search_call", "call_id": None}], "stop"),
        ([{"type": "web_search_call", "id": "ws_1"}], "stop"),
    ],
)
def test_an_answer_that_waits_for_the_client_says_so(items: list[dict[str, Any]], reason: str) -> None:
    assert read_whole(output=items)[-1] == Finished(reason)  # type: ignore[arg-type] # the table's words
