"""The sandbox's transcripts, read by the reader that reads them."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from proxy.chat import Attached
from proxy.collected import Collected
from proxy.events import ChatEvent, Finished, Usage
from proxy.provider import Target, UpstreamRequest
from proxy.providers.sandbox import PROVIDER, build_transcription
from proxy.sandbox_sound import is_transcription, play_transcript
from proxy.transcript import TranscriptFormat, TranscriptRequest
from tests.sounds import FileInMemory

TARGET = Target(PROVIDER.default_base_url, "", "transcribe")
REQUEST = TranscriptRequest("sandbox/transcribe", Attached("audio/mpeg", FileInMemory(bytes(70_000)), 3.0))
SAID = "This is Cloche's sandbox, not a model. It got 70000 bytes of sound."


def transcribe(**asked: Any) -> list[ChatEvent]:
    call = build_transcription(replace(REQUEST, **asked), TARGET)
    played = play_transcript(call.request)
    reader = call.open_reader(played.media_type)
    return [event for piece in played.pieces for event in reader.feed(piece)] + reader.finish()


def collect(**asked: Any) -> Collected:
    collected = Collected()
    collected.add(transcribe(**asked))
    return collected


@pytest.mark.parametrize("format_", get_args(TranscriptFormat))
@pytest.mark.parametrize("stream", [False, True])
def test_it_says_what_it_is_and_how_much_it_got_in_every_format(format_: TranscriptFormat, stream: bool) -> None:
    events = transcribe(format=format_, stream=stream)
    collected = Collected()
    collected.add(events)
    assert SAID in collected.text
    assert (collected.text == SAID) == (format_ not in {"srt", "vtt"})
    assert events[-1] == Finished("stop")


def test_a_stream_comes_word_by_word() -> None:
    assert len(transcribe(stream=True)) > 10


def test_it_charges_seconds_by_the_size() -> None:
    [usage] = [event for event in transcribe() if isinstance(event, Usage)]
    assert usage.input_tokens == 30


def test_it_has_times_where_they_are_asked_for() -> None:
    timed = collect(format="verbose_json", timestamps=("word",))
    assert [word.item["word"] for word in timed.words] == SAID.split()
    assert (timed.segments[0].item["start"], timed.segments[0].item["end"]) == (0.0, 3.0)
    assert timed.facts.duration_seconds == 3.0
    assert collect(format="diarized_json").segments[0].item["speaker"] == "A"
    assert "00:00:03,000" in collect(format="srt").text
    assert collect(format="vtt").text.startswith("WEBVTT")


@pytest.mark.parametrize(("path", "expected"), [("/audio/transcriptions", True), ("/chat/completions", False)])
def test_only_sound_is_listened_to(path: str, expected: bool) -> None:
    assert is_transcription(UpstreamRequest(f"sandbox://local{path}", (), b"")) == expected
