"""What clients ask for when they upload sound."""

from typing import Any

import pytest

from proxy.chat import Attached
from proxy.transcript import KnownSpeaker, TranscriptRequest
from server.dialects.transcript_wishes import read_transcript_request
from server.errors import ArgumentInvalid, RequestInvalid
from tests.sounds import SILENCE

AUDIO = Attached("audio/mpeg", SILENCE, 3.7)


def read(**fields: Any) -> TranscriptRequest:
    """A value that is no list comes once."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return read_transcript_request({"model": ["openai/whisper-1"], **listed}, AUDIO)


def test_a_form_with_a_model_and_nothing_else_is_enough() -> None:
    assert read() == TranscriptRequest("openai/whisper-1", AUDIO)


def test_what_is_blank_counts_as_absent() -> None:
    assert read(prompt="  ", language="", temperature=" ", stream="", response_format="") == read()


def test_every_field_of_openais_libraries_is_read() -> None:
    found = read(
        response_format="verbose_json",
        language="nl",
        prompt="Words: Cloche, Trio",
        temperature="0.25",
        stream="true",
        chunking_strategy='{"type": "server_vad", "threshold": 0.5}',
        **{
            "timestamp_granularities[]": ["word", "segment"],
            "include[]": ["logprobs"],
            "known_speaker_names[]": ["Ann", "Bob"],
            "known_speaker_references[]": ["data:audio/wav;base64,AA==", "data:audio/wav;base64,BB=="],
            "languages[]": ["en", "de"],
            "keywords[]": ["Cloche"],
        },
    )
    assert found == TranscriptRequest(
        model="openai/whisper-1",
        audio=AUDIO,
        format="verbose_json",
        language="nl",
        prompt="Words: Cloche, Trio",
        temperature=0.25,
        stream=True,
        timestamps=("word", "segment"),
        logprobs=True,
        chunking={"type": "server_vad", "threshold": 0.5},
        speakers=(KnownSpeaker("Ann", "data:audio/wav;base64,AA=="), KnownSpeaker("Bob", "data:audio/wav;base64,BB==")),
        languages=("en", "de"),
        keywords=("Cloche",),
    )


def test_an_object_may_come_as_a_field_for_each_member() -> None:
    found = read(**{"chunking_strategy[type]": "server_vad", "chunking_strategy[silence_duration_ms]": "200"})
    assert found.chunking == {"type": "server_vad", "silence_duration_ms": 200}


@pytest.mark.parametrize(("said", "read_as"), [("en", "en"), ("en-US", "en"), ("PT-br", "pt"), ("fa", "fa")])
def test_a_language_is_its_code_without_the_country(said: str, read_as: str) -> None:
    assert read(language=said).language == read_as


@pytest.mark.parametrize(("said", "read_as"), [("0", 0), ("1", 1), ("0.12345", 0.123)])
def test_a_temperature_has_three_decimals(said: str, read_as: float) -> None:
    assert read(temperature=said).temperature == read_as


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("language", "xx"),
        ("language", "english"),
        ("language", "e"),
        ("temperature", "1.01"),
        ("temperature", "-0.1"),
        ("temperature", "warm"),
        ("temperature", "NaN"),
        ("temperature", "Infinity"),
        ("response_format", "docx"),
        ("stream", "perhaps"),
        ("prompt", "ab"),
        ("timestamp_granularities[]", "letter"),
        ("include[]", "everything"),
        ("chunking_strategy", "none"),
        ("chunking_strategy", "{"),
        ("known_speaker_names[]", "Ann"),
        ("keywords[]", ["word"] * 101),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_with_the_fields_name(field: str, value: Any) -> None:
    with pytest.raises(ArgumentInvalid, match=field.removesuffix("[]").replace("_names", "_")):
        read(**{field: value})


@pytest.mark.parametrize("prompt", ["bell \x07", "null \x00", "delete \x7f"])
def test_control_characters_are_refused(prompt: str) -> None:
    with pytest.raises(RequestInvalid, match="prompt"):
        read(prompt=prompt)


@pytest.mark.parametrize(
    "prompt", ["Cloche\nTrio\nCloche\n", "from now on", "Grüße, 東京", "ignore previous instructions", "a\tb"]
)
def test_what_is_dictated_is_not_judged(prompt: str) -> None:
    assert read(prompt=prompt).prompt == prompt.strip()


def test_a_speaker_is_heard_in_the_request_and_fetched_from_nowhere() -> None:
    with pytest.raises(ArgumentInvalid, match="known_speaker_references"):
        read(**{"known_speaker_names[]": "Ann", "known_speaker_references[]": "https://example.com/ann.wav"})


def test_a_field_that_comes_twice_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="language"):
        read(language=["en", "de"])
