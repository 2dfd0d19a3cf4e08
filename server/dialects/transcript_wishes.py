"""What clients ask for when they upload sound: the fields of a form, on `/api/audio` and `/v1/audio`. Pure.

One set of fields for both, for what one of them has the other may send. Names are OpenAI's:
https://platform.openai.com/docs/api-reference/audio/createTranscription
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, get_args

import msgspec

from proxy.chat import Attached
from proxy.transcript import KnownSpeaker, Timestamps, TranscriptFormat, TranscriptRequest
from server.dialects.bounds import check_passed_on
from server.dialects.form_fields import (
    Fields,
    check_no_control,
    read_flag,
    read_list,
    read_one,
    read_temperature,
)
from server.errors import ArgumentInvalid

Task = Literal["transcribe", "translate"]

FORMATS: tuple[TranscriptFormat, ...] = get_args(TranscriptFormat)
TIMESTAMPS: tuple[Timestamps, ...] = get_args(Timestamps)
MIN_PROMPT_BYTES = 3
MAX_SPEAKERS = 16
_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr ga gl gu ha he hi hr ht hu hy id is"
    " it ja ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl"
    " sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
LANGUAGES = frozenset(_CODES.split())
"""What the clients offer, and what Whisper knows: https://platform.openai.com/docs/guides/speech-to-text"""

Word = TypeVar("Word", bound=str)


def read_transcript_request(
    fields: Fields,
    audio: Attached,
    task: Task = "transcribe",
    idempotency_key: str | None = None,
    *,
    streams: bool = False,
) -> TranscriptRequest:
    """With `streams` it is streamed whatever the form says. Raises RequestInvalid and ArgumentInvalid, naming the
    field. What is empty counts as absent.
    """
    return TranscriptRequest(
        model=read_one(fields, "model") or "",
        audio=audio,
        format=_read_word(read_one(fields, "response_format") or "json", FORMATS, "response_format"),
        task=task,
        language=_read_language(read_one(fields, "language")),
        prompt=_read_prompt(read_one(fields, "prompt")),
        temperature=read_temperature(fields, most=1.0),
        stream=streams or read_flag(fields, "stream"),
        timestamps=_read_timestamps(fields),
        logprobs=_read_include(fields),
        chunking=_read_chunking(fields),
        speakers=_read_speakers(fields),
        languages=tuple(filter(None, map(_read_language, read_list(fields, "languages")))),
        keywords=tuple(read_list(fields, "keywords")),
        idempotency_key=idempotency_key,
    )


def _read_language(text: str | None) -> str | None:
    """Of `en-US` the part before the dash."""
    if text is None:
        return None
    code = text.lower().partition("-")[0]
    if not 2 <= len(text) <= 5 or code not in LANGUAGES:
        raise ArgumentInvalid("language: an ISO 639-1 code that models know, such as en, or en-US")
    return code


def _read_prompt(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text.encode()) < MIN_PROMPT_BYTES:
        raise ArgumentInvalid(f"prompt: at least {MIN_PROMPT_BYTES} bytes, or none")
    return check_no_control(text, "prompt")


def _read_word(text: str, words: Sequence[Word], name: str) -> Word:
    for word in words:
        if word == text:
            return word
    raise ArgumentInvalid(f"{name}: one of {', '.join(words)}")


def _read_timestamps(fields: Fields) -> tuple[Timestamps, ...]:
    name = "timestamp_granularities"
    return tuple(_read_word(word, TIMESTAMPS, name) for word in read_list(fields, name))


def _read_include(fields: Fields) -> bool:
    """Whether log probabilities are wanted, which is all that can be."""
    wanted = set(read_list(fields, "include"))
    if wanted - {"logprobs"}:
        raise ArgumentInvalid("include: logprobs, or nothing")
    return bool(wanted)


def _read_chunking(fields: Fields) -> str | Mapping[str, object] | None:
    """`auto`, or an object: as JSON, or as libraries write one into a form (`chunking_strategy[type]`)."""
    text = read_one(fields, "chunking_strategy")
    if text is None:
        members = _read_members(fields, "chunking_strategy")
        return members or None
    if text == "auto":
        return text
    try:
        found = msgspec.json.decode(text, type=dict[str, str | int | float])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ArgumentInvalid("chunking_strategy: auto, or a JSON object such as {\"type\":\"server_vad\"}") from error
    check_passed_on(found, "chunking_strategy")
    return found


def _read_members(fields: Fields, name: str) -> dict[str, object]:
    start = f"{name}["
    found = {key[len(start) : -1]: values[0] for key, values in fields.items() if key.startswith(start) and values}
    return {key: _as_number(value) for key, value in found.items()}


def _as_number(text: str) -> object:
    try:
        return msgspec.json.decode(text, type=int | float)
    except msgspec.DecodeError:
        return text


def _read_speakers(fields: Fields) -> tuple[KnownSpeaker, ...]:
    names = read_list(fields, "known_speaker_names", MAX_SPEAKERS)
    samples = read_list(fields, "known_speaker_references", MAX_SPEAKERS)
    if len(names) != len(samples):
        raise ArgumentInvalid("known_speaker_references: one for each of known_speaker_names")
    if not all(sample.startswith("data:") for sample in samples):
        raise ArgumentInvalid("known_speaker_references: data URLs, for nothing is fetched")
    return tuple(
        KnownSpeaker(check_no_control(name, "known_speaker_names"), sample)
        for name, sample in zip(names, samples, strict=True)
    )
