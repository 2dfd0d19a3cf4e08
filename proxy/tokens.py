"""Counting tokens with a real tokenizer, and estimating what no tokenizer of ours can count.

OpenAI's models are counted exactly: `o200k_base` since gpt-4o, `cl100k_base` before. The tokenizers of the others are
not published; `o200k_base` stands in for them, times a factor that was measured on recorded answers, and so were the
tokens that a provider adds to every message and request. Holds, and charges where a provider reported nothing, use the
same estimate. Measured on recordings, with OpenAI's models prompts of text are exact and answers off by 0 % in the
median; with Anthropic's it is 11 % and 3 %, Google's 6 % and 5 %, xAI's 10 % and 4 %, others' 14 % and 4 % (most of
those prompts are short, where a token is several per cent), and 5 to 23 % for prompts with functions.
`tests/proxy/test_token_estimates.py` has the rest and measures it anew.

We call the binding itself (0.3 µs for a short piece), because the package's own encoder refuses more than 200,000
tokens and builds a list only to have its length taken; and we load it without its package, whose import builds tables
that nobody needs here: 0.6 seconds and 70 MiB in every process.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from math import ceil
from types import ModuleType
from typing import Any, Literal, Protocol, cast

import msgspec

from proxy.chat import Attached, Audio, ChatRequest, Document, Image, Message, ProviderItem, Reasoning, Refusal, Text

EncodingName = Literal["o200k_base", "cl100k_base"]

TOKENS_PER_MESSAGE = 4
TOKENS_PER_REPLY_PRIMER = 3
TOKENS_PER_IMAGE = 1500
"""An estimate on the high side: a picture is 85 to 2,500 tokens with most models."""
TOKENS_PER_PROVIDER_TOOL = 700
"""What a provider tells its model of a tool that it runs itself. Published are 245 to 735:
https://platform.claude.com/docs/en/about-claude/pricing#specific-tool-pricing.
"""
TOKENS_PER_SEARCH = 8000
"""What the results of one search add to the prompt, at most of those that say:
https://developers.openai.com/api/docs/pricing.
"""
TOKENS_PER_MADE_IMAGE = 1290
"""Of an image that a model made: https://ai.google.dev/gemini-api/docs/image-generation."""
TOKENS_PER_FRAME = 265
DEFAULT_FRAMES_PER_SECOND = 1.0
"""Of a video, as Google has it (https://ai.google.dev/gemini-api/docs/video-understanding): 258 for a picture and 7 for
the time at which it is seen, about 300 for a second with its sound. From generation 3 on pictures take 70
(https://ai.google.dev/gemini-api/docs/media-resolution).
"""
DOCUMENT_BYTES_PER_TOKEN = 10
TEXT_BYTES_PER_TOKEN = 3
SEALED_BYTES_PER_TOKEN = 4
MEDIA_BYTES_PER_TOKEN = 100
"""Of sound and film inside a provider's own items: 32 tokens for a second of 4 kilobytes, 300 for one of 100."""
SPOKEN_BYTES_PER_TOKEN = 2400
"""Of a spoken answer: 20 tokens a second, 24,000 samples of two bytes, which is the format that is streamed:
https://platform.openai.com/docs/guides/audio.
"""
MAX_SEALED_CHARACTERS = 65_536
MIN_OPAQUE_CHARACTERS = 400
SOUND_BYTES_PER_SECOND: Mapping[str, int] = {"wav": 16_000, "pcm16": 16_000, "flac": 16_000}
COMPRESSED_BYTES_PER_SECOND = 4000
"""Low, so that the seconds, which are what costs, come out high: 8 kHz of uncompressed sound, 32 kbit/s of the rest."""
SLICE_CHARACTERS = 50_000
"""About one millisecond of counting; between two slices the caller can let others run."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How the tokens of one model are counted. `percent` is what a hundred tokens of `encoding` amount to."""

    encoding: EncodingName = "o200k_base"
    percent: int = 100
    per_message: int = TOKENS_PER_MESSAGE
    per_request: int = TOKENS_PER_REPLY_PRIMER
    """With what the provider tells the model unasked, and charges."""
    with_tools: int = 0
    """What a request has more if it offers tools."""
    tools_percent: int = 100
    """The same as `percent` for the JSON of functions, which some providers write down shorter."""
    per_image: int = TOKENS_PER_IMAGE
    audio_per_second: int = 32
    per_frame: int = TOKENS_PER_FRAME

    def count(self, text: str) -> int:
        """Tokens of the encoding; sum them up before `estimate`, for short pieces would all be rounded up."""
        return count_tokens(text, self.encoding)

    def estimate(self, counted: int) -> int:
        """The model's tokens, rounded up."""
        return -(-counted * self.percent // 100)


DEFAULT = Tokenizer()

_FAMILIES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    (r"(gpt|chatgpt|codex|o\d)", {"percent": 100, "with_tools": 0, "tools_percent": 75, "audio_per_second": 10}),
    (r"gpt-(3\.5|35|4(?![.o\d]))", {"encoding": "cl100k_base"}),
    (r"(gpt-[5-9]|o\d)", {"per_request": 2, "tools_percent": 100}),
    (r"gpt-oss", {"per_request": 70}),
    (r"(gpt|o\d).*-mini", {"per_image": 2700}),
    (r"(gpt|o\d).*-nano", {"per_image": 3800}),
    (r"gpt-4o-mini", {"per_image": 26_000}),
    (r"claude", {"percent": 116, "per_message": 1, "per_request": 6, "with_tools": 346, "per_image": 1600}),
    (r"claude-\w+-4[-.][56]", {"with_tools": 500}),
    (r"claude-(\w+-4[-.][7-9]|[a-z]+-[5-9])", {"percent": 151, "with_tools": 680, "per_image": 4800}),
    (r"(gemini|gemma)", {"percent": 103, "per_message": 0, "per_request": 1, "with_tools": 0, "per_image": 1600}),
    (r"gemini-3", {"per_frame": 77}),
    (r"grok", {"percent": 102, "per_request": 1, "with_tools": 140, "per_image": 1792}),
    (r"grok-([4-9]|code)", {"per_request": 190}),
    (r"grok-4(-0709|-latest)?$", {"per_request": 680}),
    (r"deepseek", {"percent": 104, "per_message": 2, "per_request": 2, "with_tools": 210}),
    (r"echo$", {"percent": 100, "with_tools": 0}),
)
"""What is known of a family, by the start of a model's name; of those that match, the later ones say more."""
_OTHERS = Tokenizer(percent=106, with_tools=100)


