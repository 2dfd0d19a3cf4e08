"""The reader of Anthropic's answers: what its events mean, split and mutilated in every way."""

import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ProviderItem
from proxy.dialects.anthropic.answer import MAX_OPEN_BLOCKS, open_reader, read_refusal
from proxy.dialects.anthropic.turns import FORMAT
from proxy.events import (
    ChatEvent,
    Citation,
    Failed,
    Finished,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.provider import Reader
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges
from tests.proxy.replay import EVENT_TYPES, assert_harmless, feed, mutate, summarize

ANSWERS = [one for one in read_exchanges(MADE, "anthropic", "messages") if one.status == 200]
STREAM = "text/event-stream"


def reader(media_type: str = STREAM) -> Reader:
    return open_reader("anthropic", media_type)


def encode(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def read(*events: object) -> list[ChatEvent]:
    return feed(reader(), [encode(*events)])


def read_whole(**members: object) -> list[ChatEvent]:
    return feed(reader("application/json"), [json.dumps({"type": "message", **members}).encode()])


def start(index: int, **block: object) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, type_: str, **members: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": type_, **members}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str = "end_turn", **delta_members: object) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **delta_members}}


@pytest.mark.parametrize("exchange", ANSWERS, ids=lambda exchange: exchange.id)
def test_an_answer_may_be_split_in_two_anywhere(exchange: RecordedExchange) -> None:
    body = exchange.body
    whole = summarize(feed(reader(exchange.media_type), [body]))
    for position in range(0, len(body) + 1, 3):
        assert summarize(feed(reader(exchange.media_type), [body[:position], body[position:]])) == whole


@pytest.mark.parametrize("exchange", ANSWERS, ids=lambda exchange: exchange.id)
def test_a_mutilated_answer_is_harmless(exchange: RecordedExchange) -> None:
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for _ in range(100):
        assert_harmless(lambda media: open_reader("anthropic", media), exchange, mutate(exchange.body, dice), dice)


def test_thinking_is_told_block_by_block_and_sealed_at_its_end() -> None:
    events = read(
        start(0, type="thinking", thinking="A", signature=""),
        delta(0, "thinking_delta", thinking="b"),
        delta(0, "signature_delta", signature="sig"),
        stop(0),
        start(1, type="redacted_thinking", data="hidden"),
        stop(1),
        start(2, type="thinking", thinking="", signature="whole"),
        stop(2),
        end(),
    )
    assert events == [
        ReasoningDelta("A", 0),
        ReasoningDelta("b", 0),
        ReasoningSealed(0, FORMAT, signature="sig"),
        ReasoningSealed(1, FORMAT, encrypted="hidden"),
        ReasoningSealed(2, FORMAT, signature="whole"),
        Finished("stop"),
    ]


def test_calls_of_client_tools_are_counted_from_zero_whatever_stands_between_them() -> None:
    events = read(
        start(0, type="text", text="x"),
        stop(0),
        start(1, type="tool_use", id="a", name="f", input={}),
        delta(1, "input_json_delta", partial_json=""),
        delta(1, "input_json_delta", partial_json='{"x":'),
        delta(1, "input_json_delta", partial_json="1}"),
        stop(1),
        start(5, type="tool_use", id="b", name="g", input={}),
        stop(5),
        start(6, type="tool_use", id="c", name="h", input={"y": 2}),
        end("tool_use"),
    )
    assert events[1:] == [
        ToolCallDelta(0, "a", "f"),
        ToolCallDelta(0, arguments='{"x":'),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, "b", "g"),
        ToolCallDelta(1, arguments="{}"),
        ToolCallDelta(2, "c", "h"),
        ToolCallDelta(2, arguments='{"y":2}'),
        Finished("tool_calls"),
    ]


def test_a_citation_covers_the_text_of_its_block() -> None:
    web = {"type": "web_search_result_location", "url": "https://a.test", "title": "A", "cited_text": "q"}
    events = read(
        start(0, type="text", text="Été"),
        stop(0),
        start(1, type="text", text="", citations=[]),
        delta(1, "citations_delta", citation=web),
        delta(1, "text_delta", text="four"),
        stop(1),
        end(),
    )
    assert events[1:3] == [TextDelta("four"), Citation("https://a.test", "A", 3, 7, "q")]


def test_a_citation_of_a_document_says_which() -> None:
    cited = {"type": "char_location", "cited_text": "q", "document_index": 2, "document_title": "T"}
    cited |= {"start_char_index": 9, "end_char_index": 10}
    found = {"type": "search_result_location", "source": "https://b.test", "title": None, "cited_text": "r"}
    events = read_whole(content=[{"type": "text", "text": "abc", "citations": [cited, found]}], stop_reason="end_turn")
    assert events[1:3] == [
        Citation(None, "T", 0, 3, "q", 2),
        Citation("https://b.test", None, 0, 3, "r"),
    ]


def test_what_the_provider_ran_comes_whole_and_untouched() -> None:
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]}
    events = read(
        start(0, type="server_tool_use", id="s", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query":'),
        delta(0, "input_json_delta", partial_json='"x"}'),
        stop(0),
        start(1, **result),
        stop(1),
        start(2, type="server_tool_use", id="cut", name="web_search", input={}),
        delta(2, "input_json_delta", partial_json='{"que'),
        end("max_tokens"),
    )
    asked = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    cut = {"type": "server_tool_use", "id": "cut", "name": "web_search", "input": {}}
    items = [ProviderItem(FORMAT, item) for item in (asked, result, cut)]
    assert events == [*items, Finished("length")]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("compaction", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("tomorrow", "stop"),
    ],
)
def test_reasons_to_finish(said: str, meant: str) -> None:
    assert [event.reason for event in read(end(said)) if isinstance(event, Finished)] == [meant]
    assert read_whole(content=[], stop_reason=said) == read(end(said))


