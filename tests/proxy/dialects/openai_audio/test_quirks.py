"""What models take is data, and what they do not take is refused by its name."""

from typing import Any

import pytest

from proxy.chat import Attached
from proxy.dialects.openai_audio.quirks import check_request, read_quirks
from proxy.errors import RequestNotSupported
from proxy.transcript import KnownSpeaker, TranscriptRequest
from storage.seed.reading import read_seed
from tests.sounds import SILENCE

MODELS = {model.id: model.capabilities for model in read_seed().models}
SPEAKER = KnownSpeaker("Ann", "data:audio/wav;base64,UklGRg==")
WHISPER, PLAIN, DIARIZE, HINTED = (
    f"openai/{name}" for name in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-transcribe-diarize", "gpt-transcribe")
)


def check(model: str, **asked: Any) -> None:
    request = TranscriptRequest(model, Attached("audio/mpeg", SILENCE, 5.0), **asked)
    check_request(request, read_quirks("openai", "OpenAI", MODELS[model]))


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (WHISPER, {"format": "srt", "prompt": "Names", "language": "de"}),
        (WHISPER, {"format": "verbose_json", "timestamps": ("word", "segment"), "temperature": 0.2}),
        (WHISPER, {"task": "translate", "format": "vtt", "prompt": "Names"}),
        (WHISPER, {"stream": True}),
        (PLAIN, {"format": "text", "stream": True}),
        (PLAIN, {"logprobs": True, "chunking": "auto"}),
        (DIARIZE, {"format": "diarized_json", "speakers": (SPEAKER,) * 4, "stream": True}),
        (HINTED, {"languages": ("de", "en"), "keywords": ("Cloche",), "prompt": "A meeting"}),
    ],
)
def test_what_a_model_can_do_is_let_through(model: str, asked: dict[str, Any]) -> None:
    check(model, **asked)


@pytest.mark.parametrize(
    ("model", "asked", "field"),
    [
        (WHISPER, {"format": "diarized_json"}, "response_format"),
        (WHISPER, {"logprobs": True}, "include"),
        (WHISPER, {"speakers": (SPEAKER,)}, "known_speaker_names"),
        (WHISPER, {"timestamps": ("word",)}, "timestamp_granularities"),
        (WHISPER, {"task": "translate", "language": "de"}, "language"),
        (WHISPER, {"task": "translate", "format": "verbose_json", "timestamps": ("word",)}, "timestamp_granularities"),
        (WHISPER, {"task": "translate", "chunking": "auto"}, "chunking_strategy"),
        (WHISPER, {"languages": ("de", "en")}, "languages"),
        (PLAIN, {"format": "srt"}, "response_format"),
        (PLAIN, {"format": "vtt"}, "response_format"),
        (PLAIN, {"format": "verbose_json"}, "response_format"),
        (PLAIN, {"format": "text", "logprobs": True}, "include"),
        (PLAIN, {"task": "translate"}, "model"),
        (PLAIN, {"keywords": ("Cloche",)}, "keywords"),
        (PLAIN, {"timestamps": ("segment",)}, "timestamp_granularities"),
        (DIARIZE, {"prompt": "Names"}, "prompt"),
        (DIARIZE, {"format": "diarized_json", "logprobs": True}, "include"),
        (DIARIZE, {"speakers": (SPEAKER,) * 5}, "known_speaker_names"),
        (HINTED, {"format": "verbose_json"}, "response_format"),
        (HINTED, {"logprobs": True}, "include"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_its_name(model: str, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestNotSupported, match=rf"^{field}"):
        check(model, **asked)


def test_a_model_of_which_nothing_is_said_is_asked_for_text_and_json_alone() -> None:
    quirks = read_quirks("openai", "OpenAI", {"transcript_formats": "srt", "diarizes": "yes"})
    assert quirks.formats == {"json", "text"}
    assert not any((quirks.streams, quirks.translates, quirks.diarizes, quirks.takes_hints, quirks.tells_logprobs))
    assert quirks.takes_prompt
