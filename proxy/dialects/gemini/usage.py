"""What a Gemini answer used: tokens in our buckets, and the searches that Google charges.

https://ai.google.dev/api/generate-content#UsageMetadata. Every chunk of a stream has the figures so far.
"""

from typing import Any

import msgspec

from proxy.dialects.gemini.models import FIRST_WITH_LEVELS, generation
from proxy.events import Usage

_MAX_QUERIES = 1000


class ModalityCount(msgspec.Struct, rename="camel"):
    modality: str | None = None
    token_count: int | None = None


class UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[ModalityCount] | None = None
    cache_tokens_details: list[ModalityCount] | None = None
    candidates_tokens_details: list[ModalityCount] | None = None
    tool_use_prompt_tokens_details: list[ModalityCount] | None = None


class Searches:
    """Counts what Google charges for searching: until generation 2 each answer that searched, from generation 3 on each
    query, without those that are empty or the same: https://ai.google.dev/gemini-api/docs/google-search#pricing.
    """

    def __init__(self) -> None:
        self._queries: set[str] = set()

    def add(self, queries: Any) -> None:
        """A list of texts, if the provider sent what it should."""
        if isinstance(queries, list):
            for query in queries:
                if isinstance(query, str) and query.strip() and len(self._queries) < _MAX_QUERIES:
                    self._queries.add(query)

    def count(self, model: str) -> int:
        found = len(self._queries)
        return found if generation(model) >= FIRST_WITH_LEVELS else min(found, 1)


def build_usage(usage: UsageMetadata, searches: int) -> Usage:
    """The prompt holds its cached tokens; what tools read (`toolUse`) and thoughts stand beside prompt and candidates.
    """
    prompt = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
    cached = min(usage.cached_content_token_count or 0, prompt)
    sound = _of(usage.prompt_tokens_details, "AUDIO") + _of(usage.tool_use_prompt_tokens_details, "AUDIO")
    uncached_sound = _within(sound - _of(usage.cache_tokens_details, "AUDIO"), prompt - cached)
    output = usage.candidates_token_count or 0
    spoken = _within(_of(usage.candidates_tokens_details, "AUDIO"), output)
    drawn = _within(_of(usage.candidates_tokens_details, "IMAGE"), output - spoken)
    return Usage(
        input_tokens=prompt - cached - uncached_sound,
        cache_read_tokens=cached,
        output_tokens=output - spoken - drawn,
        reasoning_tokens=usage.thoughts_token_count or 0,
        input_audio_tokens=uncached_sound,
        output_audio_tokens=spoken,
        output_image_tokens=drawn,
        searches=searches,
    )


def _of(counts: list[ModalityCount] | None, modality: str) -> int:
    return sum(count.token_count or 0 for count in counts or () if count.modality == modality)


def _within(tokens: int, limit: int) -> int:
    return max(0, min(tokens, limit))