def test_a_refusal_is_explained_where_it_is() -> None:
    details = {"type": "refusal", "category": None, "explanation": "No."}
    assert read(end("refusal", stop_details=details)) == [RefusalDelta("No."), Finished("content_filter")]
    assert read(end("refusal", stop_details=None)) == [Finished("content_filter")]


def test_usage_is_known_from_the_start_and_complete_at_the_end() -> None:
    begin = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    usages = read(begin, end() | {"usage": {"output_tokens": 30, "cache_read_input_tokens": 4}})
    assert usages[:2] == [
        Usage(input_tokens=9, output_tokens=1),
        Usage(input_tokens=9, cache_read_tokens=4, output_tokens=30),
    ]


def test_numbers_may_be_written_as_strings() -> None:
    usage = {"input_tokens": "9", "output_tokens": 2.0}
    assert read({"type": "message_delta", "usage": usage})[0] == Usage(input_tokens=9, output_tokens=2)


def test_the_stream_is_over_at_message_stop_and_nothing_counts_after_it() -> None:
    stream = reader()
    assert stream.feed(encode(end())) == [Finished("stop")]
    assert not stream.is_done
    assert stream.feed(encode({"type": "message_stop"}, delta(0, "text_delta", text="late"))) == []
    assert stream.is_done


def test_a_stream_that_is_cut_is_a_failure() -> None:
    failed = read(start(0, type="text", text="x"), {"type": "ping"})[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "network_error"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("overloaded_error", "provider_unavailable"),
        ("api_error", "provider_internal_error"),
        ("rate_limit_error", "rate_limit_exceeded"),
        ("invalid_request_error", "bad_request"),
        ("timeout_error", "timeout_error"),
        ("new_error", "external_service_error"),
    ],
)
def test_an_error_inside_an_answer_ends_it(kind: str, code: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "It broke"}}
    [text, failed] = read(delta(0, "text_delta", text="x"), error, delta(0, "text_delta", text="y"))
    assert text == TextDelta("x")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message, failed.provider_error_type, failed.status) == (code, "It broke", kind, 0)
    assert feed(reader(""), [json.dumps(error).encode()]) == [failed]


@pytest.mark.parametrize("error", ["it broke", {}, None, {"type": None, "message": None}])
def test_an_error_without_its_usual_shape_is_one_all_the_same(error: object) -> None:
    [failed] = read({"type": "error", "error": error})
    assert error is None or read({"error": error}) == [failed]
    assert isinstance(failed, Failed)
    assert failed.message in {"it broke", "the provider reported an error"}


def test_what_was_invented_later_is_passed_over() -> None:
    events = read(
        {"type": "weather_report", "index": "north", "delta": 7},
        delta(0, "aroma_delta", text={"rose": 1}),
        {"type": "ping"},
        start(0, type="hologram", text=5, depth=[3]),
        delta(0, "aroma_delta", partial_json={}),
        stop(0),
        end(),
    )
    assert events == [ProviderItem(FORMAT, {"type": "hologram", "text": 5, "depth": [3]}), Finished("stop")]
    assert feed(reader(), [encode(end()) + b"data: [DONE]\n\n"]) == [Finished("stop")]


