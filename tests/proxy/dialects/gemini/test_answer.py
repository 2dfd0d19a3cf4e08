"""What Gemini's answers mean, part by part, and what they may do to us."""

import json
import tracemalloc
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ProviderItem
from proxy.dialects.gemini.answer import open_reader
from proxy.dialects.gemini.contents import FORMAT
from proxy.dialects.gemini.errors import read_refusal
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
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tests.proxy.replay import feed

EVENT_TYPES = get_args(ChatEvent)
STREAM, WHOLE = "text/event-stream", "application/json; charset=UTF-8"
STOP = Finished("stop")


def stream(*chunks: object) -> list[ChatEvent]:
    body = "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks).encode()
    return feed(open_reader("google", STREAM, lambda: "made"), [body])


def whole(answer: object) -> list[ChatEvent]:
    return feed(open_reader("google", WHOLE, lambda: "made"), [json.dumps(answer).encode()])


def chunk(*parts: object, finish: str | None = None, model: str = "gemini-2.5-flash", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, **more}
    return {"candidates": [candidate], "modelVersion": model}


def text(said: str, signature: str | None = None) -> dict[str, object]:
    return {"text": said, "thoughtSignature": signature}


def thought(said: str, signature: str | None = None) -> dict[str, object]:
    return {"text": said, "thought": True, "thoughtSignature": signature}


def test_thoughts_are_told_block_by_block_and_sealed() -> None:
    chunks = (
        chunk(thought("Hm")),
        chunk(thought("m.", "s0")),
        chunk(thought("Oh."), text("Red"), thought("Well.")),
        chunk(text("!"), text("", "s3"), finish="STOP"),
    )
    assert stream(*chunks) == [
        ReasoningDelta("Hm", 0, is_summary=True),
        ReasoningDelta("m.", 0, is_summary=True),
        ReasoningSealed(0, FORMAT, signature="s0"),
        ReasoningDelta("Oh.", 1, is_summary=True),
        TextDelta("Red"),
        ReasoningDelta("Well.", 2, is_summary=True),
        TextDelta("!"),
        ReasoningSealed(3, FORMAT, signature="s3"),
        STOP,
    ]


def test_an_answer_that_is_no_stream_says_the_same() -> None:
    parts = (thought("Hm."), text("Red", "s"), {"functionCall": {"name": "now", "args": {"a": 1}}})
    expected = [
        ReasoningDelta("Hm.", 0, is_summary=True),
        TextDelta("Red"),
        ReasoningSealed(1, FORMAT, signature="s"),
        ToolCallDelta(0, "made", "now", '{"a":1}'),
        Finished("tool_calls"),
    ]
    assert stream(chunk(*parts, finish="STOP")) == expected
    assert whole(chunk(*parts, finish="STOP")) == expected
    assert whole([chunk(part) for part in parts]) == expected  # an array needs no reason to finish: it has an end


def test_calls_keep_their_ids_and_signatures() -> None:
    first = {"functionCall": {"id": "a", "name": "now", "args": None}, "thoughtSignature": "s"}
    second = {"functionCall": {"name": "here"}}
    assert stream(chunk(first), chunk(second), chunk(text(""), finish="STOP")) == [
        ToolCallDelta(0, "a", "now", "{}", "s"),
        ToolCallDelta(1, "made", "here", "{}"),
        Finished("tool_calls"),
    ]


def test_arguments_come_without_white_space_and_otherwise_to_the_letter() -> None:
    args = '{ "n": 12345678901234567890123,\n "x": 1.10, "s": "a b" }'
    body = '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + args + "}}]}}]}"
    call = feed(open_reader("google", WHOLE), [body.encode()])[0]
    assert isinstance(call, ToolCallDelta)
    assert call.arguments == '{"n":12345678901234567890123,"x":1.10,"s":"a b"}'


def test_made_ids_differ() -> None:
    call = {"functionCall": {"name": "now"}}
    body = json.dumps(chunk(call, call, finish="STOP")).encode()
    events = [event for _ in range(2) for event in feed(open_reader("google", WHOLE), [body])]
    ids = [event.id for event in events if isinstance(event, ToolCallDelta)]
    assert len(set(ids)) == len(ids) == 4


def test_images_and_sound_are_answers() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thoughtSignature": "s"}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "BB=="}}
    assert stream(chunk(image, sound, finish="STOP")) == [
        ImageDelta("image/png", "AA=="),
        ReasoningSealed(0, FORMAT, signature="s"),
        AudioDelta("BB=="),
        STOP,
    ]


