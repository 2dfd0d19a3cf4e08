"""Every server's usage in buckets that do not overlap."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat.usage import read_usage
from proxy.events import Usage


def usage(prompt: int = 100, completion: int = 50, **rest: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **rest}


def test_details_are_taken_out_of_their_sums() -> None:
    reported = usage(
        prompt_tokens_details={"cached_tokens": 10, "cache_write_tokens": 20, "audio_tokens": 5, "image_tokens": 7},
        completion_tokens_details={"reasoning_tokens": 30, "audio_tokens": 4, "image_tokens": 6},
    )
    assert read_usage(reported) == Usage(
        input_tokens=65,
        cache_read_tokens=10,
        cache_write_tokens=20,
        input_audio_tokens=5,
        output_tokens=10,
        reasoning_tokens=30,
        output_audio_tokens=4,
        output_image_tokens=6,
    )


@pytest.mark.parametrize("total", [180, None])
def test_reasoning_that_is_counted_beside_is_added(total: int | None) -> None:
    reported = usage(total_tokens=total, completion_tokens_details={"reasoning_tokens": 30})
    read = read_usage(reported, reasoning_beside=True)
    assert read == Usage(input_tokens=100, output_tokens=50, reasoning_tokens=30)


@pytest.mark.parametrize("total", [150, None])
def test_reasoning_that_is_part_of_the_completion_is_taken_out(total: int | None) -> None:
    reported = usage(total_tokens=total, completion_tokens_details={"reasoning_tokens": 30})
    assert read_usage(reported) == Usage(input_tokens=100, output_tokens=20, reasoning_tokens=30)


@pytest.mark.parametrize("reasoning_beside", [True, False])
def test_a_total_that_adds_up_tells_how_the_server_counts(reasoning_beside: bool) -> None:
    details = {"reasoning_tokens": 30}
    beside = read_usage(usage(total_tokens=180, completion_tokens_details=details), reasoning_beside=reasoning_beside)
    inside = read_usage(usage(total_tokens=150, completion_tokens_details=details), reasoning_beside=reasoning_beside)
    assert (beside, inside) == (Usage(100, output_tokens=50, reasoning_tokens=30), Usage(100, 0, 0, 20, 30))


def test_more_reasoning_than_completion_is_cut_off() -> None:
    reported = usage(100, 20, total_tokens=120, completion_tokens_details={"reasoning_tokens": 30})
    assert read_usage(reported) == Usage(input_tokens=100, reasoning_tokens=20)


@pytest.mark.parametrize(
    "cached",
    [
        {"prompt_tokens_details": {"cached_tokens": 40}},
        {"prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 60},
        {"num_cached_tokens": 40, "prompt_tokens_details": None},
        {"cached_tokens": 40},
    ],
)
def test_cached_tokens_have_many_names(cached: dict[str, Any]) -> None:
    assert read_usage(usage(**cached)) == Usage(input_tokens=60, cache_read_tokens=40, output_tokens=50)


@pytest.mark.parametrize(
    "searched",
    [
        {"server_tool_use": {"web_search_requests": 2}},
        {"server_tool_use_details": {"web_search_requests": 2, "tool_calls_executed": 3}},
        {"num_search_queries": 2},
        {"num_sources_used": 2},
        {"web_search_requests": "2"},
    ],
)
def test_searches_have_many_names(searched: dict[str, Any]) -> None:
    assert read_usage(usage(**searched)) == Usage(input_tokens=100, output_tokens=50, searches=2)


def test_searches_that_nobody_reports_are_counted() -> None:
    assert read_usage(usage(), least_searches=1) == Usage(input_tokens=100, output_tokens=50, searches=1)
    assert read_usage(usage(num_search_queries=3), least_searches=1) == Usage(100, 0, 0, 50, searches=3)


def test_numbers_may_be_texts_or_have_a_fraction_of_zero() -> None:
    assert read_usage({"prompt_tokens": "12", "completion_tokens": 3.0}) == Usage(input_tokens=12, output_tokens=3)


@pytest.mark.parametrize("reported", [None, 1, [], "x", {"prompt_tokens": []}, {"prompt_tokens_details": [1]}])
def test_what_is_no_usage_is_none(reported: object) -> None:
    assert read_usage(reported) is None


@pytest.mark.parametrize("odd", [-5, 10**13, 10**40])
def test_numbers_that_cannot_be_are_no_word(odd: int) -> None:
    assert read_usage({"prompt_tokens": odd, "completion_tokens": 3}) == Usage(output_tokens=3)


COUNTS = st.none() | st.integers(-10, 1000)
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens", "image_tokens"]), COUNTS
)
REPORTED = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNTS,
        "completion_tokens": COUNTS,
        "total_tokens": COUNTS,
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS,
    },
)


@given(REPORTED, st.booleans())
def test_no_bucket_is_negative_and_the_prompt_adds_up(reported: dict[str, Any], beside: bool) -> None:
    read = read_usage(reported, reasoning_beside=beside)
    assert read is not None
    buckets = (read.input_tokens, read.cache_read_tokens, read.cache_write_tokens, read.input_audio_tokens)
    outputs = (read.output_tokens, read.reasoning_tokens, read.output_audio_tokens, read.output_image_tokens)
    assert min(*buckets, *outputs) >= 0
    assert read.prompt_tokens == max(reported.get("prompt_tokens") or 0, 0)
    assert read.completion_tokens >= max(reported.get("completion_tokens") or 0, 0)
