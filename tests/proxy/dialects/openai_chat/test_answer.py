"""The reader against answers of every shape that servers of this dialect are known to send."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ProviderItem
from proxy.dialects.openai_chat.answer import Reading, open_reader, read_refusal
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Citation,
    Failed,
    Finished,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

READING = Reading("openrouter-v1", make_call_id=lambda: "made")
EVENT_TYPES = get_args(ChatEvent)


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **rest: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}], **rest}


def stream(*chunks: object, end: bytes = b"data: [DONE]\n\n") -> list[ChatEvent]:
    body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + end
    reader = open_reader("x", "text/event-stream", READING)
    return reader.feed(body) + reader.finish()


def whole(message: object, reason: str | None = "stop", **rest: object) -> list[ChatEvent]:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": reason}], **rest}
    return read_whole(json.dumps(body).encode())


def read_whole(body: bytes) -> list[ChatEvent]:
    reader = open_reader("x", "application/json", READING)
    return reader.feed(body) + reader.finish()


@given(st.binary(max_size=200), st.sampled_from(["text/event-stream", "application/json", ""]))
def test_any_bytes_at_all_are_harmless(data: bytes, media_type: str) -> None:
    reader = open_reader("x", media_type)
    events = reader.feed(data) + reader.finish()
    assert all(isinstance(event, EVENT_TYPES) for event in events)
    assert len(events) > 0


WORDS = (  # noqa: SIM905 - a list of forty words would be forty lines
    "choices delta message content tool_calls function function_call index id usage error code type text thinking name "
    "arguments reasoning reasoning_details summary data annotations url_citation url images image_url audio logprobs "
    "citations x_groq extra_content google thought_signature finish_reason detail errors metadata raw headers"
).split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=15,
)
DELTAS = st.dictionaries(st.sampled_from(WORDS), JSON, max_size=5)


@given(JSON)
def test_any_json_at_all_is_harmless(value: object) -> None:
    read_whole(json.dumps(value).encode())
    stream(value)
    read_refusal("x", 500, {}, json.dumps(value).encode())


@given(DELTAS, DELTAS)
def test_any_members_of_a_choice_are_harmless(delta: dict[str, Any], rest: dict[str, Any]) -> None:
    events = stream({"choices": [{"delta": delta} | rest]} | rest, chunk(delta, "stop"))
    assert sum(isinstance(event, Finished | Failed) for event in events) >= 1
    assert not any(isinstance(event, Failed) for event in events[:-1])


def test_brackets_without_an_end_are_no_answer() -> None:
    deep = b'{"x":' * 100_000
    reader = open_reader("x", "text/event-stream")
    [failed] = reader.feed(b"data: " + deep + b"\n\n")
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"
    assert read_refusal("x", 502, {}, deep).code == "provider_gateway_error"


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b'{"usage":{"prompt_tokens":1}}', b"null", b"[]"])
def test_a_whole_answer_without_a_choice_is_none(body: bytes) -> None:
    failed = read_whole(body)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


def test_a_stream_without_a_reason_to_finish_but_with_its_mark_is_complete() -> None:
    assert stream(chunk({"content": "x"})) == [TextDelta("x"), Finished("stop")]


def test_calls_without_a_reason_to_finish_want_their_results() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    assert stream(chunk({"tool_calls": [call]}))[-1] == Finished("tool_calls")
    assert whole({"tool_calls": [call]}, None)[-1] == Finished("tool_calls")
    assert whole({"content": "x"}, None)[-1] == Finished("stop")


def test_a_forced_call_ends_with_the_servers_own_word() -> None:
    """OpenAI ends an answer with `stop` where `tool_choice` named the function."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    assert stream(chunk({"tool_calls": [call]}), chunk(reason="stop"))[-1] == Finished("stop")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", "error"),
        ("error", "error"),
        ("insufficient_system_resource", "error"),
        ("something new", "stop"),
    ],
)
def test_every_servers_reason_to_finish_is_one_of_ours(word: str, reason: str) -> None:
    assert stream(chunk(reason=word)) == [Finished(reason)]  # type: ignore[arg-type] # the words of the vocabulary