def test_a_sketch_made_while_thinking_is_not_the_answer() -> None:
    sketch = {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thought": True, "thoughtSignature": "s"}
    assert stream(chunk(sketch, finish="STOP")) == [ProviderItem(FORMAT, sketch), STOP]


@pytest.mark.parametrize("name", ["executableCode", "codeExecutionResult", "toolCall", "toolResponse"])
def test_what_google_ran_is_kept_as_it_is(name: str) -> None:
    part = {name: {"id": "x", "inner": [1, {"a": None}]}, "thoughtSignature": "s"}
    assert stream(chunk(part, finish="STOP")) == [ProviderItem(FORMAT, part), STOP]


def test_parts_that_we_do_not_know_are_passed_over() -> None:
    assert stream(chunk({"hologram": {}}, {"thoughtSignature": "s"}, finish="STOP")) == [
        ReasoningSealed(0, FORMAT, signature="s"),
        STOP,
    ]


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("LANGUAGE", "error"),
        ("OTHER", "error"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("UNEXPECTED_TOOL_CALL", "error"),
        ("TOO_MANY_TOOL_CALLS", "error"),
        ("SOMETHING_NEW", "error"),
    ],
)
def test_each_reason_to_finish_has_ours(reason: str, ours: Any) -> None:
    assert stream(chunk(finish=reason)) == [Finished(ours)]


def test_an_answer_cut_by_the_limit_after_a_call_is_cut() -> None:
    assert stream(chunk({"functionCall": {"name": "now"}}, finish="MAX_TOKENS"))[-1] == Finished("length")


def test_a_prompt_that_is_blocked_is_answered_with_nothing() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    assert stream(blocked) == whole(blocked) == [Usage(input_tokens=3), Finished("content_filter")]


def test_usage_after_the_reason_to_finish_counts() -> None:
    late = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1}}
    assert stream(chunk(finish="STOP"), late) == [STOP, Usage(input_tokens=3, output_tokens=1)]


def test_the_first_candidate_is_the_answer() -> None:
    two = [{"index": 1, "content": {"parts": [{"text": "no"}]}}, {"content": {"parts": [{"text": "yes"}]}}]
    assert whole({"candidates": two}) == [TextDelta("yes"), STOP]


def test_an_error_inside_a_stream_ends_it() -> None:
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    said, failed = stream(chunk(text("x")), error, chunk(text("y"), finish="STOP"))
    assert said == TextDelta("x")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == ("provider_unavailable", 503)
    assert whole([chunk(text("x")), error]) == [said, failed]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        ({"status": "RESOURCE_EXHAUSTED"}, "rate_limit_exceeded", 429),
        ({"code": "odd", "status": "INTERNAL"}, "provider_internal_error", 500),
        ({"code": 70_000}, "external_service_error", 0),
        ({"code": True}, "external_service_error", 0),
        ("broken", "external_service_error", 0),
    ],
)
def test_an_error_without_a_number_is_known_by_its_name(error: object, code: str, status: int) -> None:
    [failed] = stream({"error": error})
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == (code, status)


UNFINISHED = b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\n\n'


@pytest.mark.parametrize("body", [b"", b"data: {}\n\n", UNFINISHED])
def test_a_stream_without_a_reason_to_finish_is_cut(body: bytes) -> None:
    failed = feed(open_reader("google", STREAM), [body])[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "network_error"


@pytest.mark.parametrize("answer", [{}, [], {"usageMetadata": {}}, {"candidates": []}, None, 5])
def test_a_whole_answer_without_a_candidate_is_none(answer: object) -> None:
    failed = whole(answer)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


def test_nothing_marks_the_end() -> None:
    reader = open_reader("google", STREAM)
    reader.feed(b"data: " + json.dumps(chunk(finish="STOP")).encode() + b"\n\n")
    assert not reader.is_done


def test_what_was_searched_comes_with_its_sources_and_its_count() -> None:
    grounding = {"webSearchQueries": ["a", "b"], "groundingChunks": [{"web": {"uri": "https://example.org"}}]}
    events = stream(chunk(text("x")), chunk(groundingMetadata=grounding, finish="STOP", model="gemini-3-pro-preview"))
    item = ProviderItem(FORMAT, {"groundingMetadata": grounding})
    assert events[1:] == [Citation("https://example.org"), item, Usage(searches=2), STOP]


def test_a_search_counts_when_the_usage_came_before_it() -> None:
    usage = {"usageMetadata": {"promptTokenCount": 7}}
    events = stream(chunk(text("x")) | usage, chunk(groundingMetadata={"webSearchQueries": ["a"]}, finish="STOP"))
    assert [event for event in events if isinstance(event, Usage)][-1] == Usage(input_tokens=7, searches=1)


def test_searches_of_an_answer_that_ends_in_a_call_are_counted_too() -> None:
    search = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["a", "b"]}}}
    odd = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": []}}
    call = {"functionCall": {"name": "now"}}
    chunks = chunk(search, odd, call, finish="STOP", model="gemini-3.5-flash") | {"usageMetadata": {}}
    assert Usage(searches=2) in stream(chunks)


