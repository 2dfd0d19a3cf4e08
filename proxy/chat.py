"""What a caller asks for, in no provider's dialect; events.py has what happens while it is answered.

Every dialect that clients speak decodes into a ChatRequest and encodes ChatEvents; every provider does the reverse.
Texts never show in a repr, so that a value of these types can be logged or end up in a traceback.

What only one family of providers understands (signed reasoning, the items of tools that a provider runs itself) travels
as it is, with its `format`: it goes back to that family untouched, and to no other. The formats are those of the field:
`anthropic-claude-v1`, `google-gemini-v1`, `openai-responses-v1`, `xai-responses-v1`; empty where a provider names none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from proxy.media_file import MediaFile

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """`cache_control` marks the end of a prefix to be cached, in Anthropic's shape: `{"type": "ephemeral"}`."""

    text: str = field(repr=False)
    cache_control: Mapping[str, object] | None = None


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
    cache_control: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """An inlined document; `data` is base64 without white space. `citations` asks for references into it."""

    media_type: str
    data: str = field(repr=False)
    name: str = "document.pdf"
    cache_control: Mapping[str, object] | None = None
    citations: bool | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """Inlined sound; `format` is `wav`, `mp3`, …; `data` is base64 without white space."""

    format: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attached:
    """A file of sound or video, too large to be held in memory. `seconds` is how long it lasts.

    Of video the model looks at `frames_per_second`, None where the provider decides.
    """

    media_type: str
    file: MediaFile = field(repr=False)
    seconds: float
    frames_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a model thought in an earlier turn, as its provider gave it.

    `signature` proves the text, `encrypted` is the reasoning itself sealed; a provider wants both back as they were.
    """

    text: str = field(default="", repr=False)
    format: str = ""
    id: str | None = None
    signature: str | None = field(default=None, repr=False)
    encrypted: str | None = field(default=None, repr=False)
    is_summary: bool = False


@dataclass(frozen=True, slots=True)
class ProviderItem:
    """Something that a provider made or ran itself (a search, its results, code): its own JSON, untouched.

    A part of an earlier turn, and an event of an answer.
    """

    format: str
    item: Mapping[str, object] = field(repr=False)


Part = Text | Refusal | Image | Document | Audio | Attached | Reasoning | ProviderItem


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made; `arguments` is the text that it produced, which need not be valid JSON.

    `signature` is a seal that some providers want back with the call.
    """

    id: str
    name: str
    arguments: str = field(repr=False)
    signature: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """The call that a message of role `tool` answers."""
    is_error: bool | None = None
    """Whether a message of role `tool` says that the tool failed."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON Schema, passed through as it is."""

    name: str
    description: str | None = field(default=None, repr=False)
    parameters: Mapping[str, object] | None = field(default=None, repr=False)
    strict: bool | None = None
    cache_control: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ProviderTool:
    """A tool that only its provider knows: `definition` is its JSON, with a `type`. Each provider says which it takes,
    for some cost more than tokens.
    """

    type: str
    definition: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`names` narrows the choice to these tools; with `required` and one name that tool must be called."""

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """`schema` is there for `json_schema` alone."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "response"
    schema: Mapping[str, object] | None = field(default=None, repr=False)
    description: str | None = field(default=None, repr=False)
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class WebSearch:
    """The provider's own search. `max_searches` bounds what it may cost, where the provider can be told.

    `user_location` has any of `country`, `region`, `city`, `timezone`.
    """

    context_size: Literal["low", "medium", "high"] | None = None
    user_location: Mapping[str, str] | None = None
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    max_searches: int = 10


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
    top_k: int | None = None
    reasoning_tokens: int | None = None
    """The most that the model may think, in tokens; 0 asks it not to."""
    reasoning_summary: str | None = None
    """Whether and how to tell what the model thought: `auto`, `concise`, `detailed`, `none`."""
    verbosity: str | None = None
    logit_bias: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request for an answer, in no provider's dialect."""

    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int | None = None
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    provider_tools: tuple[ProviderTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    web_search: WebSearch | None = None
    modalities: tuple[str, ...] = ()
    """What the answer may be made of, besides text: `image`, `audio`."""
    audio_output: Mapping[str, object] | None = None
    """Voice and format of spoken answers, in OpenAI's shape."""
    cache_control: Mapping[str, object] | None = None
    """Asks for caching of the whole prompt, in Anthropic's shape."""
    prompt_cache_key: str | None = None
    metadata: Mapping[str, str] | None = None
    task_type: str = "general"
    idempotency_key: str | None = None
    end_user: str | None = None
    """A stable pseudonym of the caller, for the provider's abuse detection."""
