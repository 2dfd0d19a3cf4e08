"""Estimates: the contract's formula by hand, its guards, and the charge that follows."""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ModelUnknown
from proxy.events import Usage
from proxy.pricing import MAX_TOKENS, Price, Rates, cost_usd, read_price
from proxy.routing import Model
from server.errors import ArgumentInvalid
from server.estimates import (
    MAX_MODEL_CHARACTERS,
    MAX_REQUESTS,
    CostEstimate,
    CostEstimatesWish,
    CostEstimateWish,
    TokenEstimateWish,
    check_model_name,
    estimate_cost,
    estimate_costs,
    sum_up,
)

ANTHROPIC = {
    "input_per_million": 3,
    "output_per_million": 15,
    "cache_write_per_million": 3.75,
    "cache_read_per_million": 0.30,
}
OPENAI = {"input_per_million": 0.4, "output_per_million": 1.6, "cached_input_per_million": 0.1}
GOOGLE = {
    "input_per_million": 1.25,
    "output_per_million": 10,
    "cached_input_per_million": 0.31,
    "long_context_threshold": 200_000,
    "long_context_input_per_million": 2.50,
    "long_context_output_per_million": 15,
    "long_context_cached_input_per_million": 0.625,
}
XAI = {
    "input_per_million": 3,
    "output_per_million": 15,
    "long_context_threshold": 128_000,
    "long_context_input_per_million": 6,
    "long_context_output_per_million": 30,
}
FREE = {"input_per_million": 0, "output_per_million": "0.00"}
CHEAP = {"input_per_million": "0.000001", "output_per_million": "0.000001"}
Counts = tuple[int, int, int | None, int | None]
OLDER = {"prompt_per_million": 1, "completion_per_million": 2}


def offer(price: Price) -> dict[str, Model]:
    return {"m/x": Model("m/x", "X", "m", 0, 1000, price, sees_images=False, provider_models={})}


def estimate(
    pricing: Mapping[str, object],
    input_tokens: int,
    output_tokens: int,
    cache_write_tokens: int | None = None,
    cache_read_tokens: int | None = None,
) -> CostEstimate:
    wish = CostEstimateWish("m/x", input_tokens, output_tokens, cache_write_tokens, cache_read_tokens)
    return estimate_cost(offer(read_price(pricing)), wish)


def show(estimated: CostEstimate) -> tuple[str | None, ...]:
    parts = estimated.cost_breakdown
    costs = (parts.input_cost, parts.output_cost, parts.cache_write_cost, parts.cache_read_cost)
    return (estimated.estimated_cost, *costs)


@pytest.mark.parametrize(
    ("pricing", "counts", "costs"),
    [
        (ANTHROPIC, (1000, 500, 200, 300), ("0.00984", "0.0015", "0.0075", "0.00075", "0.00009")),
        (ANTHROPIC, (1000, 500, None, None), ("0.0105", "0.003", "0.0075", None, None)),
        (ANTHROPIC, (1000, 500, 0, None), ("0.0105", "0.003", "0.0075", "0", None)),
        (OPENAI, (1000, 0, None, 999), ("0.0001003", "0.0000004", "0", None, "0.0000999")),
        (OPENAI, (1000, 0, 1000, 0), ("0.0004", "0", "0", "0.0004", "0")),
        (GOOGLE, (200_000, 1000, None, 100_000), ("0.166", "0.125", "0.01", None, "0.031")),
        (GOOGLE, (200_001, 1000, None, 100_000), ("0.3275025", "0.2500025", "0.015", None, "0.0625")),
        (XAI, (128_000, 1, 28_000, 100_000), ("0.384015", "0", "0.000015", "0.084", "0.3")),
        (XAI, (128_001, 1, 28_000, 100_001), ("0.768036", "0", "0.00003", "0.168", "0.600006")),
        (FREE, (MAX_TOKENS, MAX_TOKENS, None, 0), ("0", "0", "0", None, "0")),
        (CHEAP, (1, 0, None, None), ("0.000000000001", "0.000000000001", "0", None, None)),
        (ANTHROPIC, (0, 0, None, None), ("0", "0", "0", None, None)),
        (OLDER, (10**9, 0, None, None), ("1000", "1000", "0", None, None)),
    ],
)
def test_the_formula_of_the_contract_by_hand(
    pricing: dict[str, object], counts: Counts, costs: tuple[str | None, ...]
) -> None:
    assert show(estimate(pricing, *counts)) == costs


