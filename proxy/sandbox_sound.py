"""What the sandbox provider makes of a recording: it says what it is and how much it got, in every format. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import msgspec

from proxy.provider import UpstreamRequest
from proxy.sse import encode_event

BYTES_PER_SECOND = 32_000
"""Of sound, since nobody listens to it here."""

_FIELD = re.compile(rb'name="([a-z_\[\]]+)"\r\n\r\n(.*?)\r\n--', re.DOTALL)
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class PlayedTranscript:
    """An answer, with its content type."""

    media_type: str
    pieces: Iterator[bytes]


def is_transcription(request: UpstreamRequest) -> bool:
    return request.url.endswith(("/audio/transcriptions", "/audio/translations"))


def play_transcript(request: UpstreamRequest) -> PlayedTranscript:
    """The answer to a form of OpenAI's audio dialect."""
    fields = {name.decode(): value.decode("utf-8", "replace") for name, value in _FIELD.findall(request.body)}
    size_bytes = request.tail.file.size_bytes if request.tail else 0
    text = f"This is Cloche's sandbox, not a model. It got {size_bytes} bytes of sound."
    seconds = max(1, ceil(size_bytes / BYTES_PER_SECOND))
    format_ = fields.get("response_format", "json")
    if fields.get("stream") == "true":
        return PlayedTranscript("text/event-stream", _play_stream(text, seconds, diarized=format_ == "diarized_json"))
    if format_ in {"srt", "vtt"}:
        return PlayedTranscript("text/plain; charset=utf-8", iter([_write_subtitles(text, seconds, format_)]))
    return PlayedTranscript("application/json", iter([_encode(_build_whole(text, seconds, fields))]))


def _play_stream(text: str, seconds: int, *, diarized: bool) -> Iterator[bytes]:
    if diarized:
        yield encode_event(_encode(_build_segment(text, seconds)))
    else:
        for word in re.findall(r"\s*\S+", text):
            yield encode_event(_encode({"type": "transcript.text.delta", "delta": word}))
    usage = {"type": "duration", "seconds": seconds}
    yield encode_event(_encode({"type": "transcript.text.done", "text": text, "usage": usage}))
    yield encode_event(b"[DONE]")


def _build_whole(text: str, seconds: int, fields: dict[str, str]) -> dict[str, object]:
    body: dict[str, object] = {"text": text, "usage": {"type": "duration", "seconds": seconds}}
    match fields.get("response_format"):
        case "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": float(seconds), "text": text}
            body |= {"task": "transcribe", "language": "english", "duration": float(seconds), "segments": [segment]}
        case "diarized_json":
            body |= {"task": "transcribe", "duration": float(seconds), "segments": [_build_segment(text, seconds)]}
    if fields.get("timestamp_granularities[]") == "word":
        body["words"] = _build_words(text, seconds)
    return body


def _build_segment(text: str, seconds: int) -> dict[str, object]:
    """Of a recording with one speaker."""
    times = {"start": 0.0, "end": float(seconds)}
    return {"type": "transcript.text.segment", "id": "seg_0", "speaker": "A", "text": text, **times}


def _build_words(text: str, seconds: int) -> list[dict[str, object]]:
    words = text.split()
    step = seconds / len(words)
    return [
        {"word": word, "start": round(n * step, 2), "end": round((n + 1) * step, 2)} for n, word in enumerate(words)
    ]


def _write_subtitles(text: str, seconds: int, format_: str) -> bytes:
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    if format_ == "vtt":
        return f"WEBVTT\n\n00:00:00.000 --> {hours:02}:{minutes:02}:{rest:02}.000\n{text}\n\n".encode()
    return f"1\n00:00:00,000 --> {hours:02}:{minutes:02}:{rest:02},000\n{text}\n\n\n".encode()
