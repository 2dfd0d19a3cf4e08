"""The vocabulary of transcription: what a caller asks for, and what an answer has beyond its text.

Segments, words and tokens travel as JSON, as their provider gave them: their members differ from model to model, and
clients know them by OpenAI's names: https://platform.openai.com/docs/api-reference/audio
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from proxy.chat import Attached

TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
Timestamps = Literal["word", "segment"]


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """`sample` is a data URL of some seconds of this voice."""

    name: str
    sample: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TranscriptRequest:
    """One recording to be written down, in its own language, or with the task `translate` in English.

    `language` is ISO 639-1; `languages` are those that it may be, where a model takes several, and `keywords` what may
    be said. `chunking` is `auto` or an object, as OpenAI has it. `stream` asks the provider for pieces.
    """

    model: str
    audio: Attached
    format: TranscriptFormat = "json"
    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None = None
    prompt: str | None = field(default=None, repr=False)
    temperature: float | None = None
    stream: bool = False
    timestamps: tuple[Timestamps, ...] = ()
    logprobs: bool = False
    chunking: str | Mapping[str, object] | None = None
    speakers: tuple[KnownSpeaker, ...] = ()
    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = field(default=(), repr=False)
    task_type: str = "voice_transcription"
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """A stretch of speech: `start`, `end`, `text`, and what else its format has (`speaker`, `avg_logprob`, …)."""

    item: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TranscriptWord:
    """`word`, `start`, `end`."""

    item: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TranscriptFacts:
    """What the provider found out of the whole recording; None for what it did not say."""

    language: str | None = None
    duration_seconds: float | None = None
    languages: tuple[Mapping[str, object], ...] = ()
