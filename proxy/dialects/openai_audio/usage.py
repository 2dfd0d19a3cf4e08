"""The usage of a transcription: tokens, or the seconds that were heard."""

from math import ceil

import msgspec

from proxy.events import Usage
from proxy.tokens import Tokenizer

MAX_TOKENS = 10**12
"""A number beyond what any answer can have is no word."""


class _InputDetails(msgspec.Struct):
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    type: str | None = None
    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _InputDetails | None = None


def read_usage(reported: object, text: str, tokens_per_second: int, tokenizer: Tokenizer) -> Usage | None:
    """None for what is no usage at all. `reported` is decoded JSON.

    Begun seconds become tokens, `tokens_per_second` each; of such a call the text is counted here, for the reports
    alone: what is paid by the second has no price for what it writes.
    """
    try:
        usage = msgspec.convert(reported, _Usage, strict=False)
    except (msgspec.ValidationError, RecursionError):
        return None
    if usage.type == "duration":
        return _read_duration(usage.seconds, tokens_per_second, tokenizer.estimate(tokenizer.count(text)))
    heard = _count(usage.input_token_details.audio_tokens if usage.input_token_details else None)
    read, written = _count(usage.input_tokens), _count(usage.output_tokens)
    if not read and not written:
        return None
    heard = min(heard, read)
    return Usage(input_tokens=read - heard, output_tokens=written, input_audio_tokens=heard)


def _read_duration(seconds: float | None, tokens_per_second: int, written: int) -> Usage | None:
    if seconds is None or not 0 < seconds <= MAX_TOKENS / tokens_per_second:
        return None
    return Usage(input_tokens=ceil(seconds) * tokens_per_second, output_tokens=written)


def _count(value: int | None) -> int:
    return value if value is not None and 0 <= value <= MAX_TOKENS else 0
