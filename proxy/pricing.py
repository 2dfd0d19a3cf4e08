"""Usage to money, in exact decimals. The hold uses the very function that charges.

Prices are US dollars per million tokens. The formula and its guards are the published ones of the product's catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_UP, Decimal

import msgspec

from proxy.chat import Usage
from proxy.errors import ModelNotPriced, UsageOutOfBounds

MILLION = Decimal(1_000_000)
SIX_PLACES = Decimal("0.000001")
MIN_RATE = Decimal("0.000001")
MAX_RATE = Decimal(1000)
MAX_TOKENS = 1_000_000_000
MAX_COST_USD = Decimal(1000)


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per million tokens, complete: every bucket has its rate."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: `long_context` rates hold for the whole request when its prompt exceeds the threshold."""

    base: Rates
    long_context_threshold: int | None = None
    long_context: Rates | None = None

    def rates_for(self, prompt_tokens: int) -> Rates:
        if self.long_context is None or self.long_context_threshold is None:
            return self.base
        return self.long_context if prompt_tokens > self.long_context_threshold else self.base


def read_price(pricing_info: Mapping[str, object]) -> Price:
    """The catalogue's `pricing_info`, whose numbers may be JSON numbers or strings.

    Raises ModelNotPriced if the input or the output rate is missing or out of bounds: such a model can't be charged.
    """
    rate = {name: found for name in pricing_info if (found := _read_rate(pricing_info[name])) is not None}
    input_rate = _first(rate, "input_per_million", "prompt_per_million")
    output_rate = _first(rate, "output_per_million", "completion_per_million")
    if input_rate is None or output_rate is None:
        raise ModelNotPriced("the model has no usable input and output price")
    cache_write = _first(rate, "cache_write_per_million")
    cache_read = _first(rate, "cache_read_per_million", "cached_input_per_million")
    base = Rates(input_rate, output_rate, _or(cache_read, input_rate), _or(cache_write, input_rate))
    threshold = _read_number(pricing_info.get("long_context_threshold"))
    if threshold is None:
        return Price(base)
    long_input = _or(_first(rate, "long_context_input_per_million"), input_rate)
    long_cache_read = _first(
        rate, "long_context_cached_input_per_million", "cached_input_per_million", "cache_read_per_million"
    )
    long_context = Rates(
        long_input,
        _or(_first(rate, "long_context_output_per_million"), output_rate),
        _or(long_cache_read, long_input),
        _or(cache_write, long_input),
    )
    return Price(base, int(threshold), long_context)


def encode_price(price: Price) -> str:
    """A price as JSON, its rates as decimal text. `decode_price` reads it."""
    return msgspec.json.encode(price).decode()


def decode_price(text: str) -> Price:
    return msgspec.json.decode(text, type=Price)


def cost_usd(price: Price, usage: Usage) -> Decimal:
    """The charge for `usage`, rounded half-even to six places. Raises UsageOutOfBounds."""
    return _exact_cost(price, usage).quantize(SIX_PLACES, rounding=ROUND_HALF_EVEN)


def worst_cost_usd(price: Price, prompt_tokens: int, max_output_tokens: int) -> Decimal:
    """What a call can cost at most, rounded up: every prompt token at the dearest input rate, every output token
    used. Base rates count for a long prompt too: the provider may count fewer tokens than we do.
    """
    possible = {price.base, price.rates_for(prompt_tokens)}
    dearest_input = max(max(rates.input, rates.cache_write, rates.cache_read) for rates in possible)
    dearest_output = max(rates.output for rates in possible)
    worst = (prompt_tokens * dearest_input + max_output_tokens * dearest_output) / MILLION
    return worst.quantize(SIX_PLACES, rounding=ROUND_UP)


def is_chargeable(price: Price, usage: Usage) -> bool:
    """Whether `cost_usd` takes the usage: numbers from outside can be anything."""
    try:
        _exact_cost(price, usage)
    except UsageOutOfBounds:
        return False
    return True


def _exact_cost(price: Price, usage: Usage) -> Decimal:
    buckets = (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )
    if min(buckets) < 0 or usage.prompt_tokens > MAX_TOKENS or usage.completion_tokens > MAX_TOKENS:
        raise UsageOutOfBounds("a provider reported a number of tokens that cannot be")
    rates = price.rates_for(usage.prompt_tokens)
    cost = (
        usage.input_tokens * rates.input
        + usage.cache_read_tokens * rates.cache_read
        + usage.cache_write_tokens * rates.cache_write
        + usage.completion_tokens * rates.output
    ) / MILLION
    if cost > MAX_COST_USD:
        raise UsageOutOfBounds(f"one call for more than {MAX_COST_USD} US dollars")
    return cost


def _read_rate(value: object) -> Decimal | None:
    rate = _read_number(value)
    return rate if rate is not None and MIN_RATE <= rate <= MAX_RATE else None


def _read_number(value: object) -> Decimal | None:
    """A number or the text of one, through its decimal text, so that a float brings no error of its own."""
    if not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


def _first(rates: Mapping[str, Decimal], *names: str) -> Decimal | None:
    return next((rates[name] for name in names if name in rates), None)


def _or(rate: Decimal | None, default: Decimal) -> Decimal:
    return default if rate is None else rate
