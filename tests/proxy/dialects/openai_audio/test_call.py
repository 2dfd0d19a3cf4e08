"""What is sent for a recording."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import Attached
from proxy.dialects.openai_audio.call import MAX_BYTES, build_call, output_tokens_per_second
from proxy.dialects.openai_audio.quirks import AudioQuirks
from proxy.errors import RequestNotSupported
from proxy.events import Failed
from proxy.media import MediaRefused
from proxy.provider import ProviderCall, Target
from proxy.transcript import KnownSpeaker, TranscriptRequest
from tests.proxy.forms import read_form
from tests.sounds import SILENCE, FileInMemory

REQUEST = TranscriptRequest("openai/x", Attached("audio/mpeg", SILENCE, 5.0))
TARGET = Target("https://api.test/v1/", "sk-1", "x-1")
PLAIN = AudioQuirks("openai", "OpenAI", streams=True, tells_logprobs=True)
WHISPER = AudioQuirks("openai", "OpenAI", frozenset({"json", "text", "srt", "vtt", "verbose_json"}), translates=True)
DIARIZE = AudioQuirks("openai", "OpenAI", frozenset({"json", "diarized_json"}), streams=True, diarizes=True)
HINTED = AudioQuirks("openai", "OpenAI", takes_hints=True)


def call(quirks: AudioQuirks = PLAIN, **asked: Any) -> ProviderCall:
    return build_call(replace(REQUEST, **asked), TARGET, quirks)


def fields(quirks: AudioQuirks = PLAIN, **asked: Any) -> list[tuple[str, str]]:
    return [(part.name, part.value.decode()) for part in read_form(call(quirks, **asked).request)[:-1]]


def test_the_least_that_is_asked_is_the_model_and_the_format() -> None:
    assert fields() == [("model", "x-1"), ("response_format", "json")]


def test_a_call_goes_to_its_place_with_our_key() -> None:
    request = call().request
    assert (request.method, request.url) == ("POST", "https://api.test/v1/audio/transcriptions")
    assert ("Authorization", "Bearer sk-1") in request.headers
    assert call(WHISPER, task="translate").request.url == "https://api.test/v1/audio/translations"


def test_what_is_asked_for_is_sent() -> None:
    sent = fields(language="de", prompt="Grüße", temperature=0.4, logprobs=True, chunking="auto", stream=True)
    assert sent[2:] == [
        ("language", "de"),
        ("prompt", "Grüße"),
        ("temperature", "0.4"),
        ("include[]", "logprobs"),
        ("chunking_strategy", "auto"),
        ("stream", "true"),
    ]


def test_a_temperature_of_nothing_is_one() -> None:
    assert ("temperature", "0") in fields(temperature=0.0)


def test_times_are_asked_for_one_by_one() -> None:
    sent = fields(WHISPER, format="verbose_json", timestamps=("word", "segment"))
    assert sent[2:] == [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]


def test_speakers_go_with_their_voices_in_pairs() -> None:
    speakers = (KnownSpeaker("Ann", "data:a"), KnownSpeaker("Bob", "data:b"))
    sent = fields(DIARIZE, format="diarized_json", speakers=speakers)[2:]
    assert [value for name, value in sent if name == "known_speaker_names[]"] == ["Ann", "Bob"]
    assert [value for name, value in sent if name == "known_speaker_references[]"] == ["data:a", "data:b"]


def test_chunks_can_be_described() -> None:
    sent = dict(fields(chunking={"type": "server_vad", "threshold": 0.5}))
    assert sent["chunking_strategy"] == '{"type":"server_vad","threshold":0.5}'


@pytest.mark.parametrize(("seconds", "expected"), [(5.0, False), (29.0, False), (29.9, True), (600.0, True)])
def test_a_longer_recording_with_speakers_is_cut_into_chunks(seconds: float, expected: bool) -> None:
    audio = Attached("audio/mpeg", SILENCE, seconds)
    assert (("chunking_strategy", "auto") in fields(DIARIZE, audio=audio)) == expected
    assert ("chunking_strategy", "auto") not in fields(PLAIN, audio=audio)


def test_languages_and_keywords_are_hints() -> None:
    sent = fields(HINTED, language="de", languages=("en", "de"), keywords=("Cloche", "Trio"))
    assert sent[2:] == [
        ("languages[]", "de"),
        ("languages[]", "en"),
        ("keywords[]", "Cloche"),
        ("keywords[]", "Trio"),
    ]


def test_text_is_asked_for_as_json_which_tells_the_usage() -> None:
    assert ("response_format", "json") in fields(format="text")


def test_what_does_not_stream_is_not_asked_to_and_answers_late() -> None:
    whole = call(WHISPER, stream=True)
    assert whole.answers_late
    assert "stream" not in dict(fields(WHISPER, stream=True))
    assert not call(PLAIN, stream=True).answers_late
    assert call(PLAIN).answers_late


def test_a_request_that_is_too_large_with_its_form_is_refused() -> None:
    audio = Attached("audio/mpeg", FileInMemory(bytes(MAX_BYTES - 100)), 5.0)
    with pytest.raises(MediaRefused, match=r"^file:"):
        call(audio=audio)


def test_what_a_model_cannot_do_is_refused() -> None:
    with pytest.raises(RequestNotSupported, match=r"^response_format: openai/x answers with json, text"):
        call(format="srt")


def test_a_refusal_is_read_as_openai_writes_it() -> None:
    body = b'{"error": {"message": "Invalid file format", "type": "invalid_request_error"}}'
    failed = call().read_refusal(400, {}, body)
    assert failed == Failed("bad_request", "Invalid file format", "openai", 400, "invalid_request_error")


def test_subtitles_are_read_as_text_whatever_they_are_called() -> None:
    reader = call(WHISPER, format="srt").open_reader("application/json")
    reader.feed(b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n")
    assert not any(isinstance(event, Failed) for event in reader.finish())


def test_speakers_cost_more_tokens_than_words_alone() -> None:
    assert output_tokens_per_second("diarized_json") > output_tokens_per_second("json") > 0