def test_an_estimate_tells_what_it_was_asked() -> None:
    estimated = msgspec.to_builtins(estimate(ANTHROPIC, 10, 5, 3, None))
    assert estimated == {
        "modelId": "m/x",
        "inputTokens": 10,
        "outputTokens": 5,
        "cacheWriteTokens": 3,
        "cacheReadTokens": 0,
        "estimatedCost": "0.00010725",
        "costBreakdown": {
            "inputCost": "0.000021",
            "outputCost": "0.000075",
            "cacheWriteCost": "0.00001125",
            "cacheReadCost": None,
        },
        "pricingModel": "Token-based (flexible JSON pricing)",
    }


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ((-1, 0, None, None), ["inputTokens"]),
        ((MAX_TOKENS + 1, 0, None, None), ["inputTokens"]),
        ((2**31, 0, None, None), ["inputTokens"]),
        ((10**40, 0, None, None), ["inputTokens"]),
        ((0, -1, None, None), ["outputTokens"]),
        ((0, MAX_TOKENS + 1, None, None), ["outputTokens"]),
        ((5, 0, -1, None), ["cacheWriteTokens"]),
        ((5, 0, None, -1), ["cacheReadTokens"]),
        ((5, 0, None, MAX_TOKENS + 1), ["cacheReadTokens"]),
        ((5, 0, 3, 3), ["cacheWriteTokens", "cacheReadTokens", "inputTokens"]),
        ((MAX_TOKENS, 0, None, None), ["inputTokens", "outputTokens", "1000 US dollars"]),
    ],
)
def test_what_is_out_of_its_bounds_is_refused_by_name(counts: Counts, names: list[str]) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        estimate(ANTHROPIC, *counts)
    assert [name for name in names if name not in str(caught.value)] == []


def test_the_bounds_themselves_are_fine() -> None:
    assert estimate(CHEAP, MAX_TOKENS, MAX_TOKENS, 1, MAX_TOKENS - 1).estimated_cost == "0.002"


def test_an_unknown_model_has_no_estimate() -> None:
    with pytest.raises(ModelUnknown, match="m/y"):
        estimate_cost(offer(read_price(ANTHROPIC)), CostEstimateWish("m/y", 1, 1))


def test_a_batch_is_the_sum_of_its_estimates() -> None:
    wishes = [CostEstimateWish("m/x", count, 1) for count in (1, 10, 100)]
    found = sum_up(list(estimate_costs(offer(read_price(ANTHROPIC)), CostEstimatesWish(wishes))))
    assert [one.estimated_cost for one in found.estimates] == ["0.000018", "0.000045", "0.000315"]
    assert found.total_estimated_cost == "0.000378"
    assert sum_up([]).total_estimated_cost == "0"


@pytest.mark.parametrize(
    ("bad", "error", "told"),
    [
        (CostEstimateWish("m/y", 1, 1), ModelUnknown, "requests[2].modelId"),
        (CostEstimateWish("m/x", -1, 1), ArgumentInvalid, "requests[2].inputTokens"),
        (CostEstimateWish("m/x", 1, 1, 1, 1), ArgumentInvalid, "requests[2].cacheReadTokens"),
        (CostEstimateWish("m/x", 10**9, 1), ArgumentInvalid, "requests[2].inputTokens, requests[2].outputTokens"),
    ],
)
def test_the_first_call_of_a_batch_that_fails_is_named(
    bad: CostEstimateWish, error: type[Exception], told: str
) -> None:
    good, worse = CostEstimateWish("m/x", 1, 1), CostEstimateWish("m/x", 1, -1)
    wish = CostEstimatesWish([good, good, bad, worse])
    with pytest.raises(error, match=re.escape(told)):
        list(estimate_costs(offer(read_price(ANTHROPIC)), wish))


def test_a_batch_has_a_thousand_calls_at_most() -> None:
    wishes, models = [CostEstimateWish("m/x", 1, 1)] * MAX_REQUESTS, offer(read_price(FREE))
    assert len(list(estimate_costs(models, CostEstimatesWish(wishes)))) == 1000
    with pytest.raises(ArgumentInvalid, match="requests"):
        list(estimate_costs(models, CostEstimatesWish([*wishes, wishes[0]])))


def test_a_name_that_would_fill_the_memory_is_refused() -> None:
    check_model_name(TokenEstimateWish("m" * MAX_MODEL_CHARACTERS, ""))
    with pytest.raises(ArgumentInvalid, match="model"):
        check_model_name(TokenEstimateWish("m" * (MAX_MODEL_CHARACTERS + 1), ""))


RATES = st.just(Decimal(0)) | st.decimals("0.000001", "1000", places=6)
ALL_RATES = st.builds(Rates, RATES, RATES, RATES, RATES)
PRICES = st.builds(Price, ALL_RATES) | st.builds(Price, ALL_RATES, st.integers(0, 300_000), ALL_RATES)
COUNTS = st.none() | st.integers(0, 150_000)


@given(PRICES, st.integers(0, 150_000), COUNTS, COUNTS, st.integers(0, 400_000))
def test_an_estimate_rounded_is_the_charge_and_its_parts_add_up(
    price: Price, uncached: int, write: int | None, read: int | None, output: int
) -> None:
    usage = Usage(uncached, read or 0, write or 0, output)
    wish = CostEstimateWish("m/x", usage.prompt_tokens, output, write, read)
    total, *parts = [Decimal(text) for text in show(estimate_cost(offer(price), wish)) if text is not None]
    assert total.quantize(Decimal("0.000001"), ROUND_HALF_EVEN) == cost_usd(price, usage)
    assert sum(parts) == total


@given(PRICES, st.integers(0, MAX_TOKENS))
def test_money_is_written_without_an_exponent(price: Price, count: int) -> None:
    def plain(text: Any) -> bool:
        return text is None or re.fullmatch(r"0|[1-9]\d*|\d+\.\d*[1-9]", text) is not None

    try:
        shown = show(estimate_cost(offer(price), CostEstimateWish("m/x", count, count, 0, count)))
    except ArgumentInvalid:
        return  # dearer than a call may be
    assert all(plain(text) for text in shown), shown
