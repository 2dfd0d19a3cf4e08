"""The vocabulary of a chat: what a caller asks for, and what happens while it is answered.

Every dialect that clients speak decodes into a ChatRequest and encodes ChatEvents; every provider does the reverse.
Texts never show in a repr, so that a value of these types can be logged or end up in a traceback.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an assistant declined with in an earlier turn."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Image:
    """An inlined image; `data` is base64 without white space."""

    media_type: str
    data: str = field(repr=False)
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """An inlined document; `data` is base64 without white space."""

    media_type: str
    data: str = field(repr=False)
    name: str = "document.pdf"


Part = Text | Refusal | Image | Document


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made; `arguments` is the text that it produced, which need not be valid JSON."""

    id: str
    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """The call that a message of role `tool` answers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON Schema, passed through as it is."""

    name: str
    description: str | None = field(default=None, repr=False)
    parameters: Mapping[str, object] | None = field(default=None, repr=False)
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw the answer; None leaves the provider's default."""

    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request for an answer, in no provider's dialect.

    `tool_choice` and `response_format` are JSON values in OpenAI's shape, the field's lingua franca.
    """

    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int | None = None
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    tool_choice: object = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, object] | None = field(default=None, repr=False)
    task_type: str = "general"
    idempotency_key: str | None = None
    end_user: str | None = None
    """A stable pseudonym of the caller, for the provider's abuse detection."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call. `index` says which call; `id` and `name` come once, with its first piece."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in buckets that do not overlap, so that a price is a sum of products."""

    input_tokens: int = 0
    """Uncached input."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    """Output without reasoning."""
    reasoning_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def completion_tokens(self) -> int:
        return self.output_tokens + self.reasoning_tokens


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


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event of an answer in good order: what was used, and what it cost.

    `provisional` says that the tokens were counted here, because the provider reported none.
    """

    usage: Usage
    cost_usd: str
    """A decimal number with six places, the very amount that was charged."""
    provisional: bool


ChatEvent = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Usage | Finished | Failed | Completed
