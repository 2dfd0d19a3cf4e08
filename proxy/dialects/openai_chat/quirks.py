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
    sends_end_user: bool = True
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
)
"""https://platform.openai.com/docs/api-reference/chat/create; models narrow it, see openai_quirks."""

_NOT_WITH_REASONING: frozenset[Feature] = frozenset(
    {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "logit_bias", "stop"}
)
_SEARCH_MODEL = "-search-"


def openai_quirks(
    provider_model: str, *, reasons: bool, capabilities: Mapping[str, object] | None = None
) -> ChatQuirks:
    """OpenAI's ways with one model. `reasons` says that it thinks before it answers: such models refuse to be sampled
    (https://platform.openai.com/docs/guides/reasoning), and `temperature` and `top_p` are dropped.

    Models named `*-search-*` search at every call and are not sampled either
    (https://platform.openai.com/docs/guides/tools-web-search?api-mode=chat); no other searches here. The capability
    `cache_breakpoints` says that the model takes explicit marks for its prompt cache.
    """
    searches = _SEARCH_MODEL in provider_model
    quirks = OPENAI
    if reasons or searches:
        sampled: frozenset[Feature] = frozenset({"temperature", "top_p"})
        quirks = replace(quirks, takes=quirks.takes - _NOT_WITH_REASONING, drops=sampled)
    if searches:
        quirks = replace(quirks, takes=quirks.takes - {"seed"} | {"web_search"}, unreported_searches=1)
    if capabilities and capabilities.get("cache_breakpoints") is True:
        quirks = replace(quirks, cache_hints="prompt_cache_breakpoint")
    return quirks
