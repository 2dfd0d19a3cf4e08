"""Money: exact, rounded once, and never more than was held."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import Usage
from proxy.errors import ModelNotPriced, UsageOutOfBounds
from proxy.pricing import (
    MAX_TOKENS,
    MIN_RATE,
    Price,
    Rates,
    cost_usd,
    decode_price,
    encode_price,
    is_chargeable,
    read_price,
    worst_cost_usd,
)

ANTHROPIC = {
    "input_per_million": 3,
    "output_per_million": 15,
    "cache_write_per_million": 3.75,
    "cache_read_per_million": 0.30,
}
LONG = {
    "input_per_million": 1.25,
    "output_per_million": 10,
    "cache_read_per_million": 0.31,
    "long_context_threshold": 200_000,
    "long_context_input_per_million": 2.50,
    "long_context_output_per_million": 15,
    "long_context_cached_input_per_million": 0.625,
}
PLAIN = read_price({"input_per_million": 1, "output_per_million": 2})
CHEAPEST = Price(Rates(MIN_RATE, MIN_RATE, MIN_RATE, MIN_RATE))


def usage_of(prompt: int, completion: int, cache_write: int = 0, cache_read: int = 0) -> Usage:
    """As the contract counts: the prompt holds what was cached."""
    return Usage(prompt - cache_write - cache_read, cache_read, cache_write, completion)


@pytest.mark.parametrize(
    ("pricing", "usage", "cost"),
    [
        (
            {"input_per_million": 0.5, "output_per_million": 1.5, "cached_input_per_million": 0.25},
            usage_of(1000, 500, cache_read=200),
            "0.001200",
        ),
        (ANTHROPIC, usage_of(1000, 500, cache_write=200, cache_read=300), "0.009840"),
        (LONG, usage_of(250_000, 3000, cache_read=50_000), "0.576250"),
        ({"input_per_million": "0.0195", "output_per_million": 1}, usage_of(1000, 0), "0.000020"),
        ({"input_per_million": "0.0205", "output_per_million": 1}, usage_of(1000, 0), "0.000020"),
        ({"input_per_million": "0.0215", "output_per_million": 1}, usage_of(1000, 0), "0.000022"),
        (ANTHROPIC, Usage(), "0.000000"),
    ],
)
def test_the_vectors_of_the_contract_hold(pricing: dict[str, object], usage: Usage, cost: str) -> None:
    assert str(cost_usd(read_price(pricing), usage)) == cost


def test_more_cached_tokens_than_the_prompt_has_cannot_be() -> None:
    with pytest.raises(UsageOutOfBounds):
        cost_usd(PLAIN, usage_of(100, 5, cache_read=101))


def test_reasoning_costs_what_output_costs() -> None:
    assert cost_usd(PLAIN, Usage(output_tokens=10, reasoning_tokens=90)) == cost_usd(PLAIN, Usage(output_tokens=100))


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=-1),
        Usage(cache_read_tokens=-1, input_tokens=5),
        Usage(cache_write_tokens=-1, input_tokens=5),
        Usage(output_tokens=-1, reasoning_tokens=5),
        Usage(output_tokens=5, reasoning_tokens=-1),
        Usage(input_tokens=MAX_TOKENS + 1),
        Usage(input_tokens=MAX_TOKENS, cache_read_tokens=1),
        Usage(output_tokens=MAX_TOKENS, reasoning_tokens=1),
        Usage(input_tokens=10**40),
    ],
)
def test_usage_that_cannot_be_has_no_price(usage: Usage) -> None:
    """However cheap it would be."""
    assert not is_chargeable(CHEAPEST, usage)
    with pytest.raises(UsageOutOfBounds):
        cost_usd(CHEAPEST, usage)


def test_a_call_costs_a_thousand_dollars_at_most() -> None:
    assert cost_usd(PLAIN, Usage(input_tokens=MAX_TOKENS)) == 1000
    with pytest.raises(UsageOutOfBounds):
        cost_usd(PLAIN, Usage(input_tokens=MAX_TOKENS - 1, output_tokens=1))


def test_the_bounds_of_usage_are_usable() -> None:
    assert is_chargeable(CHEAPEST, Usage(MAX_TOKENS - 2, 1, 1, MAX_TOKENS - 1, 1))


def test_a_hold_is_rounded_up() -> None:
    assert str(worst_cost_usd(CHEAPEST, 1, 0)) == "0.000001"


def test_a_hold_for_a_long_prompt_covers_a_short_one_at_dearer_rates() -> None:
    """The provider may count fewer tokens than we do."""
    price = Price(PLAIN.base, 100, CHEAPEST.base)
    assert worst_cost_usd(price, 101, 50) >= cost_usd(price, Usage(100, output_tokens=50))


def test_long_context_begins_above_the_threshold_and_counts_cached_tokens() -> None:
    price = read_price(LONG)
    assert price.rates_for(200_000).input == Decimal("1.25")
    assert price.rates_for(200_001) == Rates(Decimal("2.5"), Decimal(15), Decimal("0.625"), Decimal("2.5"))
    assert cost_usd(price, Usage(100_000, 100_001)) == (
        Decimal(100_000) * Decimal("2.5") + Decimal(100_001) * Decimal("0.625")
    ).scaleb(-6).quantize(Decimal("0.000001"))


@pytest.mark.parametrize(
    ("cached", "rate"),
    [
        ({"long_context_cached_input_per_million": 3, "cached_input_per_million": 2, "cache_read_per_million": 1}, 3),
        ({"cached_input_per_million": 2, "cache_read_per_million": 1}, 2),
        ({"cache_read_per_million": 1}, 1),
        ({}, 7),
    ],
)
def test_the_rate_of_cached_tokens_in_a_long_prompt_is_the_most_special(cached: dict[str, object], rate: int) -> None:
    pricing = {
        "input_per_million": 5,
        "output_per_million": 9,
        "long_context_threshold": 10,
        "long_context_input_per_million": 7,
    }
    rates = read_price(pricing | cached).rates_for(11)
    assert rates == Rates(Decimal(7), Decimal(9), Decimal(rate), Decimal(7))


def test_below_the_threshold_the_rate_of_cache_reads_wins_over_its_older_name() -> None:
    pricing = {**ANTHROPIC, "cached_input_per_million": 2}
    assert read_price(pricing).base.cache_read == Decimal("0.3")


def test_older_names_of_the_rates_are_known() -> None:
    assert read_price({"prompt_per_million": 1, "completion_per_million": 2}) == PLAIN


def test_a_number_may_be_a_string_and_a_float_is_taken_at_its_word() -> None:
    as_text = {name: str(value) for name, value in LONG.items()}
    assert read_price(as_text) == read_price(LONG)
    assert read_price({"input_per_million": 0.1, "output_per_million": 1e-1}).base.input == Decimal("0.1")


@pytest.mark.parametrize(
    "rate", [None, 0, -1, 0.0000001, 1000.01, True, "", "free", "NaN", "Infinity", "sNaN", "1e999999999999", [], {}]
)
@pytest.mark.parametrize("name", ["input_per_million", "output_per_million"])
def test_a_model_without_a_usable_rate_has_no_price(name: str, rate: object) -> None:
    with pytest.raises(ModelNotPriced):
        read_price({"input_per_million": 1, "output_per_million": 2, name: rate})


@pytest.mark.parametrize("rate", [0.000001, 1000, "0.000001", "1000.0"])
def test_the_bounds_of_a_rate_are_usable(rate: object) -> None:
    assert read_price({"input_per_million": rate, "output_per_million": 1}).base.input == Decimal(str(rate))


@pytest.mark.parametrize("threshold", [None, "", "NaN", float("inf"), float("nan"), True, []])
def test_a_threshold_that_is_no_number_is_none(threshold: object) -> None:
    assert read_price({**LONG, "long_context_threshold": threshold}).long_context is None


RATES = st.decimals("0.000001", "1000", places=6).filter(lambda rate: rate > 0)
ALL_RATES = st.builds(Rates, RATES, RATES, RATES, RATES)
PRICES = st.builds(Price, ALL_RATES) | st.builds(Price, ALL_RATES, st.integers(0, 5000), ALL_RATES)
TOKENS = st.integers(0, 5000)


@given(PRICES)
def test_a_price_survives_its_encoding(price: Price) -> None:
    assert decode_price(encode_price(price)) == price


@given(PRICES, TOKENS, TOKENS, st.data())
def test_no_usage_within_its_bounds_costs_more_than_was_held(
    price: Price, prompt_tokens: int, output_tokens: int, data: st.DataObject
) -> None:
    prompt = data.draw(st.integers(0, prompt_tokens))
    cache_read = data.draw(st.integers(0, prompt))
    cache_write = data.draw(st.integers(0, prompt - cache_read))
    output = data.draw(st.integers(0, output_tokens))
    reasoning = data.draw(st.integers(0, output_tokens - output))
    usage = Usage(prompt - cache_read - cache_write, cache_read, cache_write, output, reasoning)
    assert cost_usd(price, usage) <= worst_cost_usd(price, prompt_tokens, output_tokens)


@given(PRICES, TOKENS, TOKENS)
def test_a_hold_is_a_charge_with_six_places(price: Price, prompt_tokens: int, output_tokens: int) -> None:
    exponent = worst_cost_usd(price, prompt_tokens, output_tokens).as_tuple().exponent
    assert exponent == cost_usd(price, Usage(prompt_tokens)).as_tuple().exponent == -6
