"""What Google counts, in our buckets."""

from typing import Any

import msgspec
import pytest

from proxy.dialects.gemini.usage import Searches, UsageMetadata, build_usage
from proxy.events import Usage


def usage(reported: dict[str, Any], searches: int = 0) -> Usage:
    return build_usage(msgspec.convert(reported, UsageMetadata), searches)


def test_usage_is_told_in_buckets_that_do_not_overlap() -> None:
    told = usage(
        {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 30,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": 50,
            "thoughtsTokenCount": 60,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 25}, {"modality": "TEXT", "tokenCount": 75}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 10}],
            "candidatesTokensDetails": [
                {"modality": "IMAGE", "tokenCount": 20},
                {"modality": "AUDIO", "tokenCount": 5},
            ],
        },
        searches=2,
    )
    assert told == Usage(
        input_tokens=75,
        cache_read_tokens=40,
        output_tokens=25,
        reasoning_tokens=60,
        input_audio_tokens=15,
        output_audio_tokens=5,
        output_image_tokens=20,
        searches=2,
    )
    assert (told.prompt_tokens, told.completion_tokens) == (130, 110)


def test_what_is_not_reported_is_none() -> None:
    assert usage({}) == Usage()
    assert usage({"promptTokensDetails": [{}], "promptTokenCount": 3}) == Usage(input_tokens=3)


def test_details_never_exceed_what_they_are_details_of() -> None:
    much = [{"modality": "AUDIO", "tokenCount": 99}, {"modality": "IMAGE", "tokenCount": 99}]
    reported = {"promptTokenCount": 5, "candidatesTokenCount": 4, "cachedContentTokenCount": 9}
    told = usage(reported | {"promptTokensDetails": much, "candidatesTokensDetails": much})
    assert told == Usage(cache_read_tokens=5, output_audio_tokens=4)


@pytest.mark.parametrize(
    ("model", "count"),
    [("gemini-2.5-pro", 1), ("models/gemini-2.0-flash", 1), ("gemini-3-flash-preview", 2), ("gemini-flash-latest", 2)],
)
def test_searches_are_counted_as_google_charges_them(model: str, count: int) -> None:
    searches = Searches()
    searches.add(["a", "", "b"])
    searches.add(["a", " "])
    assert searches.count(model) == count


@pytest.mark.parametrize("queries", [None, "a", [], [None, 5, {}], {"a": 1}])
def test_what_is_no_query_is_no_search(queries: object) -> None:
    searches = Searches()
    searches.add(queries)
    assert searches.count("gemini-3-flash-preview") == searches.count("gemini-2.5-pro") == 0


def test_queries_without_end_do_not_fill_the_memory() -> None:
    searches = Searches()
    searches.add([str(number) for number in range(5000)])
    assert searches.count("gemini-3-flash-preview") == 1000
