"""Reading transcripts as OpenAI writes them: JSON in three kinds, subtitles, and streams.

https://platform.openai.com/docs/api-reference/audio/json-object and what follows there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy import answer
from proxy.answer import NOT_JSON, WholeReader
from proxy.dialects.openai_audio.usage import read_usage
from proxy.dialects.openai_chat.errors import find_error, read_error
from proxy.events import ChatEvent, Failed, Finished, Logprobs, TextDelta
from proxy.failures import failed_here
from proxy.provider import Reader
from proxy.sse import ServerSentEvent
from proxy.tokens import DEFAULT, Tokenizer
from proxy.transcript import TranscriptFacts, TranscriptFormat, TranscriptSegment, TranscriptWord

SUBTITLES = frozenset({"srt", "vtt"})


@dataclass(frozen=True, slots=True)
class Reading:
    """What must be known of a request to read its answer: the format that was asked for, and how to count what the
    provider does not.
    """

    format: TranscriptFormat = "json"
    tokens_per_second: int = 10
    tokenizer: Tokenizer = DEFAULT


class _Transcript(msgspec.Struct):
    """A whole answer, or an event of a stream, which has a type."""

    type: Any = None
    text: Any = None
    delta: Any = None
    segments: Any = None
    words: Any = None
    logprobs: Any = None
    language: Any = None
    languages: Any = None
    duration: Any = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Transcript).decode
_decode_item = msgspec.json.Decoder(dict[str, Any]).decode


def open_reader(provider: str, media_type: str, reading: Reading = Reading()) -> Reader:
    """For an event stream or a whole answer. Subtitles are text, which servers call what they like."""
    transcript = TranscriptAnswer(provider, reading)
    if reading.format in SUBTITLES:
        return WholeReader(provider, transcript)
    return answer.open_reader(provider, transcript, media_type)


class TranscriptAnswer:
    """One answer in this dialect."""

    def __init__(self, provider: str, reading: Reading) -> None:
        self._provider = provider
        self._reading = reading
        self._has_deltas = False
        self._has_said = False
        self._is_done = False

    @property
    def is_done(self) -> bool:
        return self._is_done

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        data = event.data
        if data[:6] == b"[DONE]":
            self._is_done = True
        elif data and not data.isspace():
            self._read_event(event.name, data, events)

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        """Nothing but Finished is left of a recording in which nobody speaks."""
        if self._reading.format in SUBTITLES and not body.lstrip().startswith(b"{"):
            self._read_subtitles(body, events)
            return
        transcript = self._decode(body, events)
        if transcript is None:
            return
        if not isinstance(transcript.text, str):
            events.append(find_error(self._provider, body) or self._no_transcript())
            return
        _say(transcript.text, transcript.logprobs, events)
        events += [TranscriptSegment(item) for item in _items(transcript.segments)]
        events += [TranscriptWord(item) for item in _items(transcript.words)]
        self._end(transcript, transcript.text, events)

    def _read_subtitles(self, body: bytes, events: list[ChatEvent]) -> None:
        text = body.decode("utf-8", "replace")
        begun = text.lstrip("\ufeff \t\r\n")
        if begun and not (begun.startswith("WEBVTT") if self._reading.format == "vtt" else begun[0].isdecimal()):
            events.append(self._no_transcript())
            return
        events += [TextDelta(text)] if text else []
        events.append(Finished("stop"))

    def _read_event(self, name: str, data: bytes, events: list[ChatEvent]) -> None:
        transcript = self._decode(data, events)
        if transcript is None:
            return
        if transcript.error is not None:
            events.append(read_error(self._provider, transcript.error))
        elif name == "error" or transcript.type == "error":
            events.append(find_error(self._provider, data) or read_error(self._provider, None))
        elif transcript.type == "transcript.text.delta":
            self._read_delta(transcript, events)
        elif transcript.type == "transcript.text.segment":
            self._read_segment(transcript, data, events)
        elif transcript.type == "transcript.text.done":
            self._read_done(transcript, events)

    def _read_delta(self, transcript: _Transcript, events: list[ChatEvent]) -> None:
        if isinstance(transcript.delta, str) and transcript.delta:
            self._has_deltas = self._has_said = True
            _say(transcript.delta, transcript.logprobs, events)

    def _read_segment(self, transcript: _Transcript, data: bytes, events: list[ChatEvent]) -> None:
        """The text of a segment is said with it, unless it has come in deltas before."""
        try:
            item = _decode_item(data)
        except NOT_JSON:  # in a member that nobody else has looked into
            events.append(self._no_transcript())
            return
        if isinstance(transcript.text, str) and transcript.text and not self._has_deltas:
            self._has_said = True
            events.append(TextDelta(transcript.text))
        events.append(TranscriptSegment(item))

    def _read_done(self, transcript: _Transcript, events: list[ChatEvent]) -> None:
        text = transcript.text if isinstance(transcript.text, str) else ""
        if not self._has_said:
            _say(text, transcript.logprobs, events)
        self._end(transcript, text, events)

    def _end(self, transcript: _Transcript, text: str, events: list[ChatEvent]) -> None:
        if (facts := _read_facts(transcript)) != TranscriptFacts():
            events.append(facts)
        usage = read_usage(transcript.usage, text, self._reading.tokens_per_second, self._reading.tokenizer)
        if usage is not None:
            events.append(usage)
        events.append(Finished("stop"))

    def _decode(self, data: bytes, events: list[ChatEvent]) -> _Transcript | None:
        try:
            return _decode(data)
        except NOT_JSON:
            events.append(self._no_transcript())
            return None

    def _no_transcript(self) -> Failed:
        return failed_here(self._provider, "parsing_error", "the provider sent something that is no transcript")


def _say(text: str, logprobs: object, events: list[ChatEvent]) -> None:
    if text:
        events.append(TextDelta(text))
    if items := _items(logprobs):
        events.append(Logprobs(tuple(items)))


def _items(value: object) -> list[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _read_facts(transcript: _Transcript) -> TranscriptFacts:
    language, duration = transcript.language, transcript.duration
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)
    return TranscriptFacts(
        language if isinstance(language, str) and language else None,
        float(duration) if is_number and 0 <= duration < 10**9 else None,
        tuple(_items(transcript.languages)),
    )
