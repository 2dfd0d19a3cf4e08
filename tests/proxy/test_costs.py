"""What a cost is made of: parts that add up, whatever the price."""

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UsageOutOfBounds
from proxy.events import Usage
from proxy.pricing import MAX_TOKENS, Price, Rates, cost_usd, split_cost

RATES = st.decimals("0.000001", "1000", places=12)
PRICES = st.builds(
    Price,
    st.builds(Rates, *[RATES] * 8),
    st.integers(0, 500_000),
    st.builds(Rates, *[RATES] * 8),
    st.none() | RATES,
)
USAGES = st.builds(Usage, *[st.integers(0, 100_000)] * 9, st.integers(0, 100))


@given(PRICES, USAGES)
def test_the_parts_of_a_cost_add_up_exactly_to_what_is_rounded_and_charged(price: Price, usage: Usage) -> None:
    """In fractions: a sum of decimals could be rounded unseen."""
    costs = split_cost(price, usage)
    parts = (costs.input_usd, costs.cache_read_usd, costs.cache_write_usd, costs.output_usd, costs.searches_usd)
    assert sum(map(Fraction, parts)) == Fraction(costs.total_usd) == exact_cost(price, usage)
    assert costs.total_usd.quantize(Decimal("0.000001"), ROUND_HALF_EVEN) == cost_usd(price, usage)


def exact_cost(price: Price, usage: Usage) -> Fraction:
    """Bucket by bucket, where every rate is there."""
    rates = price.rates_for(usage.prompt_tokens)
    pairs = (
        (usage.input_tokens, rates.input),
        (usage.output_tokens, rates.output),
        (usage.reasoning_tokens, rates.output),
        (usage.cache_read_tokens, rates.cache_read),
        (usage.cache_write_tokens, rates.cache_write),
        (usage.cache_write_1h_tokens, rates.cache_write_1h),
        (usage.input_audio_tokens, rates.audio_input),
        (usage.output_audio_tokens, rates.audio_output),
        (usage.output_image_tokens, rates.image_output),
        (usage.searches * 1000, price.web_search_per_thousand),
    )
    return sum((tokens * Fraction(rate or 0) for tokens, rate in pairs), Fraction(0)) / 1_000_000


def test_what_cannot_be_charged_is_not_split() -> None:
    with pytest.raises(UsageOutOfBounds):
        split_cost(Price(Rates(*[Decimal(1)] * 4)), Usage(input_tokens=MAX_TOKENS + 1))
