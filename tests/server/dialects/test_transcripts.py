"""Transcripts as clients read them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import Attached
from proxy.collected import Collected
from proxy.events import Cancelled, ChatEvent, Completed, Failed, Finished, Logprobs, TextDelta, Usage
from proxy.sse import SseDecoder
from proxy.transcript import TranscriptFacts, TranscriptFormat, TranscriptRequest, TranscriptSegment, TranscriptWord
from server.dialects.media_forms import SoundTranscript, Transcript
from server.dialects.transcripts import (
    OpenAiTranscriptEncoder,
    ShippedTranscriptEncoder,
    encode_openai,
    encode_shipped,
)
from tests.server.dialects.test_completions import check
from tests.sounds import SILENCE

REQUEST = TranscriptRequest("openai/gpt-4o-transcribe", Attached("audio/mpeg", SILENCE, 5.49))
COMPLETED = Completed(Usage(input_tokens=3, input_audio_tokens=54, output_tokens=16), "0.000502", False)
LOGPROB = {"token": "Hel", "logprob": -0.5, "bytes": [72]}
SEGMENT = {"type": "transcript.text.segment", "id": "seg_0", "speaker": "A", "start": 0.0, "end": 3.25, "text": " Hi."}
WORD = {"word": "Hi", "start": 0.0, "end": 0.5}
CALL_ID = "00000000-0000-4000-8000-000000000000"


def collect(*events: ChatEvent) -> Collected:
    collected = Collected()
    collected.add([*events, Finished("stop"), COMPLETED])
    return collected


def answer(format: TranscriptFormat, *events: ChatEvent, by_duration: bool = False) -> Any:
    body = encode_openai(replace(REQUEST, format=format), collect(*events), by_duration=by_duration)
    check(Transcript, body)
    return json.loads(body)


def stream(encoder: OpenAiTranscriptEncoder | ShippedTranscriptEncoder, *batches: list[ChatEvent]) -> list[Any]:
    """The events; those that are no JSON as text."""
    data = encoder.open() + b"".join(encoder.encode(batch) for batch in batches)
    assert not any(event.name for event in SseDecoder().feed(data))
    found = [event.data for event in SseDecoder().feed(data)]
    return [json.loads(one) if one.startswith(b"{") else one.decode() for one in found]


def test_json_is_the_text_and_what_was_used() -> None:
    assert answer("json", TextDelta("Hel"), TextDelta("lo")) == {
        "text": "Hello",
        "usage": {
            "type": "tokens",
            "input_tokens": 57,
            "input_token_details": {"audio_tokens": 54, "text_tokens": 3},
            "output_tokens": 16,
            "total_tokens": 73,
            "cost": 0.000502,
        },
    }


def test_a_model_that_is_paid_by_duration_tells_the_seconds_that_were_charged() -> None:
    assert answer("json", by_duration=True)["usage"] == {"type": "duration", "seconds": 5, "cost": 0.000502}


def test_log_probabilities_are_told_where_they_came() -> None:
    assert answer("json", TextDelta("Hel"), Logprobs((LOGPROB,)))["logprobs"] == [LOGPROB]


def test_verbose_json_has_what_the_provider_found_out() -> None:
    facts = TranscriptFacts("english", 5.5)
    told = answer("verbose_json", facts, TextDelta("Hi."), TranscriptSegment(SEGMENT), TranscriptWord(WORD))
    assert told.pop("usage")
    assert told == {
        "task": "transcribe",
        "language": "english",
        "duration": 5.5,
        "text": "Hi.",
        "segments": [SEGMENT],
        "words": [WORD],
    }


def test_a_duration_that_nobody_told_is_the_one_that_was_measured() -> None:
    told = answer("diarized_json", TextDelta("Hi."), TranscriptSegment(SEGMENT))
    assert (told["duration"], told["segments"]) == (5.49, [SEGMENT])


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
def test_plain_text_goes_out_as_it_came(format: TranscriptFormat) -> None:
    text = "1\n00:00:00,000 --> 00:00:02,000\nGrüße!\n\n\n"
    body = encode_openai(replace(REQUEST, format=format), collect(TextDelta(text)), by_duration=True)
    assert body.decode() == text


def test_the_shipped_clients_read_the_text_and_what_it_cost() -> None:
    body = encode_shipped(REQUEST, collect(TranscriptFacts("english"), TextDelta("Hello")), CALL_ID)
    check(SoundTranscript, body)
    assert json.loads(body) == {
        "text": "Hello",
        "duration": 5.49,
        "requestId": CALL_ID,
        "language": "english",
        "usage": {"promptTokens": 57, "completionTokens": 16, "totalTokens": 73, "cachedTokens": 0},
        "cost": 0.000502,
    }


def test_a_stream_is_deltas_with_their_log_probabilities_then_the_whole() -> None:
    encoder = OpenAiTranscriptEncoder(REQUEST, by_duration=False)
    events = stream(encoder, [TextDelta("Hel"), Logprobs((LOGPROB,))], [TextDelta("lo")], [Finished("stop"), COMPLETED])
    assert events[:2] == [
        {"type": "transcript.text.delta", "delta": "Hel", "logprobs": [LOGPROB]},
        {"type": "transcript.text.delta", "delta": "lo"},
    ]
    done = events[2]
    assert (done["type"], done["text"], done["logprobs"]) == ("transcript.text.done", "Hello", [LOGPROB])
    assert events[3:] == ["[DONE]"]
    assert done["usage"]["total_tokens"] == 73


def test_a_stream_of_speakers_is_segments_then_the_whole_text() -> None:
    encoder = OpenAiTranscriptEncoder(replace(REQUEST, format="diarized_json"), by_duration=False)
    events = stream(encoder, [TranscriptSegment(SEGMENT)], [TextDelta(" Hi."), Finished("stop"), COMPLETED])
    assert events[0] == SEGMENT
    assert (events[1]["type"], events[1]["text"], events[2:]) == ("transcript.text.done", "Hi.", ["[DONE]"])


def test_an_error_in_mid_stream_is_an_event_and_no_done_follows() -> None:
    encoder = OpenAiTranscriptEncoder(REQUEST, by_duration=False)
    events = stream(encoder, [TextDelta("Hel")], [Failed("network_error", "the line broke", "openai")])
    assert events[1:] == [
        {"error": {"message": "the line broke", "type": "network_error", "param": None, "code": "network_error"}}
    ]


def test_the_shipped_stream_is_pieces_and_done() -> None:
    events = stream(ShippedTranscriptEncoder(), [TextDelta("Hel")], [TextDelta("lo")], [Finished("stop"), COMPLETED])
    assert events[:2] == [{"text": "Hel", "done": False}, {"text": "lo", "done": False}]
    assert (events[2]["text"], events[2]["done"], events[2]["cost"]) == ("", True, 0.000502)


def test_the_shipped_stream_says_done_at_a_good_end_alone() -> None:
    events = stream(ShippedTranscriptEncoder(), [TextDelta("Hel")], [Failed("network_error", "it broke", "google")])
    assert events == [{"text": "Hel", "done": False}, {"error": {"code": "network_error", "message": "it broke"}}]


@pytest.mark.parametrize("encoder", [OpenAiTranscriptEncoder(REQUEST, by_duration=True), ShippedTranscriptEncoder()])
def test_a_stream_that_its_user_has_called_off_says_so(
    encoder: OpenAiTranscriptEncoder | ShippedTranscriptEncoder,
) -> None:
    (told,) = stream(encoder, [Cancelled(Usage(), "0.000000", True)])
    assert told["error"]["code"] == "request_cancelled"


@given(st.text())
def test_the_shipped_stream_is_ascii_whatever_is_said(text: str) -> None:
    """Lone surrogates, which no provider's JSON can bring, are left out by st.text()."""
    data = ShippedTranscriptEncoder().encode([TextDelta(text)])
    assert data.isascii()
    assert data.startswith(b"data: ")
    assert json.loads(data[6:]) == {"text": text, "done": False}
