"""Transcripts as clients read them: OpenAI's shapes on `/v1/audio`, and those of the shipped clients. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.collected import Collected
from proxy.dialects.openai_audio import TOKENS_PER_SECOND
from proxy.events import Cancelled, ChatEvent, Completed, Failed, Logprobs, TextDelta
from proxy.sse import encode_event
from proxy.transcript import TranscriptRequest, TranscriptSegment
from server.dialects.openai import DONE, encode_broken
from server.errors import CANCELLED, tell_failed

TEXT_FORMATS = frozenset({"text", "srt", "vtt"})
"""These are told as plain text, the others as JSON."""

_encode = msgspec.json.encode


def encode_openai(request: TranscriptRequest, collected: Collected, *, by_duration: bool) -> bytes:
    """As OpenAI answers; with `by_duration` usage tells seconds, as of models that are paid by them."""
    if request.format in TEXT_FORMATS:
        return collected.text.encode()
    body: dict[str, Any] = {"text": collected.text}
    if request.format != "json":
        body = {"task": request.task, "duration": _duration(request, collected)} | body
        body["segments"] = [segment.item for segment in collected.segments]
    if request.format == "verbose_json":
        body["language"] = collected.facts.language or request.language or ""
        body |= {"words": [word.item for word in collected.words]} if collected.words else {}
    if collected.logprobs:
        body["logprobs"] = collected.logprobs
    if collected.facts.languages:
        body["languages"] = collected.facts.languages
    if isinstance(collected.ended, Completed):
        body["usage"] = _usage(collected.ended, by_duration=by_duration)
    return _encode(body)


def encode_shipped(request: TranscriptRequest, collected: Collected, request_id: str) -> bytes:
    """`text`, and what iOS reads besides; what it took and cost for whoever wants to know."""
    body: dict[str, Any] = {"text": collected.text, "duration": _duration(request, collected), "requestId": request_id}
    if language := collected.facts.language or request.language:
        body["language"] = language
    if collected.segments:
        body["segments"] = [segment.item for segment in collected.segments]
    if isinstance(collected.ended, Completed):
        body["usage"] = tell_usage(collected.ended)
        body["cost"] = msgspec.Raw(collected.ended.cost_usd.encode())
    return _encode(body)


class OpenAiTranscriptEncoder:
    """Encodes one stream for `/v1`: deltas, or segments where those are asked for, then the whole, then `[DONE]`."""

    def __init__(self, request: TranscriptRequest, *, by_duration: bool) -> None:
        self._request = request
        self._by_duration = by_duration
        self._collected = Collected()

    def open(self) -> bytes:
        return b""

    def encode(self, events: list[ChatEvent]) -> bytes:
        self._collected.add(events)
        return b"".join([self._encode_one(event, following) for event, following in _with_logprobs(events)])

    def _encode_one(self, event: ChatEvent, logprobs: Sequence[Mapping[str, object]]) -> bytes:
        match event:
            case TextDelta(text) if self._request.format != "diarized_json":
                told = {"logprobs": logprobs} if logprobs else {}
                return _event("transcript.text.delta", {"delta": text, **told})
            case TranscriptSegment(item) if self._request.format == "diarized_json":
                return _event("transcript.text.segment", item)
            case Completed():
                return self._complete(event) + DONE
            case Failed():
                return encode_broken(tell_failed(event), event.code)
            case Cancelled():
                return encode_broken(CANCELLED, "request_cancelled")
        return b""

    def _complete(self, completed: Completed) -> bytes:
        usage = _usage(completed, by_duration=self._by_duration)
        told = {"logprobs": self._collected.logprobs} if self._collected.logprobs else {}
        return _event("transcript.text.done", {"text": self._collected.text.strip(), **told, "usage": usage})


class ShippedTranscriptEncoder:
    """Encodes one stream for `/api/audio/transcriptions/stream`: pieces of text, and `done` at the good end alone.

    All of it in ASCII, for iOS takes each byte for a character. A failure has no `done`, which its decoder wants.
    """

    def open(self) -> bytes:
        return b""

    def encode(self, events: list[ChatEvent]) -> bytes:
        return b"".join([self._encode_one(event) for event in events])

    def _encode_one(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta(text):
                return _piece({"text": text, "done": False})
            case Completed(_, cost):
                used = {"usage": tell_usage(event), "cost": msgspec.Raw(cost.encode())}
                return _piece({"text": "", "done": True, **used})
            case Failed():
                return _piece({"error": {"code": event.code, "message": tell_failed(event)}})
            case Cancelled():
                return _piece({"error": {"code": "request_cancelled", "message": CANCELLED}})
        return b""


def tell_usage(completed: Completed) -> dict[str, int]:
    """As the shipped clients read it of what they upload."""
    usage = completed.usage
    return {
        "promptTokens": usage.prompt_tokens,
        "completionTokens": usage.completion_tokens,
        "totalTokens": usage.prompt_tokens + usage.completion_tokens,
        "cachedTokens": usage.cache_read_tokens,
    }


def _piece(body: Mapping[str, object]) -> bytes:
    return encode_event(_as_ascii(_encode(body)))


def _as_ascii(encoded: bytes) -> bytes:
    r"""JSON with `\uXXXX` for all that is not ASCII, in pairs beyond the first plane."""
    if encoded.isascii():
        return encoded
    return "".join(c if c < "\x80" else _escape(c) for c in encoded.decode()).encode("ascii")


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _event(type_: str, members: Mapping[str, object]) -> bytes:
    return encode_event(_encode({"type": type_, **members}))


def _with_logprobs(events: list[ChatEvent]) -> list[tuple[ChatEvent, Sequence[Mapping[str, object]]]]:
    """Each event with the log probabilities that directly follow it."""
    following = [*events[1:], None]
    return [
        (event, after.content if isinstance(after, Logprobs) else ())
        for event, after in zip(events, following, strict=True)
    ]


def _duration(request: TranscriptRequest, collected: Collected) -> float:
    """As the provider heard it, else as it was measured here."""
    told = collected.facts.duration_seconds
    return round(request.audio.seconds, 3) if told is None else told


def _usage(completed: Completed, *, by_duration: bool) -> dict[str, object]:
    """In one of OpenAI's two shapes. `cost` is the very charge, as everywhere on `/v1`."""
    cost = msgspec.Raw(completed.cost_usd.encode())
    usage = completed.usage
    if by_duration:
        return {"type": "duration", "seconds": usage.prompt_tokens // TOKENS_PER_SECOND, "cost": cost}
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": {
            "audio_tokens": usage.input_audio_tokens,
            "text_tokens": usage.prompt_tokens - usage.input_audio_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "cost": cost,
    }
