"""The usage that servers of OpenAI's chat dialect report, as buckets that do not overlap."""

import msgspec

from proxy.events import Usage

MAX_TOKENS = 10**12
"""A number beyond what any answer can have is no word, and would not fit where usage is kept."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _ServerTools(msgspec.Struct):
    web_search_requests: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    cached_tokens: int | None = None
    """Moonshot's,"""
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's,"""
    num_cached_tokens: int | None = None
    """and Mistral's word for what OpenAI has in the details."""
    reasoning_tokens: int | None = None
    server_tool_use: _ServerTools | None = None
    server_tool_use_details: _ServerTools | None = None
    """OpenRouter's, under its older and its newer name."""
    web_search_requests: int | None = None
    num_search_queries: int | None = None
    """Perplexity's."""
    num_sources_used: int | None = None
    """xAI's, which bills the sources: https://docs.x.ai/docs/guides/live-search."""


def read_usage(reported: object, *, reasoning_beside: bool = False, least_searches: int = 0) -> Usage | None:
    """None for what is no usage at all. `reported` is decoded JSON.

    Cached tokens are part of the prompt everywhere. Reasoning is part of the completion, except with xAI, which counts
    it beside; a total tells, and where there is none `reasoning_beside`. More details than a sum has are cut off.
    """
    try:
        usage = msgspec.convert(reported, _Usage, strict=False)
    except (msgspec.ValidationError, RecursionError):
        return None
    prompt, completion = _count(usage.prompt_tokens), _count(usage.completion_tokens)
    reasoning = _reasoning(usage)
    if reasoning and _is_beside(_count(usage.total_tokens), prompt + completion, reasoning, reasoning_beside):
        completion += reasoning
    searches = max(_searches(usage), least_searches)
    return _split_prompt(usage, prompt, _split_completion(usage, completion, reasoning), searches)


def _is_beside(total: int, counted: int, reasoning: int, otherwise: bool) -> bool:
    """With a total in which nothing adds up it is the server's way that decides."""
    if total == counted + reasoning:
        return True
    return otherwise and total != counted


def _split_completion(usage: _Usage, completion: int, reasoning: int) -> tuple[int, int, int, int]:
    """Output, reasoning, sound and images."""
    details = usage.completion_tokens_details or _CompletionDetails()
    thought = min(reasoning, completion)
    sound = min(_count(details.audio_tokens), completion - thought)
    images = min(_count(details.image_tokens), completion - thought - sound)
    return completion - thought - sound - images, thought, sound, images


def _split_prompt(usage: _Usage, prompt: int, completion: tuple[int, int, int, int], searches: int) -> Usage:
    details = usage.prompt_tokens_details or _PromptDetails()
    read = min(_cached(usage), prompt)
    written = min(_count(details.cache_write_tokens), prompt - read)
    sound = min(_count(details.audio_tokens), prompt - read - written)
    output, thought, spoken, images = completion
    return Usage(
        input_tokens=prompt - read - written - sound,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=thought,
        input_audio_tokens=sound,
        output_audio_tokens=spoken,
        output_image_tokens=images,
        searches=searches,
    )


def _cached(usage: _Usage) -> int:
    details = usage.prompt_tokens_details or _PromptDetails()
    names = (details.cached_tokens, usage.cached_tokens, usage.prompt_cache_hit_tokens, usage.num_cached_tokens)
    return max(_count(value) for value in names)


def _reasoning(usage: _Usage) -> int:
    details = usage.completion_tokens_details or _CompletionDetails()
    return _count(details.reasoning_tokens) or _count(usage.reasoning_tokens)


def _searches(usage: _Usage) -> int:
    of_tools = [tools.web_search_requests for tools in (usage.server_tool_use, usage.server_tool_use_details) if tools]
    others = (usage.web_search_requests, usage.num_search_queries, usage.num_sources_used)
    return max(_count(value) for value in (*of_tools, *others))


def _count(value: int | None) -> int:
    return value if value is not None and 0 <= value <= MAX_TOKENS else 0
