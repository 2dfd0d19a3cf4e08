"""Estimates: what a call would cost, by the very computation that charges, and how many tokens a text has. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated

import msgspec

from proxy.errors import ModelUnknown, UsageOutOfBounds
from proxy.events import Usage
from proxy.pricing import MAX_COST_USD, MAX_TOKENS, Costs, split_cost
from proxy.routing import Model
from server.errors import ArgumentInvalid

PRICING_MODEL = "Token-based (flexible JSON pricing)"
MAX_REQUESTS = 1000
MAX_MODEL_CHARACTERS = 200

TokenCount = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_TOKENS})]
"""Described here and checked below: what is out of its bounds is an invalid argument, not a body of the wrong form."""


class CostEstimateWish(msgspec.Struct, rename="camel"):
    """A call that may be made. `inputTokens` are all tokens of the prompt, also those that are written to the
    provider's cache or read from it. Other members are ignored.
    """

    model_id: str
    input_tokens: TokenCount
    output_tokens: TokenCount
    cache_write_tokens: TokenCount | None = None
    cache_read_tokens: TokenCount | None = None


class CostBreakdown(msgspec.Struct, rename="camel"):
    """US dollars in strings, which add up to the estimated cost exactly. `inputCost` is that of the tokens outside of
    the cache. The cost of a cache is null if its tokens were not given.
    """

    input_cost: str
    output_cost: str
    cache_write_cost: str | None
    cache_read_cost: str | None


class CostEstimate(msgspec.Struct, rename="camel"):
    """`estimatedCost` is in US dollars and not rounded; the charge is rounded to six decimal places, half to even."""

    model_id: str
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    estimated_cost: str
    cost_breakdown: CostBreakdown
    pricing_model: str


class CostEstimatesWish(msgspec.Struct):
    """At most a thousand calls."""

    requests: Annotated[Sequence[CostEstimateWish], msgspec.Meta(extra_json_schema={"maxItems": MAX_REQUESTS})]


class CostEstimates(msgspec.Struct, rename="camel"):
    """In the order of the requests. The total is in US dollars and not rounded."""

    estimates: Sequence[CostEstimate]
    total_estimated_cost: str


class TokenEstimateWish(msgspec.Struct):
    """The model need not be one of the catalogue: the family that its name belongs to counts."""

    model: Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_MODEL_CHARACTERS})]
    text: str


class TokenEstimate(msgspec.Struct, rename="camel"):
    """`textLength` is in bytes of UTF-8."""

    model: str
    text_length: int
    estimated_tokens: int


def estimate_cost(models: Mapping[str, Model], wish: CostEstimateWish, place: str = "") -> CostEstimate:
    """`place` stands before the names of members in errors. Raises ModelUnknown and ArgumentInvalid."""
    model = models.get(wish.model_id)
    if model is None:
        raise ModelUnknown(f"{place}modelId: no model {wish.model_id[:MAX_MODEL_CHARACTERS]!r} is offered here")
    _check_counts(wish, place)
    try:
        costs = split_cost(model.price, _build_usage(wish))
    except UsageOutOfBounds as error:
        raise ArgumentInvalid(
            f"{place}inputTokens, {place}outputTokens: such a call would cost more than {MAX_COST_USD} US dollars"
        ) from error
    return _describe(wish, costs)


def estimate_costs(models: Mapping[str, Model], wish: CostEstimatesWish) -> Iterator[CostEstimate]:
    """One by one: a thousand take a hundredth of a second. Raises what `estimate_cost` does for the first that fails,
    with its index, or ArgumentInvalid for too many.
    """
    if len(wish.requests) > MAX_REQUESTS:
        raise ArgumentInvalid(f"requests: at most {MAX_REQUESTS}")
    for number, request in enumerate(wish.requests):
        yield estimate_cost(models, request, f"requests[{number}].")


def sum_up(estimates: Sequence[CostEstimate]) -> CostEstimates:
    total = sum((Decimal(estimate.estimated_cost) for estimate in estimates), Decimal(0))
    return CostEstimates(estimates, _show(total))


def check_model_name(wish: TokenEstimateWish) -> None:
    """What is known of a name is remembered, so names have a bound. Raises ArgumentInvalid."""
    if len(wish.model) > MAX_MODEL_CHARACTERS:
        raise ArgumentInvalid(f"model: at most {MAX_MODEL_CHARACTERS} characters")


def _check_counts(wish: CostEstimateWish, place: str) -> None:
    counts = {
        "inputTokens": wish.input_tokens,
        "outputTokens": wish.output_tokens,
        "cacheWriteTokens": wish.cache_write_tokens or 0,
        "cacheReadTokens": wish.cache_read_tokens or 0,
    }
    for name, count in counts.items():
        if not 0 <= count <= MAX_TOKENS:
            raise ArgumentInvalid(f"{place}{name}: from 0 to {MAX_TOKENS}")
    if counts["cacheWriteTokens"] + counts["cacheReadTokens"] > wish.input_tokens:
        raise ArgumentInvalid(
            f"{place}cacheWriteTokens, {place}cacheReadTokens: parts of inputTokens, so together no more than those"
        )


def _build_usage(wish: CostEstimateWish) -> Usage:
    write, read = wish.cache_write_tokens or 0, wish.cache_read_tokens or 0
    return Usage(
        input_tokens=wish.input_tokens - write - read,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=wish.output_tokens,
    )


def _describe(wish: CostEstimateWish, costs: Costs) -> CostEstimate:
    return CostEstimate(
        model_id=wish.model_id,
        input_tokens=wish.input_tokens,
        output_tokens=wish.output_tokens,
        cache_write_tokens=wish.cache_write_tokens or 0,
        cache_read_tokens=wish.cache_read_tokens or 0,
        estimated_cost=_show(costs.total_usd),
        cost_breakdown=CostBreakdown(
            input_cost=_show(costs.input_usd),
            output_cost=_show(costs.output_usd),
            cache_write_cost=None if wish.cache_write_tokens is None else _show(costs.cache_write_usd),
            cache_read_cost=None if wish.cache_read_tokens is None else _show(costs.cache_read_usd),
        ),
        pricing_model=PRICING_MODEL,
    )


def _show(amount_usd: Decimal) -> str:
    """All its places and no exponent: `0.0000004`, `12`."""
    text = f"{amount_usd:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