@lru_cache(maxsize=1024)
def find_tokenizer(model: str) -> Tokenizer:
    """By the name that the model's provider has for it; what stands before a slash says nothing of the model."""
    name = model.lower().rpartition("/")[2].removeprefix("ft:")
    known: dict[str, Any] = {}
    for start, facts in _FAMILIES:
        known |= facts if re.match(start, name) else {}
    return replace(_OTHERS, **known)


class _Encoding(Protocol):
    def count(self, text: str) -> int: ...


@cache
def _bindings() -> ModuleType:
    package = importlib.util.find_spec("bpe_openai")
    extension = PathFinder.find_spec("_bindings", package.submodule_search_locations) if package else None
    if extension is None or extension.loader is None:
        raise ImportError("bpe-openai has no _bindings: is it the version that requirements.lock names?")
    bindings = importlib.util.module_from_spec(extension)
    extension.loader.exec_module(bindings)
    return bindings


@cache
def _encoding(name: EncodingName) -> _Encoding:
    return cast(_Encoding, _bindings().tokenizer_for_encoding(name))


def count_tokens(text: str, encoding: EncodingName = "o200k_base") -> int:
    """Tokens of a text. Takes 25 ms for a megabyte: count a prompt in slices instead."""
    try:
        return _encoding(encoding).count(text)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and UTF-8 cannot
        return _encoding(encoding).count(text.encode("utf-8", "replace").decode())


def prompt_slices(request: ChatRequest, tokenizer: Tokenizer = DEFAULT) -> Iterator[int]:
    """The tokens of a prompt, slice by slice; their sum counts, and every slice takes a millisecond at most."""
    counted = told = 0
    for tokens in _counted_slices(request, tokenizer):
        counted += tokens
        until_now = tokenizer.estimate(counted)
        yield until_now - told
        told = until_now
    has_tools = request.tools or request.provider_tools or request.web_search
    yield len(request.messages) * tokenizer.per_message + tokenizer.per_request
    yield tokenizer.with_tools if has_tools else 0


def count_slices(text: str, tokenizer: Tokenizer) -> Iterator[int]:
    """Tokens of a text in the tokenizer's encoding, slice by slice, about a millisecond each. Their sum is what
    `estimate` takes.
    """
    for start in range(0, len(text), SLICE_CHARACTERS):
        yield tokenizer.count(text[start : start + SLICE_CHARACTERS])