def test_an_empty_reason_is_none() -> None:
    assert stream(chunk({"content": "x"}, ""), chunk(reason="length")) == [TextDelta("x"), Finished("length")]


def test_events_without_data_say_nothing() -> None:
    reader = open_reader("x", "text/event-stream")
    assert reader.feed(b"data:\n\ndata: \n\n: a comment\n\ndata: [DONE] \n\n") == [Finished("stop")]


def test_only_the_first_choice_is_read() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}]}
    assert stream(chunk({"content": "one"}), other, chunk(reason="stop")) == [TextDelta("one"), Finished("stop")]


def test_content_may_be_a_list_of_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "text", "text": ""}, 7]},
        {"type": "thinking", "thinking": "ah"},
        {"type": "text", "text": "x"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "refusal", "refusal": "no"},
        {"type": "image_url", "image_url": "data:image/png;base64,QQ=="},
        "stray",
    ]
    assert stream(chunk({"content": parts}, "stop")) == [
        ReasoningDelta("hm"),
        ReasoningDelta("ah"),
        TextDelta("x"),
        RefusalDelta("no"),
        ImageDelta("image/png", "QQ=="),
        Finished("stop"),
    ]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_two_names(name: str) -> None:
    assert stream(chunk({name: "hm", "content": ""}, "stop")) == [ReasoningDelta("hm"), Finished("stop")]


def test_reasoning_under_both_names_is_told_once() -> None:
    delta = {"reasoning": "hm", "reasoning_content": "hm"}
    assert stream(chunk(delta, "stop")) == [ReasoningDelta("hm"), Finished("stop")]


def test_a_refusal_is_no_text() -> None:
    assert stream(chunk({"refusal": "no"}, "stop")) == [RefusalDelta("no"), Finished("stop")]


def test_a_function_call_of_old_is_a_tool_call_with_an_id_of_ours() -> None:
    pieces = [chunk({"function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": "{}"}})]
    assert stream(*pieces, chunk(reason="function_call")) == [
        ToolCallDelta(0, "made", "f", ""),
        ToolCallDelta(0, None, None, "{}"),
        Finished("tool_calls"),
    ]
    [call, _] = whole({"function_call": {"name": "f", "arguments": "{}"}}, "function_call")
    assert call == ToolCallDelta(0, "made", "f", "{}")


def test_more_calls_than_an_answer_can_have_are_no_answer() -> None:
    calls = [{"index": number, "id": str(number), "function": {"name": "f"}} for number in range(1001)]
    events = stream(chunk({"tool_calls": calls}))
    assert len(events) == 1001
    assert isinstance(events[-1], Failed)


def test_what_stands_beside_the_text_is_told() -> None:
    delta = {
        "content": "x",
        "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.test"}}],
        "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}],
        "audio": {"id": "audio_1", "transcript": "said"},
    }
    logprobs = {"content": [{"token": "x", "logprob": -0.5}]}
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": "stop"}
    assert stream({"choices": [choice]}) == [
        TextDelta("x"),
        Citation("https://a.test"),
        ImageDelta("image/png", "QQ=="),
        AudioDelta("", "said", "audio_1"),
        Logprobs(({"token": "x", "logprob": -0.5},)),
        Finished("stop"),
    ]


