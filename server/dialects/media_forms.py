"""Uploads of sound and video, and what is answered to them: the types that describe both. Pure.

Forms are read by transcript_wishes.py and video_wishes.py, answers written by transcripts.py and video_wishes.py; tests
hold them to these types.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from proxy.transcript import Timestamps, TranscriptFormat
from server.operations import UploadedFile

Language = Annotated[str, msgspec.Meta(description="ISO 639-1, as in `en`; of `en-US` the part before the dash.")]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=1)]
Milliseconds = Annotated[float, msgspec.Meta(ge=1)]


class SoundForm(msgspec.Struct):
    """Sound that is to be written down: mp3, m4a, wav, webm, ogg, flac, aac, whatever its name and type say.
    `durationMs` is passed over: how long it lasts is found in the file.
    """

    file: UploadedFile
    model: str
    language: Language | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET
    duration_ms: Milliseconds | UnsetType = msgspec.field(default=UNSET, name="durationMs")


class TranslationForm(msgspec.Struct):
    """Sound that is to be written down in English."""

    file: UploadedFile
    model: str
    prompt: str | UnsetType = UNSET
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET


class TranscriptionForm(msgspec.Struct):
    """Sound that is to be written down, with all that OpenAI's models may be asked for. What a model cannot do is
    refused.
    """

    file: UploadedFile
    model: str
    language: Language | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    response_format: TranscriptFormat | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    timestamp_granularities: Sequence[Timestamps] | UnsetType = msgspec.field(
        default=UNSET, name="timestamp_granularities[]"
    )
    include: Sequence[Literal["logprobs"]] | UnsetType = msgspec.field(default=UNSET, name="include[]")
    chunking_strategy: str | UnsetType = UNSET
    known_speaker_names: Sequence[str] | UnsetType = msgspec.field(default=UNSET, name="known_speaker_names[]")
    known_speaker_references: Sequence[str] | UnsetType = msgspec.field(
        default=UNSET, name="known_speaker_references[]"
    )
    languages: Sequence[Language] | UnsetType = msgspec.field(default=UNSET, name="languages[]")
    keywords: Sequence[str] | UnsetType = msgspec.field(default=UNSET, name="keywords[]")


class VideoForm(msgspec.Struct, rename="camel"):
    """A video, and what is to be found out of it. Of each second the model looks at `framerate` pictures."""

    video: UploadedFile
    prompt: str
    duration_ms: Milliseconds
    model: str | UnsetType = UNSET
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | UnsetType = UNSET
    system_prompt: str | UnsetType = UNSET
    framerate: Annotated[float, msgspec.Meta(gt=0, le=24)] | UnsetType = UNSET
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET
    thinking_budget: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class MediaUsage(msgspec.Struct, rename="camel"):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class VideoAnalysis(msgspec.Struct, rename="camel"):
    """`cost` is what was charged, in US dollars."""

    analysis: str
    usage: MediaUsage
    cost: Decimal
    request_id: str


class SoundTranscript(msgspec.Struct, rename="camel"):
    """`duration` is in seconds, `cost` what was charged, in US dollars."""

    text: str
    duration: float
    usage: MediaUsage
    cost: Decimal
    request_id: str
    language: str | UnsetType = UNSET
    segments: Sequence[Mapping[str, Any]] | UnsetType = UNSET


class TranscriptUsage(msgspec.Struct):
    """By `tokens`, or by `duration` in seconds, as the model is paid. `cost` is what was charged, in US dollars."""

    type: Literal["tokens", "duration"]
    cost: Decimal
    seconds: int | UnsetType = UNSET
    input_tokens: int | UnsetType = UNSET
    input_token_details: Mapping[str, int] | UnsetType = UNSET
    output_tokens: int | UnsetType = UNSET
    total_tokens: int | UnsetType = UNSET


class Transcript(msgspec.Struct):
    """`task`, `duration` and `segments` come with `verbose_json` and `diarized_json`, `language` and `words` with the
    former alone.
    """

    text: str
    usage: TranscriptUsage
    task: Literal["transcribe", "translate"] | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    language: str | UnsetType = UNSET
    languages: Sequence[Mapping[str, Any]] | UnsetType = UNSET
    segments: Sequence[Mapping[str, Any]] | UnsetType = UNSET
    words: Sequence[Mapping[str, Any]] | UnsetType = UNSET
    logprobs: Sequence[Mapping[str, Any]] | UnsetType = UNSET