@pytest.mark.parametrize(
    "event",
    [
        delta(0, "text_delta", text={"not": "a text"}),
        start(0, type="text", text=[]),
        {"type": "content_block_start", "index": 0},
        {"type": "message_delta", "delta": "done"},
        [],
    ],
)
def test_what_cannot_be_read_is_a_failure(event: object) -> None:
    [failed] = read(event)
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


def test_a_delta_without_its_block_says_nothing() -> None:
    lost = [delta(3, "thinking_delta", thinking="x"), delta(4, "input_json_delta", partial_json="{"), stop(9)]
    assert read(*lost, end()) == [Finished("stop")]


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    events = read(start(0, type="tool_use", name="f"), stop(0), start(1, type="tool_use", name="f"), end())
    ids = [event.id for event in events if isinstance(event, ToolCallDelta) and event.id]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("body", [b"", b"{}", b'{"type":"message"}', b"null", b"[]", b'{"usage":{"input_tokens":1}}'])
def test_a_whole_answer_without_content_is_none(body: bytes) -> None:
    failed = feed(reader("application/json"), [body])[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


def test_a_whole_answer_without_a_reason_is_complete() -> None:
    assert read_whole(content=[{"type": "text", "text": "x"}]) == [TextDelta("x"), Finished("stop")]


def test_input_without_an_end_does_not_fill_the_memory() -> None:
    stream = reader()
    events = stream.feed(encode(start(0, type="server_tool_use", id="s", name="x")))
    piece = encode(delta(0, "input_json_delta", partial_json="x" * 1_000_000))
    tracemalloc.start()
    for _ in range(40):
        events += stream.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [event.code for event in events if isinstance(event, Failed)] == ["parsing_error"]
    assert peak_bytes < 30_000_000


@pytest.mark.parametrize("type_", ["text", "hologram"])
def test_blocks_without_an_end_do_not_fill_the_memory(type_: str) -> None:
    failed = read(*[start(index, type=type_) for index in range(MAX_OPEN_BLOCKS + 1)])[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


def test_a_refusal_of_another_shape_is_known_by_its_status() -> None:
    for body in (b"", b"<html>Bad gateway</html>", b"null", b'{"error":null}', b'{"message":"x"}', b'{"x":' * 9000):
        failed = read_refusal("anthropic", 502, {}, body)
        assert (failed.code, failed.message) == ("provider_gateway_error", "the provider answered with status 502")
    assert read_refusal("anthropic", 400, {}, b'{"error":"no","message":3}').message == "no"


def test_a_refusal_says_when_to_come_back() -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}'
    failed = read_refusal("anthropic", 429, {"retry-after": "12"}, body)
    assert (failed.code, failed.retry_after_seconds) == ("rate_limit_exceeded", 12.0)


@given(st.binary(max_size=200), st.sampled_from([STREAM, "application/json", ""]))
def test_any_bytes_at_all_are_harmless(data: bytes, media_type: str) -> None:
    events = feed(reader(media_type), [data])
    assert all(isinstance(event, EVENT_TYPES) for event in events)
    assert len(events) > 0
    read_refusal("anthropic", 500, {}, data)


TYPES = ("content_block_start", "content_block_delta", "message_delta", "error", "text_delta", "input_json_delta")
KINDS = ("tool_use", "text", "thinking", "server_tool_use", "signature_delta", "citations_delta", "message_start")
MEMBERS = ("type", "index", "delta", "content_block", "message", "usage", "input", "text", "citations", "partial_json")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(TYPES + KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4), st.sampled_from(TYPES))
def test_any_json_at_all_is_harmless(values: list[object], type_: str) -> None:
    events = [{**value, "type": type_} if isinstance(value, dict) else value for value in values]
    feed(reader(), [encode(*events)])
    feed(reader(""), [json.dumps({"content": values}).encode()])


def test_brackets_without_an_end_are_no_answer() -> None:
    for body in (b'{"type":"content_block_start","content_block":' + b'{"input":' * 50_000, b"[" * 100_000):
        [failed] = feed(reader(), [b"data: " + body + b"\n\n"])
        assert isinstance(failed, Failed)
        assert failed.code == "parsing_error"