def media_tokens(request: ChatRequest, tokenizer: Tokenizer = DEFAULT) -> int:
    """What images, documents, sound and what is sealed may add to the prompt at most, for the hold; the charge follows
    the provider's count.
    """
    return sum(_part_tokens(part, tokenizer) for message in request.messages for part in message.parts)


def search_tokens(max_searches: int) -> int:
    """What the results of searches may add to the prompt at most, for the hold alone: they may never come."""
    return max_searches * TOKENS_PER_SEARCH


def spoken_tokens(base64_characters: int) -> int:
    """Of the sound of an answer."""
    return -(-base64_characters * 3 // 4 // SPOKEN_BYTES_PER_TOKEN)


def _counted_slices(request: ChatRequest, tokenizer: Tokenizer) -> Iterator[int]:
    for message in request.messages:
        for text in _texts(message):
            yield from count_slices(text, tokenizer)
    for tool in request.tools:
        yield TOKENS_PER_MESSAGE
        for tokens in count_slices(_as_json((tool.name, tool.description, tool.parameters)), tokenizer):
            yield -(-tokens * tokenizer.tools_percent // 100)
    for provider_tool in request.provider_tools:
        yield TOKENS_PER_PROVIDER_TOOL
        yield from count_slices(_as_json(provider_tool.definition), tokenizer)
    if request.web_search is not None:
        yield TOKENS_PER_PROVIDER_TOOL
    if request.response_format is not None:
        yield from count_slices(_as_json(request.response_format), tokenizer)


def _texts(message: Message) -> Iterator[str]:
    for part in message.parts:
        if isinstance(part, Text | Refusal | Reasoning):
            yield part.text
        elif isinstance(part, ProviderItem):
            yield from (text for text in _strings(part.item) if not _is_opaque(text))
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def _strings(item: object) -> Iterator[str]:
    """All that is in a JSON value, its members' names too, however deep. A number counts as one digit."""
    pending = [item]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from value
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
        elif value is not None:
            yield "0"


def _is_opaque(text: str) -> bool:
    """Base64 and the like: a tokenizer would make too much of it."""
    start = text[:MIN_OPAQUE_CHARACTERS]
    return len(start) == MIN_OPAQUE_CHARACTERS and start.isascii() and " " not in start


def _part_tokens(part: object, tokenizer: Tokenizer) -> int:
    match part:
        case Image():
            return tokenizer.per_image
        case Document():
            return _document_tokens(part, tokenizer)
        case Audio():
            per_second = SOUND_BYTES_PER_SECOND.get(part.format, COMPRESSED_BYTES_PER_SECOND)
            return (_size_bytes(part.data) // per_second + 1) * tokenizer.audio_per_second
        case Attached():
            return attached_tokens(part, tokenizer.audio_per_second, tokenizer.per_frame)
        case Reasoning(encrypted=str(sealed)):
            return _sealed_tokens(sealed)
        case ProviderItem():
            return sum(_sealed_tokens(text) for text in _strings(part.item) if _is_opaque(text))
    return 0


def attached_tokens(part: Attached, audio_per_second: int, per_frame: int = TOKENS_PER_FRAME) -> int:
    """Of sound, and of a video's pictures, for the hold, and for the charge where the provider does not tell."""
    pictures_per_second = 0.0
    if part.media_type.startswith("video/"):
        pictures_per_second = per_frame * (part.frames_per_second or DEFAULT_FRAMES_PER_SECOND)
    return ceil(ceil(part.seconds) * (audio_per_second + pictures_per_second))


def _document_tokens(document: Document, tokenizer: Tokenizer) -> int:
    if document.media_type.startswith("text/"):
        return _size_bytes(document.data) // TEXT_BYTES_PER_TOKEN
    return max(tokenizer.per_image, _size_bytes(document.data) // DOCUMENT_BYTES_PER_TOKEN)


def _sealed_tokens(text: str) -> int:
    """Of text that its provider has encrypted, as it does with reasoning and search results; of media if it is long."""
    per_token = SEALED_BYTES_PER_TOKEN if len(text) <= MAX_SEALED_CHARACTERS else MEDIA_BYTES_PER_TOKEN
    return _size_bytes(text) // per_token


def _size_bytes(data: str) -> int:
    return len(data) * 3 // 4


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
