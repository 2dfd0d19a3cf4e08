"""What OpenAI's transcripts say."""

import json

import pytest

from proxy.dialects.openai_audio.answer import Reading, open_reader
from proxy.events import ChatEvent, Failed, Finished, Logprobs, TextDelta, Usage
from proxy.transcript import TranscriptFacts, TranscriptFormat, TranscriptSegment, TranscriptWord

SEGMENT = {"type": "transcript.text.segment", "id": "seg_0", "text": " Hi.", "speaker": "A", "start": 0, "end": 1.5}
LOGPROB = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}
USAGE = {"type": "tokens", "input_tokens": 9, "output_tokens": 2, "input_token_details": {"audio_tokens": 9}}


def read(body: bytes, media_type: str = "application/json", format_: TranscriptFormat = "json") -> list[ChatEvent]:
    reader = open_reader("openai", media_type, Reading(format_))
    return reader.feed(body) + reader.finish()


def read_stream(*events: object, done: bool = True) -> list[ChatEvent]:
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return read(body + (b"data: [DONE]\n\n" if done else b""), "text/event-stream")


def delta(text: str, **more: object) -> dict[str, object]:
    return {"type": "transcript.text.delta", "delta": text, **more}


def done(text: str, **more: object) -> dict[str, object]:
    return {"type": "transcript.text.done", "text": text, **more}


def test_a_whole_answer_tells_all_that_it_has() -> None:
    body = {
        "text": "Hi.",
        "logprobs": [LOGPROB],
        "segments": [SEGMENT],
        "words": [{"word": "Hi", "start": 0, "end": 1}],
        "language": "english",
        "duration": 1.5,
        "languages": [{"code": "en"}],
        "usage": USAGE,
    }
    assert read(json.dumps(body).encode()) == [
        TextDelta("Hi."),
        Logprobs((LOGPROB,)),
        TranscriptSegment(SEGMENT),
        TranscriptWord({"word": "Hi", "start": 0, "end": 1}),
        TranscriptFacts("english", 1.5, ({"code": "en"},)),
        Usage(output_tokens=2, input_audio_tokens=9),
        Finished("stop"),
    ]


def test_a_recording_in_which_nobody_speaks_is_an_answer() -> None:
    assert read(b'{"text": ""}') == [Finished("stop")]
    assert read(b"", "text/plain", "srt") == [Finished("stop")]
    assert read_stream(done("")) == [Finished("stop")]


def test_log_probabilities_follow_the_text_that_they_are_of() -> None:
    events = read_stream(delta("Hi", logprobs=[LOGPROB]), delta("."), done("Hi.", logprobs=[LOGPROB], usage=USAGE))
    assert events[:3] == [TextDelta("Hi"), Logprobs((LOGPROB,)), TextDelta(".")]
    assert events[3:] == [Usage(output_tokens=2, input_audio_tokens=9), Finished("stop")]


def test_a_segment_in_a_stream_says_its_text() -> None:
    assert read_stream(SEGMENT, done("Hi.")) == [TextDelta(" Hi."), TranscriptSegment(SEGMENT), Finished("stop")]


def test_the_text_of_a_segment_that_came_in_deltas_is_not_said_again() -> None:
    events = read_stream(delta(" Hi", segment_id="seg_0"), delta("."), SEGMENT, done("Hi."))
    assert [event.text for event in events if isinstance(event, TextDelta)] == [" Hi", "."]
    assert TranscriptSegment(SEGMENT) in events


def test_a_stream_without_pieces_says_its_text_at_the_end() -> None:
    assert read_stream(done("Hi.", logprobs=[LOGPROB])) == [TextDelta("Hi."), Logprobs((LOGPROB,)), Finished("stop")]


def test_a_stream_may_end_without_its_mark() -> None:
    assert read_stream(delta("Hi"), done("Hi"), done=False)[-1] == Finished("stop")


def test_a_stream_that_ends_before_its_answer_was_cut_short() -> None:
    events = read_stream(delta("Hi"), done=False)
    assert events[0] == TextDelta("Hi")
    assert isinstance(events[1], Failed)
    assert events[1].code == "network_error"


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "overloaded", "type": "server_error"}},
        {"type": "error", "error": {"message": "overloaded", "type": "server_error"}},
        {"type": "error", "message": "overloaded", "code": "server_error"},
    ],
)
def test_an_error_in_a_stream_ends_it(event: object) -> None:
    events = read_stream(delta("Hi"), event, delta("more"))
    [_, failed] = events
    assert isinstance(failed, Failed)
    assert (failed.message, failed.code) == ("overloaded", "provider_internal_error")


def test_events_of_other_types_are_left_alone() -> None:
    events = read_stream({"type": "transcript.new.thing"}, {"delta": 5}, done("Hi"))
    assert events == [TextDelta("Hi"), Finished("stop")]


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        ("srt", "1\n00:00:00,000 --> 00:00:02,000\nGrüße\n\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nGrüße\n\n"),
        ("vtt", "\ufeffWEBVTT\n\n"),
    ],
)
@pytest.mark.parametrize("media_type", ["text/plain; charset=utf-8", "application/json", "", "text/vtt"])
def test_subtitles_come_exactly_as_they_are(format_: TranscriptFormat, body: str, media_type: str) -> None:
    assert read(body.encode(), media_type, format_) == [TextDelta(body), Finished("stop")]


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        ("json", b"<html>"),
        ("json", b""),
        ("json", b"[]"),
        ("json", b'{"text": 5}'),
        ("json", b'{"nothing": 1}'),
        ("json", b"[" * 5000),
        ("srt", b"<html>"),
        ("vtt", b"1\n00:00"),
        ("vtt", b'{"text": 5}'),
    ],
)
def test_what_is_no_transcript_is_a_failure(format_: TranscriptFormat, body: bytes) -> None:
    [failed] = read(body, format_=format_)
    assert isinstance(failed, Failed)
    assert failed.code == "parsing_error"


@pytest.mark.parametrize("format_", ["json", "srt"])
def test_an_error_in_a_whole_answer_is_told(format_: TranscriptFormat) -> None:
    [failed] = read(b'{"error": {"message": "overloaded", "type": "server_error"}}', format_=format_)
    assert isinstance(failed, Failed)
    assert failed.message == "overloaded"


def test_a_whole_answer_where_a_stream_was_asked_for_is_taken() -> None:
    assert read(b'{"text": "Hi"}', "")[0] == TextDelta("Hi")


@pytest.mark.parametrize("duration", [-1, 10**400, "5", True, None])
def test_a_duration_that_cannot_be_is_none(duration: object) -> None:
    events = read(json.dumps({"text": "Hi", "duration": duration}).encode())
    assert not any(isinstance(event, TranscriptFacts) for event in events)


def test_members_of_the_wrong_kind_are_left_out() -> None:
    body = {"text": "Hi", "segments": "x", "words": [5, {"word": "Hi"}], "logprobs": {}, "language": 5, "usage": "x"}
    assert read(json.dumps(body).encode()) == [TextDelta("Hi"), TranscriptWord({"word": "Hi"}), Finished("stop")]


def test_a_segment_with_a_broken_member_is_no_transcript() -> None:
    [failed] = read(b'data: {"type":"transcript.text.segment","text":"Hi","\xff":1}\n\n', "text/event-stream")
    assert isinstance(failed, Failed)
