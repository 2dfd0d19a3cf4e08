"""How answers of the Responses API end: reasons, usage, errors; and what must not be done to us."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_responses.answer import open_reader, read_refusal
from proxy.dialects.openai_responses.items import MAX_PARTS
from proxy.events import ChatEvent, Failed, Finished, TextDelta, Usage
from tests.proxy.replay import EVENT_TYPES, feed

OURS = "openai-responses-v1"
STREAM, WHOLE = "text/event-stream", "application/json"


def read(*told: dict[str, Any]) -> list[ChatEvent]:
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    return feed(open_reader("openai", OURS, STREAM), [body])


def read_whole(**response: Any) -> list[ChatEvent]:
    return feed(open_reader("openai", OURS, WHOLE), [json.dumps(response).encode()])


def text(delta: str, output: int = 0) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": delta, "output_index": output, "content_index": 0}


def done(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


def completed(*output: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"status": "completed", "output": list(output)}}


def message(said: str) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": said}]}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "tide", "arguments": '{"a":1}'}


@pytest.mark.parametrize(
    ("status", "details", "reason"),
    [
        ("completed", None, "stop"),
        ("incomplete", {"reason": "max_output_tokens"}, "length"),
        ("incomplete", {"reason": "max_messages"}, "length"),
        ("incomplete", {"reason": "content_filter"}, "content_filter"),
        ("incomplete", None, "length"),
    ],
)
def test_why_an_answer_ended(status: str, details: dict[str, str] | None, reason: str) -> None:
    response = {"status": status, "incomplete_details": details, "output": [CALL] if reason != "stop" else []}
    expected = Finished(reason)  # type: ignore[arg-type] # the table's words
    assert read_whole(**response)[-1] == expected
    assert read({"type": f"response.{status}", "response": response})[-1] == expected
    assert read({"type": "response.done", "response": response})[-1] == expected


def test_usage_is_told_in_buckets_that_do_not_overlap() -> None:
    usage = {
        "input_tokens": "100",
        "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20.0, "audio_tokens": 5},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 3, "image_tokens": 2},
    }
    usages = [event for event in read_whole(output=[], usage=usage) if isinstance(event, Usage)]
    assert usages == [Usage(45, 30, 20, 35, 10, 0, 5, 3, 2)]


def test_usage_that_contradicts_itself_never_goes_below_zero() -> None:
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4, "audio_tokens": -1},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 10},
    }
    assert read_whole(output=[], usage=usage)[0] == Usage(cache_read_tokens=3, cache_write_tokens=2, reasoning_tokens=7)


@pytest.mark.parametrize("odd", [[], "none", 5, {"input_tokens": []}, {"web_search": 5}, {"reason": []}])
def test_what_cannot_be_read_beside_an_answer_costs_no_answer(odd: object) -> None:
    for name in ("usage", "tool_usage", "incomplete_details"):
        assert read_whole(**{"output": [message("A")], "usage": {}, name: odd})[0] == TextDelta("A")
        response = {"status": "incomplete", "output": [message("A")], name: odd}
        assert read({"type": "response.incomplete", "response": response})[-1] == Finished("length")


@pytest.mark.parametrize(
    ("told", "searches"),
    [
        ({}, 2),
        ({"tool_usage": {"web_search": {"num_requests": 5}}}, 5),
        ({"tool_usage": {"web_search": {"num_requests": 0}}}, 0),
        ({"tool_usage": {}}, 2),
    ],
)
def test_searches_are_those_that_are_billed(told: dict[str, Any], searches: int) -> None:
    actions: list[Any] = [{"type": "search"}, {"type": "open_page"}, {"type": "find_in_page"}, None]
    items = [{"type": "web_search_call", "id": f"ws_{n}", "action": action} for n, action in enumerate(actions)]
    [usage] = [event for event in read_whole(output=items, usage={}, **told) if isinstance(event, Usage)]
    assert usage.searches == searches


def test_xai_counts_the_searches_that_it_bills() -> None:
    usage = {"input_tokens": 1, "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1}}
    assert read_whole(output=[], usage=usage)[0] == Usage(input_tokens=1, searches=3)


@pytest.mark.parametrize(
    ("told", "code", "status"),
    [
        ({"type": "error", "code": "server_error", "message": "Broke."}, "provider_internal_error", 0),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Slow."}, "rate_limit_exceeded", 0),
        ({"type": "error", "error": {"code": "context_length_exceeded"}}, "context_length_exceeded", 0),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}, "bad_request", 0),
        ({"type": "error", "status": 503, "message": "x"}, "provider_unavailable", 503),
        ({"type": "response.error", "code": 429, "message": "x"}, "rate_limit_exceeded", 429),
        ({"error": {"code": 502, "message": "x"}}, "provider_gateway_error", 502),
        ({"error": "broke", "code": "x"}, "external_service_error", 0),
        ({"type": "error", "delta": {}, "message": "Broke."}, "external_service_error", 0),
        ({"type": "error"}, "external_service_error", 0),
    ],
)
def test_an_error_inside_a_stream_ends_it(told: dict[str, Any], code: str, status: int) -> None:
    first, failed = read(text("A"), told, text("B"), completed())
    assert first == TextDelta("A")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == (code, status)
    assert failed.message
    assert failed.provider_error_type != "error"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "server_error", "message": "x"}, "provider_internal_error"),
        ({"code": "invalid_image_format", "message": "x"}, "bad_request"),
        ({"code": "image_content_policy_violation", "message": "x"}, "content_filter"),
        ({"code": "bio_policy", "message": "x"}, "content_filter"),
        ({"code": "invalid_prompt", "message": "It may violate our usage policy."}, "content_filter"),
        ({"code": "invalid_prompt", "message": "x"}, "bad_request"),
        (None, "external_service_error"),
    ],
)
def test_an_answer_that_failed_tells_first_what_it_used(error: dict[str, str] | None, code: str) -> None:
    response: dict[str, Any] = {"status": "failed", "output": [], "error": error, "usage": {"input_tokens": 3}}
    for events in (read({"type": "response.failed", "response": response}), read_whole(**response)):
        usage, failed = events
        assert usage == Usage(input_tokens=3)
        assert isinstance(failed, Failed)
        assert failed.code == code


def test_a_prompt_that_breaks_a_providers_rules_is_no_trouble_with_our_key() -> None:
    body = b'{"code":"The caller does not have permission","error":"Content violates usage guidelines."}'
    failed = read_refusal("xai", 403, {}, body)
    assert (failed.code, failed.message) == ("content_filter", "Content violates usage guidelines.")
    assert failed.provider_error_type == "The caller does not have permission"


def test_an_answer_that_was_called_off_tells_what_it_used() -> None:
    usage, failed = read_whole(status="cancelled", output=[message("Half")], usage={"output_tokens": 2})[1:]
    assert usage == Usage(output_tokens=2)
    assert isinstance(failed, Failed)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b'{"status":"queued"}', b'{"status":"in_progress","output":[]}', b'{"usage":{}}'],
)
def test_what_is_no_whole_answer_is_told(body: bytes) -> None:
    [failed] = feed(open_reader("openai", OURS, WHOLE), [body])
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


@pytest.mark.parametrize("body", [{"error": {"message": "x", "type": "server_error"}}, {"status": 500, "error": "x"}])
def test_an_error_in_a_body_with_a_good_status_is_a_failure(body: dict[str, Any]) -> None:
    [failed] = read_whole(**body)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message) == ("provider_internal_error", "x")


def test_the_event_that_ends_an_answer_is_its_end() -> None:
    reader = open_reader("openai", OURS, STREAM)
    end = b"data: " + json.dumps(completed()).encode() + b"\n\n"
    said = []
    for piece in (b"", end + b'data: {"type":"error"}\n\n', b"data: [DONE]\n\n"):
        said.append((reader.feed(piece), reader.is_done))
    assert said == [([], False), ([Finished("stop")], True), ([], True)]
    assert reader.finish() == []


def test_a_mark_may_stand_for_the_end() -> None:
    body = b"data: " + json.dumps(done(CALL)).encode() + b"\n\ndata: [DONE]\n\n"
    assert feed(open_reader("openai", OURS, STREAM), [body])[-1] == Finished("tool_calls")


@pytest.mark.parametrize("told", [(), (text("A"),), ({"type": "response.created", "response": {}}, text("A"))])
def test_a_stream_that_is_cut_is_a_failure(told: tuple[dict[str, Any], ...]) -> None:
    failed = read(*told)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "network_error"


@pytest.mark.parametrize(
    "told", [{"type": "keepalive"}, {"type": "response.new", "delta": {"a": 1}, "text": 5, "item": 7}, {"type": ""}, {}]
)
def test_events_that_say_nothing_to_us_are_passed_over(told: dict[str, Any]) -> None:
    assert read(told, text("A"), completed()) == [TextDelta("A"), Finished("stop")]


@pytest.mark.parametrize(
    "told", [text("A") | {"delta": {}}, {"type": "response.completed", "response": 5}, {"delta": 5}]
)
def test_an_event_that_we_need_and_cannot_read_is_told(told: dict[str, Any]) -> None:
    failed = read(told)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


def test_the_name_of_an_event_stands_in_for_its_type() -> None:
    body = b'event: response.output_text.delta\ndata: {"delta":"A"}\n\nevent: response.completed\ndata: {}\n\n'
    assert feed(open_reader("openai", OURS, STREAM), [body]) == [TextDelta("A"), Finished("stop")]


def test_an_answer_in_too_many_parts_does_not_fill_the_memory() -> None:
    reader = open_reader("openai", OURS, STREAM)
    event = b'data: {"type":"response.output_text.delta","delta":"A","output_index":%d}\n\n'
    pieces = [event % number for number in range(MAX_PARTS + 10)]
    tracemalloc.start()
    failures = [one for piece in pieces for one in reader.feed(piece) if isinstance(one, Failed)]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [failed.code for failed in failures] == ["parsing_error"]
    assert peak_bytes < 40_000_000
    many = {"type": "message", "content": [{"type": "output_text", "text": "A"}] * (MAX_PARTS + 10)}
    assert isinstance(read(done(many))[-1], Failed)
    assert isinstance(read_whole(output=[many])[-1], Failed)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"null", b'{"error":null}', b'{"detail":"x"}'])
def test_a_refusal_without_words_is_known_by_its_status(body: bytes) -> None:
    failed = read_refusal("openai", 502, {}, body)
    assert (failed.code, failed.message) == ("provider_gateway_error", "the provider answered with status 502")


def test_a_refusal_says_when_to_come_back_and_not_who_we_are() -> None:
    body = b'{"error":{"message":"Limit of organization org-abc reached","type":"tokens","code":"rate_limit_exceeded"}}'
    failed = read_refusal("openai", 429, {"retry-after": "7"}, body)
    assert (failed.code, failed.retry_after_seconds) == ("rate_limit_exceeded", 7)
    assert "org-" not in failed.message


@given(st.binary(max_size=200), st.sampled_from([STREAM, WHOLE, ""]))
def test_any_bytes_at_all_are_harmless(data: bytes, media_type: str) -> None:
    events = feed(open_reader("openai", OURS, media_type), [data])
    assert all(isinstance(event, EVENT_TYPES) for event in events)
    assert len(events) > 0


WORDS = ("output", "response", "item", "content", "part", "error", "status", "usage", "summary", "call_id", "text")
TYPES = (
    *("response.output_item.added", "response.output_item.done", "response.content_part.done", "response.completed"),
    *("response.output_text.done", "response.output_text.annotation.added", "response.failed", "error", "message"),
    *("function_call", "reasoning", "web_search_call", "response.function_call_arguments.done"),
)
JSON = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4).map(dict)
    | st.tuples(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)).map(
        lambda typed: {**typed[1], "type": typed[0]}
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_json_at_all_is_harmless(value: object) -> None:
    body = json.dumps(value).encode()
    for media_type, data in ((STREAM, b"data: " + body + b"\n\n"), (WHOLE, body)):
        events = feed(open_reader("openai", OURS, media_type), [data])
        assert all(isinstance(event, EVENT_TYPES) for event in events)
    assert read_refusal("openai", 500, {}, body).status == 500


@pytest.mark.parametrize("start", [b'{"x":', b"[", b'{"type":"response.completed","response":{"output":['])
def test_brackets_without_an_end_are_no_answer(start: bytes) -> None:
    deep = start * 50_000
    for media_type, data in ((STREAM, b"data: " + deep + b"\n\n"), (WHOLE, deep)):
        [failed] = feed(open_reader("openai", OURS, media_type), [data])
        assert isinstance(failed, Failed)
        assert failed.code == "parsing_error"
