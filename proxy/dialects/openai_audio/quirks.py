"""What a model takes of OpenAI's transcription API: no two of its models take the same.

https://developers.openai.com/api/docs/guides/speech-to-text, and what one of them was seen to refuse or to ignore:
https://github.com/michaelwilhelmsen/humla/issues/128
"""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import RequestNotSupported
from proxy.transcript import TranscriptRequest

MAX_SPEAKERS = 4


@dataclass(frozen=True, slots=True)
class AudioQuirks:
    """A server, and one of its models. `formats` are those that a caller may ask for."""

    code: str
    name: str
    formats: frozenset[str] = frozenset({"json", "text"})
    streams: bool = False
    """What does not stream answers in one piece instead, as OpenAI does."""
    translates: bool = False
    diarizes: bool = False
    """Tells who speaks, and takes samples of voices."""
    takes_prompt: bool = True
    takes_hints: bool = False
    """Several languages that it may be, and keywords; it ignores the one language of the others."""
    tells_logprobs: bool = False


def read_quirks(code: str, name: str, capabilities: Mapping[str, object]) -> AudioQuirks:
    """By the catalogue's `transcript_formats`, `streams_transcript`, `translates`, `diarizes`, `transcript_hints` and
    `transcript_logprobs`. A model of which nothing is said is asked for JSON, in one piece.
    """
    formats = capabilities.get("transcript_formats")
    named = frozenset(str(one) for one in formats) if isinstance(formats, list | tuple) else frozenset({"json", "text"})
    diarizes = capabilities.get("diarizes") is True
    return AudioQuirks(
        code,
        name,
        formats=named,
        streams=capabilities.get("streams_transcript") is True,
        translates=capabilities.get("translates") is True,
        diarizes=diarizes,
        takes_prompt=not diarizes,
        takes_hints=capabilities.get("transcript_hints") is True,
        tells_logprobs=capabilities.get("transcript_logprobs") is True,
    )


def check_request(request: TranscriptRequest, quirks: AudioQuirks) -> None:
    """Raises RequestNotSupported, naming the field: OpenAI refuses some of these, and ignores others without a word."""
    translated = request.task == "translate"
    one_of = ", ".join(sorted(quirks.formats))
    wrong = {
        f"model: {request.model} does not translate": translated and not quirks.translates,
        f"response_format: {request.model} answers with {one_of}": request.format not in quirks.formats,
        "response_format: translations know no speakers": translated and request.format == "diarized_json",
        "language: a translation finds out itself what is spoken": translated and _names_language(request),
        "languages: this model takes one language": bool(request.languages) and not quirks.takes_hints,
        "keywords: this model takes none; say them in the prompt": bool(request.keywords) and not quirks.takes_hints,
        "prompt: this model takes none": bool(request.prompt) and not quirks.takes_prompt,
        "timestamp_granularities[]: only of verbose_json": bool(request.timestamps) and not _is_timed(request),
        "include[]: this model tells no logprobs here": request.logprobs and not _tells_logprobs(request, quirks),
        "known_speaker_names[]: this model tells no speakers apart": bool(request.speakers) and not quirks.diarizes,
        f"known_speaker_names[]: at most {MAX_SPEAKERS}": len(request.speakers) > MAX_SPEAKERS,
        "chunking_strategy: not of a translation": translated and request.chunking is not None,
    }
    for complaint, is_so in wrong.items():
        if is_so:
            raise RequestNotSupported(complaint)


def _names_language(request: TranscriptRequest) -> bool:
    return bool(request.language or request.languages)


def _is_timed(request: TranscriptRequest) -> bool:
    return request.format == "verbose_json" and request.task == "transcribe"


def _tells_logprobs(request: TranscriptRequest, quirks: AudioQuirks) -> bool:
    return quirks.tells_logprobs and request.format == "json" and request.task == "transcribe"