def test_recited_sources_have_their_places() -> None:
    sources = [{"startIndex": 2, "endIndex": 4, "uri": "https://example.org"}]
    events = stream(chunk(text("üöä"), citationMetadata={"citationSources": sources}, finish="STOP"))
    assert events[1:] == [Citation("https://example.org", start=1, end=2), STOP]


def test_log_probabilities_have_openais_shape() -> None:
    result = {
        "chosenCandidates": [{"token": "ö", "logProbability": -0.5}, {"token": "x"}],
        "topCandidates": [{"candidates": [{"token": "a", "logProbability": -1}]}],
    }
    [logprobs] = [event for event in stream(chunk(logprobsResult=result)) if isinstance(event, Logprobs)]
    top = {"token": "a", "logprob": -1.0, "bytes": [97]}
    assert logprobs.content == (
        {"token": "ö", "logprob": -0.5, "bytes": [195, 182], "top_logprobs": [top]},
        {"token": "x", "logprob": None, "bytes": [120], "top_logprobs": []},
    )


def test_brackets_without_an_end_are_no_answer() -> None:
    for deep in (b'{"candidates":' * 100_000, b'{"candidates":[{"content":{"parts":[{"toolCall":' + b'{"a":' * 100_000):
        [failed] = feed(open_reader("google", STREAM), [b"data: " + deep + b"\n\n"])
        assert isinstance(failed, Failed)
        assert failed.code == "parsing_error"


@pytest.mark.parametrize("depth", [10, 500, 900, 5_000, 100_000])
def test_arguments_of_any_depth_do_no_harm(depth: int) -> None:
    args = b'{"a":' * depth + b"1" + b"}" * depth
    body = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + args + b"}}]}}]}"
    assert all(isinstance(event, EVENT_TYPES) for event in feed(open_reader("google", WHOLE), [body]))


def test_a_long_stream_is_not_kept() -> None:
    """Of its text a megabyte is, to find places in."""
    reader = open_reader("google", STREAM)
    grounding = {"groundingChunks": [{"web": {"uri": "https://example.org"}}]}
    piece = b"data: " + json.dumps(chunk(text("x" * 100_000), groundingMetadata=grounding)).encode() + b"\n\n"
    tracemalloc.start()
    for _ in range(300):
        reader.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8_000_000


WORDS = (
    "candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "args",
    "inlineData", "toolCall", "groundingMetadata", "groundingChunks", "groundingSupports", "segment",
    "startIndex", "endIndex", "citationMetadata", "citationSources", "usageMetadata", "promptTokenCount",
    "promptTokensDetails", "modality", "tokenCount", "promptFeedback", "blockReason", "finishReason", "error",
    "code", "details", "message", "logprobsResult", "chosenCandidates", "token", "web", "webSearchQueries",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
def test_any_json_at_all_is_harmless(value: object) -> None:
    grounded = chunk(groundingMetadata=value)
    for said in (value, {"candidates": [value]}, chunk(value), {"usageMetadata": value}, grounded):
        body = json.dumps(said).encode()
        for media_type, data in ((STREAM, b"data: " + body + b"\n\n"), (WHOLE, body)):
            events = feed(open_reader("google", media_type), [data])
            assert all(isinstance(event, EVENT_TYPES) for event in events)
        read_refusal("google", 500, {}, json.dumps({"error": value}).encode())


@given(st.binary(max_size=200), st.sampled_from([STREAM, WHOLE, ""]))
def test_any_bytes_at_all_are_harmless(data: bytes, media_type: str) -> None:
    events = feed(open_reader("google", media_type), [data])
    assert len(events) > 0
    assert all(isinstance(event, EVENT_TYPES) for event in events)
