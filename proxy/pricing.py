"""Usage to money, in exact decimals. The hold uses the very function that charges.

Prices are US dollars per million tokens, and per thousand searches. The formula and its guards are the published ones
of the product's catalogue.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_EVEN, ROUND_UP, Decimal
from operator import attrgetter
from typing import Literal

import msgspec

from proxy.chat import Attached, Audio, ChatRequest
from proxy.errors import ModelNotPriced, RequestNotSupported, UsageOutOfBounds
from proxy.events import Usage

MILLION = Decimal(1_000_000)
SIX_PLACES = Decimal("0.000001")
MIN_RATE = Decimal("0.000001")
MAX_RATE = Decimal(1000)
MAX_TOKENS = 1_000_000_000
MAX_COST_USD = Decimal(1000)

Extra = Literal["cache_write_1h_tokens", "input_audio_tokens", "output_audio_tokens", "output_image_tokens"]
"""Buckets of Usage that a call fills only if its request asks for it, so that others need not hold for them."""

_LONG = "long_context_"
"""So begins the name of a rate for long prompts; one that has none stays as it is."""

_read_buckets = attrgetter(*(field.name for field in fields(Usage)))
_PROMPT_BUCKETS = ("input_tokens", "cache_read_tokens", "cache_write_tokens")
_EXTRA_PROMPT_BUCKETS: tuple[Extra, ...] = ("cache_write_1h_tokens", "input_audio_tokens")
_EXTRA_OUTPUT_BUCKETS: tuple[Extra, ...] = ("output_audio_tokens", "output_image_tokens")


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per million tokens; 0 is free. None where a model has no rate of its own: the bucket costs what the
    more general one does. What is computed with rates of up to twelve decimal places is exact; price lists have four.
    """

    input: Decimal
    output: Decimal
    """Reasoning costs the same."""
    cache_read: Decimal
    """Also of sound: no provider says which of the cached tokens were sound."""
    cache_write: Decimal
    cache_write_1h: Decimal | None = None
    """None: as cache_write."""
    audio_input: Decimal | None = None
    """None: as input."""
    audio_output: Decimal | None = None
    """None: as output, and such a model is not asked for sound."""
    image_output: Decimal | None = None
    """None: as output, and such a model is not asked for images."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: `long_context` rates hold for the whole request when its prompt exceeds the threshold."""

    base: Rates
    long_context_threshold: int | None = None
    long_context: Rates | None = None
    web_search_per_thousand: Decimal | None = None
    """None: searches cost nothing, and such a model is not asked to search."""

    def rates_for(self, prompt_tokens: int) -> Rates:
        if self.long_context is None or self.long_context_threshold is None:
            return self.base
        return self.long_context if prompt_tokens > self.long_context_threshold else self.base


@dataclass(frozen=True, slots=True)
class Costs:
    """What usage costs, and for what: exact US dollars, unrounded. The parts add up to the total."""

    total_usd: Decimal
    input_usd: Decimal
    """What was not cached, sound too."""
    cache_read_usd: Decimal
    cache_write_usd: Decimal
    output_usd: Decimal
    searches_usd: Decimal


def read_price(pricing_info: Mapping[str, object]) -> Price:
    """The catalogue's `pricing_info`, whose numbers may be JSON numbers or strings.

    Raises ModelNotPriced if the input or the output rate is missing or out of bounds: such a model can't be charged. A
    rate of 0 is not missing, but free. One that is missing elsewhere is that of the more general bucket;
    `cache_write_1h_per_million` is that of `cache_write_per_million`, though Anthropic, the one provider that has it,
    asks for 1.6 times as much: say it.
    `cached_audio_input_per_million` and storage by the hour are not read: usage has no bucket for them.
    """
    rate = {name: found for name in pricing_info if (found := _read_rate(pricing_info[name])) is not None}
    input_rate = _first(rate, "input_per_million", "prompt_per_million")
    output_rate = _first(rate, "output_per_million", "completion_per_million")
    if input_rate is None or output_rate is None:
        raise ModelNotPriced("the model has no usable input and output price")
    cache_read = _first(rate, "cache_read_per_million", "cached_input_per_million")
    base = _build_rates(rate, input_rate, output_rate, cache_read)
    searches = rate.get("web_search_per_thousand")
    threshold = _read_number(pricing_info.get("long_context_threshold"))
    if threshold is None:
        return Price(base, web_search_per_thousand=searches)
    long_cache_read = _first(
        rate, "long_context_cached_input_per_million", "cached_input_per_million", "cache_read_per_million"
    )
    long_input = _or(rate.get("long_context_input_per_million"), input_rate)
    long_output = _or(rate.get("long_context_output_per_million"), output_rate)
    long_rate = rate | {name.removeprefix(_LONG): rate[name] for name in rate if name.startswith(_LONG)}
    return Price(base, int(threshold), _build_rates(long_rate, long_input, long_output, long_cache_read), searches)


