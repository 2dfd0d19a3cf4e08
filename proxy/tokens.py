"""Counting tokens with a real tokenizer, and estimating what media cost.

`o200k_base` is the encoding of OpenAI's models since gpt-4o and stands in for the others, whose tokenizers are not
published. We call the binding itself (0.3 µs for a short piece), because the package's own encoder refuses more than
200,000 tokens and builds a list only to have its length taken; and we load it without its package, whose import builds
tables that nobody needs here: 0.6 seconds and 70 MiB in every process.
"""

import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import PathFinder
from typing import Protocol, cast

import msgspec

from proxy.chat import ChatRequest, Document, Image, Message, Refusal, Text

TOKENS_PER_MESSAGE = 4
TOKENS_PER_REPLY_PRIMER = 3
TOKENS_PER_IMAGE = 1500
"""An estimate on the high side: a picture is 85 to 2,500 tokens with the providers we know."""
DOCUMENT_BYTES_PER_TOKEN = 10
SLICE_CHARACTERS = 50_000
"""About one millisecond of counting; between two slices the caller can let others run."""


class _Encoding(Protocol):
    def count(self, text: str) -> int: ...


@lru_cache(maxsize=1)
def _encoding() -> _Encoding:
    package = importlib.util.find_spec("bpe_openai")
    extension = PathFinder.find_spec("_bindings", package.submodule_search_locations) if package else None
    if extension is None or extension.loader is None:
        raise ImportError("bpe-openai has no _bindings: is it the version that requirements.lock names?")
    bindings = importlib.util.module_from_spec(extension)
    extension.loader.exec_module(bindings)
    return cast(_Encoding, bindings.tokenizer_for_encoding("o200k_base"))


def count_tokens(text: str) -> int:
    """Tokens of a text. Takes 25 ms for a megabyte: count a prompt in slices instead."""
    try:
        return _encoding().count(text)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and UTF-8 cannot
        return _encoding().count(text.encode("utf-8", "replace").decode())


def prompt_slices(request: ChatRequest) -> Iterator[int]:
    """The tokens of a prompt, slice by slice; their sum counts, and every slice takes a millisecond at most."""
    for message in request.messages:
        yield TOKENS_PER_MESSAGE
        for text in _texts(message):
            yield from _count_slices(text)
    for tool in request.tools:
        yield TOKENS_PER_MESSAGE
        yield from _count_slices(_as_json((tool.name, tool.description, tool.parameters)))
    if request.response_format is not None:
        yield from _count_slices(_as_json(request.response_format))
    yield TOKENS_PER_REPLY_PRIMER


def media_tokens(request: ChatRequest) -> int:
    """What images and documents may add to the prompt at most, for the hold; the charge follows the provider's
    count.
    """
    return sum(_part_tokens(part) for message in request.messages for part in message.parts)


def _count_slices(text: str) -> Iterator[int]:
    for start in range(0, len(text), SLICE_CHARACTERS):
        yield count_tokens(text[start : start + SLICE_CHARACTERS])


def _texts(message: Message) -> Iterator[str]:
    for part in message.parts:
        if isinstance(part, Text | Refusal):
            yield part.text
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def _part_tokens(part: object) -> int:
    if isinstance(part, Image):
        return TOKENS_PER_IMAGE
    if isinstance(part, Document):
        return max(TOKENS_PER_IMAGE, len(part.data) * 3 // 4 // DOCUMENT_BYTES_PER_TOKEN)
    return 0


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
