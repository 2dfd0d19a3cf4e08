"""What happens while a request is answered: the events of an answer, in no provider's dialect.

Texts never show in a repr, so that an event can be logged or end up in a traceback.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from proxy.chat import ProviderItem
from proxy.transcript import TranscriptFacts, TranscriptSegment, TranscriptWord

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thinks. `index` says which block: a new one when the provider begins a new one."""

    text: str = field(repr=False)
    index: int = 0
    is_summary: bool = False


@dataclass(frozen=True, slots=True)
class ReasoningSealed:
    """What a provider wants back with the reasoning block `index`; see Reasoning. Comes once a block, at its end."""

    index: int = 0
    format: str = ""
    id: str | None = None
    signature: str | None = field(default=None, repr=False)
    encrypted: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call. `index` says which call; `id`, `name` and `signature` come once.

    Indexes count the calls of client tools from 0. A call without an id gets one here: no two have the same.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = field(default="", repr=False)
    signature: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Citation:
    """A source of what was said: a page on the web (`url`), or a document of the request (`document_index`).

    `start` and `end` count characters of the answer's text, where the provider says them.
    """

    url: str | None = None
    title: str | None = field(default=None, repr=False)
    start: int | None = None
    end: int | None = None
    cited_text: str | None = field(default=None, repr=False)
    document_index: int | None = None


@dataclass(frozen=True, slots=True)
class ImageDelta:
    """An image that the model made, whole; `data` is base64."""

    media_type: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """A piece of a spoken answer: base64 sound, and what it says."""

    data: str = field(default="", repr=False)
    transcript: str = field(default="", repr=False)
    id: str | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Of the text since the last ones: entries in OpenAI's shape (`token`, `logprob`, `bytes`, `top_logprobs`)."""

    content: tuple[Mapping[str, object], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in buckets that do not overlap, so that a price is a sum of products. `searches` are calls, not tokens."""

    input_tokens: int = 0
    """Uncached input of text, images and documents."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    """Output without reasoning, sound and images."""
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0
    """Cache writes that live for an hour, which cost more; not part of cache_write_tokens."""
    input_audio_tokens: int = 0
    """Uncached sound."""
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    searches: int = 0

    @property
    def prompt_tokens(self) -> int:
        cached = self.cache_read_tokens + self.cache_write_tokens + self.cache_write_1h_tokens
        return self.input_tokens + cached + self.input_audio_tokens

    @property
    def completion_tokens(self) -> int:
        media = self.output_audio_tokens + self.output_image_tokens
        return self.output_tokens + self.reasoning_tokens + media


@dataclass(frozen=True, slots=True)
class Finished:
    """The provider ended the answer in good order."""

    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer broke off. An event, for it may come when the client has been answered already.

    `code` is from the contract's vocabulary (`rate_limit_exceeded`, `network_error`, …), `message` is fit for a user's
    eyes, `status` is the provider's, 0 where there was none. `retry_after_seconds` is what the provider asked for.
    """

    code: str
    message: str
    provider: str
    status: int = 0
    provider_error_type: str = ""
    retry_after_seconds: float | None = None
    fallback_attempted: bool = False
    """Whether another provider was asked before this answer failed."""
    model_limit: int | None = None
    """Of a context that was too long: how many tokens the model takes,"""
    requested_tokens: int | None = None
    """and how many there were."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event of an answer in good order: what was used, and what it cost.

    `provisional` says that the tokens were counted here, because the provider reported none.
    """

    usage: Usage
    cost_usd: str
    """A decimal number with six places, the very amount that was charged."""
    provisional: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The last event of an answer that its user has called off by another request: what it has cost until then.

    `cost_usd` and `provisional` are as in Completed.
    """

    usage: Usage
    cost_usd: str
    provisional: bool


ChatEvent = (
    TextDelta
    | ReasoningDelta
    | ReasoningSealed
    | RefusalDelta
    | ToolCallDelta
    | Citation
    | ImageDelta
    | AudioDelta
    | Logprobs
    | ProviderItem
    | TranscriptSegment
    | TranscriptWord
    | TranscriptFacts
    | Usage
    | Finished
    | Failed
    | Completed
    | Cancelled
)