def encode_price(price: Price) -> str:
    """A price as JSON, its rates as decimal text. `decode_price` reads it."""
    return msgspec.json.encode(price).decode()


def decode_price(text: str) -> Price:
    """Also of a hold from before there were rates for sound, images, searches and the longer cache."""
    return msgspec.json.decode(text, type=Price)


def cost_usd(price: Price, usage: Usage) -> Decimal:
    """The charge for `usage`, rounded half-even to six places. Raises UsageOutOfBounds."""
    return _exact_cost(price, usage).quantize(SIX_PLACES, rounding=ROUND_HALF_EVEN)


def split_cost(price: Price, usage: Usage) -> Costs:
    """The charge before it is rounded, and what it is made of. Raises UsageOutOfBounds."""
    total = _exact_cost(price, usage)
    input_, cache_read, cache_write, output = _token_parts(price.rates_for(usage.prompt_tokens), usage)
    return Costs(
        total_usd=total,
        input_usd=input_ / MILLION,
        cache_read_usd=cache_read / MILLION,
        cache_write_usd=cache_write / MILLION,
        output_usd=output / MILLION,
        searches_usd=_search_cost(price, usage.searches),
    )


def worst_cost_usd(
    price: Price,
    prompt_tokens: int,
    max_output_tokens: int,
    max_searches: int = 0,
    extras: frozenset[Extra] = frozenset(),
) -> Decimal:
    """What a call can cost at most, rounded up: every prompt token in the dearest bucket, every output token used.

    `extras` and `max_searches` are what `find_extras` and `count_searches` say of it. Base rates count for a
    long prompt too: the provider may count fewer tokens than we do.
    """
    worst = max(
        max(_token_cost(rates, usage) for usage in _possible_prompts(prompt_tokens, extras))
        + max(_token_cost(rates, usage) for usage in _possible_outputs(max_output_tokens, extras))
        for rates in {price.base, price.rates_for(prompt_tokens)}
    )
    return (worst + _search_cost(price, max_searches)).quantize(SIX_PLACES, rounding=ROUND_UP)


def is_chargeable(price: Price, usage: Usage) -> bool:
    """Whether `cost_usd` takes the usage: numbers from outside can be anything."""
    try:
        _exact_cost(price, usage)
    except UsageOutOfBounds:
        return False
    return True


def check_priced(price: Price, request: ChatRequest) -> None:
    """Raises RequestNotSupported, naming the field, for what the model could do and we could not charge: searches, and
    sound or images of a model without a rate of their own. Tools of the provider's own are its file's to refuse.
    """
    extras = find_extras(request)
    unpriced = {
        "web_search": request.web_search is not None and price.web_search_per_thousand is None,
        "audio_output": "output_audio_tokens" in extras and price.base.audio_output is None,
        "image_output": "output_image_tokens" in extras and price.base.image_output is None,
    }
    for field, is_unpriced in unpriced.items():
        if is_unpriced:
            raise RequestNotSupported(f"{field}: this model has no price for it here; leave it out")


