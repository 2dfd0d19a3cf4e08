"""What differs between the servers of OpenAI's chat dialect: facts, so that the dialect itself is one piece of code."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from proxy.features import Feature

OPENAI_CHAT_FORMAT = "openai-chat-v1"
"""Of what only OpenAI's chat completions understand: `{"type": "audio", "id": …}`, an earlier spoken turn."""
GOOGLE_FORMAT = "google-gemini-v1"


@dataclass(frozen=True, slots=True)
class ChatQuirks:
    """One server's ways. What is not in `takes` is refused by its name, and its neutral values are not sent either."""

    code: str
    name: str
    takes: frozenset[Feature]
    drops: frozenset[Feature] = frozenset()
    """Left out without a word although asked for: what the shipped clients always send and some models refuse."""
    output_limit: str = "max_completion_tokens"
    reasoning: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"
    """How reasoning is asked for: OpenAI's word, or OpenRouter's object."""
    replays: Literal["", "reasoning_content", "reasoning_details"] = ""
    """The member of a message in which reasoning of earlier turns goes back; most servers want none."""
    web_search: Literal["web_search_options", "openrouter:web_search"] = "web_search_options"
    cache_hints: Literal["", "cache_control", "prompt_cache_breakpoint"] = ""
    """The member of a part that marks the end of a prefix to be cached. A server without one caches as it likes."""
    provider_tools: frozenset[str] = frozenset()
    """The types of its own tools that cost tokens only."""
    item_format: str = ""
    """The format of ProviderItems that come from here and may go back."""
    takes_allowed_tools: bool = False
    takes_refusals: bool = False
    takes_signatures: bool = False
    """Whether Google's signatures go back in `extra_content`."""
    max_call_id: int | None = None
    """How many characters the id of a call may have; other servers make longer ones."""
    leaves_out: frozenset[str] = frozenset()
    """What every body has and this server refuses: `user`, `stream_options` (usage is counted here, then)."""
    headers: tuple[tuple[str, str], ...] = ()
    constants: Mapping[str, object] = field(default_factory=dict)
    """Members of every body."""
    counts_reasoning_beside: bool = False
    """Whether `completion_tokens` leaves the reasoning out."""
    unreported_searches: int = 0
    """Searches that every call makes and no usage tells."""


SAMPLING: frozenset[Feature] = frozenset(
    {
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "logprobs",
        "logit_bias",
        "reasoning_effort",
    }
)
TOOLS: frozenset[Feature] = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})

OPENAI = ChatQuirks(
    code="openai",
    name="OpenAI",
    # No `metadata`: it is refused unless the answer is stored, https://github.com/tmc/langchaingo/issues/1484.
    takes=SAMPLING
    | TOOLS
    | {"verbosity", "input_audio", "images", "documents", "audio_output", "prompt_cache_key"},
    item_format=OPENAI_CHAT_FORMAT,
    takes_allowed_tools=True,
    takes_refusals=True,
    max_call_id=40,
)
"""https://platform.openai.com/docs/api-reference/chat/create; models narrow it, see openai_quirks."""

_NOT_WITH_REASONING: frozenset[Feature] = frozenset(
    {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "logit_bias", "stop"}
)
_DROPPED: frozenset[Feature] = frozenset({"temperature", "top_p"})
_WITHOUT_EFFORT: frozenset[Feature] = frozenset({"temperature", "top_p", "logprobs"})
"""What models from GPT-5.1 on take if they are asked not to think:
https://developers.openai.com/api/docs/guides/latest-model.
"""
_SEARCH_MODEL = "-search-"
_MAY_BE_LEFT_OUT = frozenset({"user", "stream_options"})


def openai_quirks(
    provider_model: str, *, reasons: bool, samples: bool = False, capabilities: Mapping[str, object] | None = None
) -> ChatQuirks:
    """OpenAI's ways with one model. `reasons` says that it thinks before it answers: such models refuse to be sampled
    (https://platform.openai.com/docs/guides/reasoning), and `temperature` and `top_p` are dropped; unless
    `samples`, for it is asked not to think.

    Models named `*-search-*` search at every call and are not sampled either
    (https://platform.openai.com/docs/guides/tools-web-search?api-mode=chat); no other searches here. `capabilities` are
    the catalogue's: `cache_breakpoints` says that the model takes explicit marks for its prompt cache, the rest is for
    other servers than OpenAI's: `output_limit` may be `max_tokens`, `leaves_out` a list of `user` and `stream_options`.
    """
    searches = _SEARCH_MODEL in provider_model
    refused = _NOT_WITH_REASONING if reasons or searches else frozenset()
    if samples:
        refused -= _WITHOUT_EFFORT
    quirks = replace(OPENAI, takes=OPENAI.takes - refused, drops=refused & _DROPPED)
    if searches:
        quirks = replace(quirks, takes=quirks.takes - {"seed"} | {"web_search"}, unreported_searches=1)
    return _fit_server(quirks, capabilities or {})


def _fit_server(quirks: ChatQuirks, capabilities: Mapping[str, object]) -> ChatQuirks:
    if capabilities.get("cache_breakpoints") is True:
        quirks = replace(quirks, cache_hints="prompt_cache_breakpoint")
    if capabilities.get("output_limit") == "max_tokens":
        quirks = replace(quirks, output_limit="max_tokens")
    left_out = capabilities.get("leaves_out")
    if isinstance(left_out, list):
        quirks = replace(quirks, leaves_out=_MAY_BE_LEFT_OUT.intersection(map(str, left_out)))
    return quirks
