"""Whole answers, as clients decode them: the types that describe what the dialects' `encode_whole` writes. Pure.

The encoders write plain objects, which is quicker; tests/server/dialects/test_completions.py holds them to these types.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class CalledFunction(msgspec.Struct):
    """`arguments` is the text that the model made, which need not be JSON."""

    name: str
    arguments: str


class GoogleSeal(msgspec.Struct):
    thought_signature: str


class ToolCallSeal(msgspec.Struct):
    """What Gemini wants back with the call."""

    google: GoogleSeal


class CalledTool(msgspec.Struct):
    id: str
    type: Literal["function"]
    function: CalledFunction
    extra_content: ToolCallSeal | UnsetType = UNSET


class CitedPage(msgspec.Struct):
    """The place in the answer, and the words of the page where the provider tells them."""

    url: str
    title: str
    start_index: int
    end_index: int
    content: str | UnsetType = UNSET


class PageCitation(msgspec.Struct):
    index: int
    type: Literal["url_citation"]
    url_citation: CitedPage


class DocumentCitation(msgspec.Struct):
    """`document_index` counts the documents of the request."""

    index: int
    type: Literal["document_citation"]
    document_index: int | UnsetType = UNSET
    title: str | UnsetType = UNSET
    cited_text: str | UnsetType = UNSET
    start_index: int | UnsetType = UNSET
    end_index: int | UnsetType = UNSET


class ReasoningDetail(msgspec.Struct):
    """A piece of what the model thought; give it back as it is with the next request. `index` is that of its block."""

    index: int
    type: Literal["reasoning.summary", "reasoning.text", "reasoning.encrypted"]
    text: str | UnsetType = UNSET
    summary: str | UnsetType = UNSET
    data: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    format: str | UnsetType = UNSET


class MadeImageUrl(msgspec.Struct):
    """A `data:` URL."""

    url: str


class MadeImage(msgspec.Struct):
    index: int
    type: Literal["image_url"]
    image_url: MadeImageUrl


class MadeItem(msgspec.Struct):
    """What the provider made or ran itself, in its own JSON; give it back as it is with the next request."""

    index: int
    format: str
    item: Mapping[str, Any]
    after_reasoning: int


class SpokenAnswer(msgspec.Struct):
    """`data` is base64; `expires_at` is in Unix seconds, 0 where it is not known."""

    id: str
    data: str
    transcript: str
    expires_at: int


class Logprobs(msgspec.Struct):
    """The tokens of the text, each with its logarithmic probability, as OpenAI has them."""

    content: Sequence[Mapping[str, Any]]
    refusal: None


class ChatCompletionMessage(msgspec.Struct):
    """What the model said. Only the lists that hold something are there."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: Sequence[CalledTool] | UnsetType = UNSET
    annotations: Sequence[PageCitation] | UnsetType = UNSET
    document_citations: Sequence[DocumentCitation] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning_details: Sequence[ReasoningDetail] | UnsetType = UNSET
    images: Sequence[MadeImage] | UnsetType = UNSET
    provider_items: Sequence[MadeItem] | UnsetType = UNSET
    audio: SpokenAnswer | UnsetType = UNSET


class ChatCompletionChoice(msgspec.Struct):
    """`native_finish_reason` is the true word where OpenAI has none for it."""

    index: int
    message: ChatCompletionMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    native_finish_reason: str | UnsetType = UNSET


class PromptTokens(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int
    audio_tokens: int


class CompletionTokens(msgspec.Struct):
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int


class ServerTools(msgspec.Struct):
    web_search_requests: int


class ChatCompletionUsage(msgspec.Struct):
    """The details are parts of the totals. `cost` is what was charged, in US dollars."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens
    cost: Decimal
    server_tool_use: ServerTools | UnsetType = UNSET


class ChatCompletion(msgspec.Struct):
    """A whole answer in OpenAI's dialect. `created` is in Unix seconds."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: Sequence[ChatCompletionChoice]
    usage: ChatCompletionUsage | UnsetType = UNSET


class ChatMessageAnswer(msgspec.Struct):
    """What the model said, or declined with. Only the lists that hold something are there."""

    role: Literal["assistant"]
    content: str
    tool_calls: Sequence[CalledTool] | UnsetType = UNSET
    annotations: Sequence[PageCitation] | UnsetType = UNSET
    document_citations: Sequence[DocumentCitation] | UnsetType = UNSET


class ChatChoiceAnswer(msgspec.Struct):
    index: int
    message: ChatMessageAnswer
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "error"]


class ChatUsageAnswer(msgspec.Struct, rename="camel"):
    """What was cached is a part of the prompt. `cost` is what was charged, in US dollars."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: Decimal
    cached_input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int


class ChatAnswer(msgspec.Struct):
    """A whole answer. `created` is in Unix seconds."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: Sequence[ChatChoiceAnswer]
    usage: ChatUsageAnswer | UnsetType = UNSET