def find_extras(request: ChatRequest) -> frozenset[Extra]:
    """The dearer buckets that the answer to this request may fill."""
    parts = [part for message in request.messages for part in message.parts]
    marked = (request, *request.tools, *parts)
    asked: dict[Extra, bool] = {
        "cache_write_1h_tokens": any(_is_cached_for_an_hour(thing) for thing in marked),
        "input_audio_tokens": any(isinstance(part, Audio | Attached) for part in parts),
        "output_audio_tokens": "audio" in request.modalities or request.audio_output is not None,
        "output_image_tokens": "image" in request.modalities,
    }
    return frozenset(extra for extra, is_asked in asked.items() if is_asked)


def count_searches(request: ChatRequest, capabilities: Mapping[str, object]) -> int:
    """How many searches to hold for: what the request bounds them to, else what the model does unasked (the capability
    `searches_unasked`). Where a provider cannot be told a bound there may be more; they are charged.
    """
    if request.web_search is not None:
        return request.web_search.max_searches
    unasked = capabilities.get("searches_unasked")
    return unasked if isinstance(unasked, int) else 0


def _exact_cost(price: Price, usage: Usage) -> Decimal:
    if min(_read_buckets(usage)) < 0 or max(usage.prompt_tokens, usage.completion_tokens, usage.searches) > MAX_TOKENS:
        raise UsageOutOfBounds("a provider reported a number of tokens that cannot be")
    cost = _token_cost(price.rates_for(usage.prompt_tokens), usage) + _search_cost(price, usage.searches)
    if cost > MAX_COST_USD:
        raise UsageOutOfBounds(f"one call for more than {MAX_COST_USD} US dollars")
    return cost


def _token_cost(rates: Rates, usage: Usage) -> Decimal:
    input_, cache_read, cache_write, output = _token_parts(rates, usage)
    return (input_ + cache_read + cache_write + output) / MILLION


def _token_parts(rates: Rates, usage: Usage) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Millionths of a US dollar for input, cache reads, cache writes and output."""
    return (
        usage.input_tokens * rates.input + usage.input_audio_tokens * _or(rates.audio_input, rates.input),
        usage.cache_read_tokens * rates.cache_read,
        usage.cache_write_tokens * rates.cache_write
        + usage.cache_write_1h_tokens * _or(rates.cache_write_1h, rates.cache_write),
        (usage.output_tokens + usage.reasoning_tokens) * rates.output
        + usage.output_audio_tokens * _or(rates.audio_output, rates.output)
        + usage.output_image_tokens * _or(rates.image_output, rates.output),
    )


def _search_cost(price: Price, searches: int) -> Decimal:
    return searches * _or(price.web_search_per_thousand, Decimal(0)) / 1000


def _possible_prompts(tokens: int, extras: frozenset[Extra]) -> Iterator[Usage]:
    """All in one bucket: as the cost is linear, the dearest mixture is one of these."""
    for bucket in (*_PROMPT_BUCKETS, *(extra for extra in _EXTRA_PROMPT_BUCKETS if extra in extras)):
        yield Usage(**{bucket: tokens})


def _possible_outputs(tokens: int, extras: frozenset[Extra]) -> Iterator[Usage]:
    for bucket in ("output_tokens", *(extra for extra in _EXTRA_OUTPUT_BUCKETS if extra in extras)):
        yield Usage(**{bucket: tokens})


def _is_cached_for_an_hour(thing: object) -> bool:
    """https://platform.claude.com/docs/en/build-with-claude/prompt-caching: `{"type": "ephemeral", "ttl": "1h"}`."""
    return (getattr(thing, "cache_control", None) or {}).get("ttl") == "1h"


def _build_rates(
    rate: Mapping[str, Decimal], input_rate: Decimal, output_rate: Decimal, cache_read: Decimal | None
) -> Rates:
    return Rates(
        input_rate,
        output_rate,
        _or(cache_read, input_rate),
        _or(rate.get("cache_write_per_million"), input_rate),
        rate.get("cache_write_1h_per_million"),
        rate.get("audio_input_per_million"),
        rate.get("audio_output_per_million"),
        rate.get("image_output_per_million"),
    )


def _read_rate(value: object) -> Decimal | None:
    rate = _read_number(value)
    if rate == 0:
        return Decimal(0)
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
