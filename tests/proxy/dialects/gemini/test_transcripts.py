"""A recording as a chat with Gemini."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import Attached, ChatRequest, Text
from proxy.dialects.gemini.call import build_body
from proxy.dialects.gemini.transcripts import INSTRUCTION_TOKENS, MAX_OUTPUT_TOKENS, build_chat
from proxy.errors import RequestNotSupported
from proxy.provider import Target
from proxy.tokens import find_tokenizer
from proxy.transcript import KnownSpeaker, TranscriptRequest
from tests.proxy.file_calls import make_file

TARGET = Target("https://google.test/v1beta", "k", "gemini-3-flash-preview", {"transcription": True})
SOUND = Attached("audio/mp4", make_file(10), 7.2)
REQUEST = TranscriptRequest("google/gemini-3-flash-preview-transcribe", SOUND)


def instruction_of(chat: ChatRequest) -> str:
    [message] = chat.messages
    sound, text = message.parts
    assert sound is SOUND
    assert isinstance(text, Text)
    return text.text


def test_the_recording_stands_before_what_is_asked_of_it() -> None:
    chat = build_chat(REQUEST, TARGET)
    told = instruction_of(chat)
    assert "word for word" in told
    assert "ISO" not in told
    assert "spelling" not in told
    assert chat.task_type == "voice_transcription"


def test_language_and_vocabulary_are_hints() -> None:
    told = instruction_of(build_chat(replace(REQUEST, language="de", prompt="Cloche, Trio"), TARGET))
    assert "ISO 639-1 code: de." in told
    assert told.endswith("\nCloche, Trio")
    several = replace(REQUEST, language="de", languages=("de", "en"), keywords=("Quart", "h11"), prompt="Trio")
    told = instruction_of(build_chat(several, TARGET))
    assert "ISO 639-1 code: de, en." in told
    assert told.endswith("nothing else:\nQuart\nh11\nTrio")


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_what_we_say_ourselves_is_no_longer_than_is_held_for(task: Any) -> None:
    wordy = build_chat(replace(REQUEST, task=task, language="de", prompt="x"), TARGET)
    tokenizer = find_tokenizer("gemini-3-flash-preview")
    assert 100 < tokenizer.estimate(tokenizer.count(instruction_of(wordy))) < INSTRUCTION_TOKENS


def test_a_translation_is_english() -> None:
    told = instruction_of(build_chat(replace(REQUEST, task="translate"), TARGET))
    assert "in English" in told
    assert "word for word" not in told


def test_it_thinks_little_and_writes_no_more_than_can_be_said() -> None:
    chat = build_chat(replace(REQUEST, temperature=0.2), TARGET)
    config: dict[str, Any] = build_body(chat, TARGET)["generationConfig"]
    assert config == {
        "temperature": 0.2,
        "maxOutputTokens": 8 * 15 + 1024,
        "thinkingConfig": {"thinkingLevel": "minimal"},
    }
    long = replace(REQUEST, audio=replace(SOUND, seconds=9 * 3600))
    assert build_chat(long, TARGET).max_output_tokens == MAX_OUTPUT_TOKENS


def test_a_model_that_cannot_think_is_not_told_about_it() -> None:
    old = replace(TARGET, provider_model="gemini-2.0-flash")
    assert "thinkingConfig" not in build_body(build_chat(REQUEST, old), old)["generationConfig"]


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("stream", [True, False])
def test_text_is_what_it_gives(format: Any, stream: bool) -> None:
    assert build_chat(replace(REQUEST, format=format, stream=stream), TARGET) == build_chat(REQUEST, TARGET)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *[({"format": name}, f"response_format {name}") for name in ("srt", "vtt", "verbose_json", "diarized_json")],
        ({"timestamps": ("word",)}, "timestamp_granularities"),
        ({"logprobs": True}, "logprobs"),
        ({"chunking": "auto"}, "chunking_strategy"),
        ({"speakers": (KnownSpeaker("a", "data:"),)}, "known_speaker_names"),
        ({"audio": replace(SOUND, media_type="video/mp4")}, "file: a video"),
    ],
)
def test_what_it_does_not_tell_is_refused_by_its_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestNotSupported, match=told):
        build_chat(replace(REQUEST, **changes), TARGET)
