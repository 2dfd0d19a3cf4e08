"""Requests to OpenAI's transcriptions and translations: https://platform.openai.com/docs/api-reference/audio."""

from collections.abc import Iterator
from functools import partial

import msgspec

from proxy.dialects.openai_audio.answer import Reading, open_reader
from proxy.dialects.openai_audio.form import build_form
from proxy.dialects.openai_audio.quirks import AudioQuirks, check_request
from proxy.dialects.openai_chat.errors import read_refusal
from proxy.media import MediaRefused
from proxy.provider import MEBIBYTE, ProviderCall, Target, UpstreamRequest
from proxy.tokens import find_tokenizer
from proxy.transcript import TranscriptFormat, TranscriptRequest

MAX_BYTES = 25 * MEBIBYTE
"""Of a whole request, as OpenAI counts: https://developers.openai.com/api/docs/guides/speech-to-text"""
TOKENS_PER_SECOND = 10
"""Of sound, as OpenAI counts it; where it counts seconds, what stands for one of them in a price."""
SPOKEN_TOKENS_PER_SECOND = 15
DIARIZED_TOKENS_PER_SECOND = 50
"""What is written of a second at most: people say two or three words in it. With who says it the recordings have 34 to
42.
"""
MAX_UNCHUNKED_SECONDS = 29
"""OpenAI says 30, and may find a recording some hundredths longer than we do."""
_STREAMED_FORMATS = frozenset({"json", "diarized_json"})


def build_call(request: TranscriptRequest, target: Target, quirks: AudioQuirks) -> ProviderCall:
    """The request as a form that ends with the file, and how its answer is read. Raises RequestNotSupported."""
    check_request(request, quirks)
    is_streamed, asked = _is_streamed(request, quirks), _asked_format(request)
    content_type, body, tail = build_form(list(_fields(request, target, quirks)), request.audio, quirks.name)
    headers = (
        ("Authorization", f"Bearer {target.api_key}"),
        ("Content-Type", content_type),
        ("Accept", "text/event-stream" if is_streamed else "*/*"),
    )
    built = UpstreamRequest(_find_url(request, target), headers, body, tail=tail)
    if built.body_bytes > MAX_BYTES:
        raise MediaRefused(f"file: with its form more than the {MAX_BYTES} bytes that {quirks.name} takes")
    reading = Reading(asked, TOKENS_PER_SECOND, find_tokenizer(target.provider_model))
    return ProviderCall(
        built,
        partial(open_reader, quirks.code, reading=reading),
        partial(read_refusal, quirks.code),
        answers_late=not is_streamed,
    )


def output_tokens_per_second(format_: TranscriptFormat) -> int:
    return DIARIZED_TOKENS_PER_SECOND if format_ == "diarized_json" else SPOKEN_TOKENS_PER_SECOND


def _find_url(request: TranscriptRequest, target: Target) -> str:
    place = "translations" if request.task == "translate" else "transcriptions"
    return f"{target.base_url.rstrip('/')}/audio/{place}"


def _asked_format(request: TranscriptRequest) -> TranscriptFormat:
    """Text is asked for as JSON: it is the same, and JSON tells the usage."""
    return "json" if request.format == "text" else request.format


def _is_streamed(request: TranscriptRequest, quirks: AudioQuirks) -> bool:
    """What comes in one piece is an answer to a request for a stream, too."""
    return request.stream and quirks.streams and _asked_format(request) in _STREAMED_FORMATS


def _fields(request: TranscriptRequest, target: Target, quirks: AudioQuirks) -> Iterator[tuple[str, str]]:
    """What is not asked for is left out, so that the provider's own default holds."""
    yield "model", target.provider_model
    yield "response_format", _asked_format(request)
    yield from _language_fields(request, quirks)
    if request.prompt:
        yield "prompt", request.prompt
    if request.temperature is not None:
        yield "temperature", f"{request.temperature:g}"
    for granularity in request.timestamps:
        yield "timestamp_granularities[]", granularity
    if request.logprobs:
        yield "include[]", "logprobs"
    if chunking := _chunking(request, quirks):
        yield "chunking_strategy", chunking
    for speaker in request.speakers:
        yield "known_speaker_names[]", speaker.name
        yield "known_speaker_references[]", speaker.sample
    if _is_streamed(request, quirks):
        yield "stream", "true"


def _language_fields(request: TranscriptRequest, quirks: AudioQuirks) -> Iterator[tuple[str, str]]:
    if request.language and not quirks.takes_hints:
        yield "language", request.language
    hints = (request.language, *request.languages) if quirks.takes_hints else ()
    for language in dict.fromkeys(hints):
        if language:
            yield "languages[]", language
    for keyword in request.keywords:
        yield "keywords[]", keyword


def _chunking(request: TranscriptRequest, quirks: AudioQuirks) -> str | None:
    """A model that tells speakers apart refuses longer recordings without it."""
    if request.chunking is None:
        return "auto" if quirks.diarizes and request.audio.seconds > MAX_UNCHUNKED_SECONDS else None
    return request.chunking if isinstance(request.chunking, str) else msgspec.json.encode(request.chunking).decode()