def test_a_listed_source_is_told_once_and_not_if_it_was_cited() -> None:
    cited = {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.test"}}]}
    listed: dict[str, Any] = {"citations": ["https://a.test", "https://b.test"]}
    events = stream(chunk({"content": "x"}, **listed), chunk(cited, **listed), chunk(reason="stop"), listed)
    assert [event.url for event in events if isinstance(event, Citation)] == ["https://a.test", "https://b.test"]
    assert whole({"content": "x"}, **listed)[1:3] == [Citation("https://a.test"), Citation("https://b.test")]


def test_found_pages_have_their_titles() -> None:
    events = whole({"content": "x"}, search_results=[{"url": "https://a.test", "title": "A"}, {"title": "B"}, 1])
    assert events[1:] == [Citation("https://a.test", "A"), Finished("stop")]


def test_googles_seal_closes_the_reasoning() -> None:
    sealed = {"reasoning_content": "hm", "extra_content": {"google": {"thought": True, "thought_signature": "S"}}}
    assert whole(sealed)[:2] == [ReasoningDelta("hm"), ReasoningSealed(0, "google-gemini-v1", signature="S")]


def test_what_a_file_held_is_kept_for_the_next_turn() -> None:
    read = {"type": "file", "file": {"hash": "h", "content": [{"type": "text", "text": "x"}]}}
    assert whole({"content": "x", "annotations": [read]})[1] == ProviderItem("openrouter-v1", read)


@pytest.mark.parametrize("place", ["usage", "x_groq", "choice"])
def test_usage_is_found_wherever_it_stands(place: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    places: dict[str, dict[str, Any]] = {"usage": {"usage": usage}, "x_groq": {"x_groq": {"usage": usage}}}
    last = chunk(reason="stop", **places.get(place, {}))
    if place == "choice":
        last["choices"][0]["usage"] = usage
    assert Usage(input_tokens=3, output_tokens=1) in stream(last)


def test_usage_that_cannot_be_read_costs_no_answer() -> None:
    assert stream(chunk({"content": "x"}, "stop", usage=["odd"])) == [TextDelta("x"), Finished("stop")]


def test_a_model_that_always_searches_is_counted_as_searching() -> None:
    reader = open_reader("x", "application/json", Reading(unreported_searches=1))
    reader.feed(b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    assert Usage(input_tokens=1, output_tokens=1, searches=1) in reader.finish()


@pytest.mark.parametrize(
    ("error", "code", "status", "message"),
    [
        ("it broke", "external_service_error", 0, "it broke"),
        ({"code": 503, "message": "busy"}, "provider_unavailable", 503, "busy"),
        ({"code": "429", "message": "slow"}, "rate_limit_exceeded", 429, "slow"),
        ({"status_code": 500, "message": "x"}, "provider_internal_error", 500, "x"),
        ({"code": "context_length_exceeded", "message": "long"}, "context_length_exceeded", 0, "long"),
        ({"code": 70000}, "external_service_error", 0, "the provider reported an error"),
        ({}, "external_service_error", 0, "the provider reported an error"),
    ],
)
def test_an_error_inside_a_stream_ends_it(error: object, code: str, status: int, message: str) -> None:
    [failed] = stream({"error": error}, chunk({"content": "x"}))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status, failed.message) == (code, status, message)


def test_an_error_inside_a_choice_ends_the_answer() -> None:
    error = {"code": 502, "message": "gone"}
    broken = {"index": 0, "delta": {"content": "x"}, "error": error, "finish_reason": "error"}
    text, failed = stream({"choices": [broken]})
    assert text == TextDelta("x")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message) == ("provider_gateway_error", "gone")


def test_an_answer_with_an_error_does_not_finish_too() -> None:
    text, usage, failed = stream(chunk({"content": "x"}, "error", usage={"prompt_tokens": 3}, error={"message": "m"}))
    assert (text, usage) == (TextDelta("x"), Usage(input_tokens=3))
    assert isinstance(failed, Failed)


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"message":"gone"}\n\n',
        b'data: {"object":"error","message":"gone","type":"x","code":3051}\n\n',
        b'data: {"detail":"gone"}\n\n',
        b'data: [{"error":{"message":"gone"}}]\n\n',
    ],
)
def test_an_error_may_come_as_a_whole_event(event: bytes) -> None:
    [failed] = open_reader("x", "text/event-stream").feed(event)
    assert isinstance(failed, Failed)
    assert failed.message == "gone"


def test_an_error_event_without_words_is_an_error() -> None:
    [failed] = open_reader("x", "text/event-stream").feed(b"event: error\ndata: {}\n\n")
    assert isinstance(failed, Failed)


def test_a_text_as_error_has_its_code_beside_it() -> None:
    [failed] = read_whole(b'{"code":"The service is busy","error":"come back"}')
    assert isinstance(failed, Failed)
    assert (failed.message, failed.provider_error_type) == ("come back", "The service is busy")


def test_chunks_that_say_nothing_are_skipped() -> None:
    filtered = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    assert stream(filtered, {"id": "x", "type": "ping"}, chunk(reason="stop")) == [Finished("stop")]
