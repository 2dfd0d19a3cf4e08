"""Money: exact, rounded once, and never more than was held."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import Attached, Audio, ChatRequest, Message, Text, Tool, WebSearch
from proxy.errors import ModelNotPriced, RequestNotSupported, UsageOutOfBounds
from proxy.events import Usage
from proxy.pricing import (
    MAX_TOKENS,
    MIN_RATE,
    Extra,
    Price,
    Rates,
    check_priced,
    cost_usd,
    count_searches,
    decode_price,
    encode_price,
    find_extras,
    is_chargeable,
    read_price,
    worst_cost_usd,
)
from tests.proxy.file_calls import make_file

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
EVERYTHING = read_price(
    {
        "input_per_million": 1,
        "output_per_million": 2,
        "cache_read_per_million": "0.1",
        "cache_write_per_million": "1.25",
        "cache_write_1h_per_million": "1.5",
        "audio_input_per_million": 4,
        "audio_output_per_million": 8,
        "image_output_per_million": 16,
        "web_search_per_thousand": 10,
    }
)
EXTRAS: list[Extra] = [
    "cache_write_1h_tokens", "input_audio_tokens", "output_audio_tokens", "output_image_tokens"
]
HELLO = ChatRequest("m/x", (Message("user", (Text("Hello"),)),))
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
        Usage(cache_write_1h_tokens=-1, input_tokens=5),
        Usage(input_audio_tokens=-1, input_tokens=5),
        Usage(output_audio_tokens=-1, output_tokens=5),
        Usage(output_image_tokens=-1, output_tokens=5),
        Usage(searches=-1),
        Usage(searches=MAX_TOKENS + 1),
        Usage(input_audio_tokens=MAX_TOKENS, cache_write_1h_tokens=1),
        Usage(output_image_tokens=MAX_TOKENS, output_audio_tokens=1),
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


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(input_tokens=1_000_000), "1"),
        (Usage(cache_read_tokens=1_000_000), "0.1"),
        (Usage(cache_write_tokens=1_000_000), "1.25"),
        (Usage(cache_write_1h_tokens=1_000_000), "1.5"),
        (Usage(input_audio_tokens=1_000_000), "4"),
        (Usage(output_tokens=1_000_000), "2"),
        (Usage(reasoning_tokens=1_000_000), "2"),
        (Usage(output_audio_tokens=1_000_000), "8"),
        (Usage(output_image_tokens=1_000_000), "16"),
        (Usage(searches=3), "0.03"),
        (Usage(1_000_000, 0, 0, 1_000_000, 0, 1_000_000, 0, 1_000_000, 0, 1000), "22.5"),
    ],
)
def test_every_bucket_has_its_own_rate(usage: Usage, cost: str) -> None:
    assert cost_usd(EVERYTHING, usage) == Decimal(cost)


@pytest.mark.parametrize(
    ("usage", "like"),
    [
        (Usage(cache_write_1h_tokens=1000), Usage(cache_write_tokens=1000)),
        (Usage(input_audio_tokens=1000), Usage(input_tokens=1000)),
        (Usage(output_audio_tokens=1000), Usage(output_tokens=1000)),
        (Usage(output_image_tokens=1000), Usage(output_tokens=1000)),
        (Usage(searches=1000), Usage()),
    ],
)
@pytest.mark.parametrize("pricing", [ANTHROPIC, LONG])
def test_a_bucket_without_a_rate_has_that_of_the_more_general_one(
    pricing: dict[str, object], usage: Usage, like: Usage
) -> None:
    assert cost_usd(read_price(pricing), usage) == cost_usd(read_price(pricing), like)


def test_all_that_was_read_counts_for_the_long_context_and_rates_of_their_own_hold_there_too() -> None:
    price = read_price({**LONG, "audio_input_per_million": 7, "web_search_per_thousand": 14})
    usage = Usage(input_audio_tokens=100_000, cache_write_1h_tokens=100_001, searches=1)
    assert cost_usd(price, usage) == Decimal("0.964002"), "0.7 + 0.2500025 + 0.014"


@pytest.mark.parametrize("rate", ["free", -1, 1001, None])
@pytest.mark.parametrize("name", ["audio_input_per_million", "image_output_per_million", "web_search_per_thousand"])
def test_an_extra_rate_out_of_bounds_is_none(name: str, rate: object) -> None:
    assert read_price({"input_per_million": 1, "output_per_million": 2, name: rate}) == PLAIN


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (replace(HELLO, web_search=WebSearch()), "web_search"),
        (replace(HELLO, modalities=("text", "audio")), "audio_output"),
        (replace(HELLO, audio_output={"voice": "a"}), "audio_output"),
        (replace(HELLO, modalities=("image",)), "image_output"),
    ],
)
def test_what_has_no_price_is_refused_by_the_fields_name(request_: ChatRequest, field: str) -> None:
    check_priced(EVERYTHING, request_)
    check_priced(PLAIN, HELLO)
    with pytest.raises(RequestNotSupported, match=field):
        check_priced(PLAIN, request_)


def test_the_dearer_buckets_are_those_that_a_request_asks_for() -> None:
    hour: dict[str, object] = {"type": "ephemeral", "ttl": "1h"}
    marked = Message("user", (Text("Hello", cache_control=hour),))
    spoken = Message("user", (Audio("wav", "AAAA"),))
    attached = Message("user", (Attached("video/mp4", make_file(5), 1),))
    assert find_extras(HELLO) == frozenset()
    assert find_extras(replace(HELLO, cache_control={"type": "ephemeral", "ttl": "5m"})) == frozenset()
    for request in (
        replace(HELLO, cache_control=hour),
        replace(HELLO, tools=(Tool("f", cache_control=hour),)),
        replace(HELLO, messages=(marked,)),
    ):
        assert find_extras(request) == {"cache_write_1h_tokens"}
    for message in (spoken, attached):
        assert find_extras(replace(HELLO, messages=(message,))) == {"input_audio_tokens"}
    assert find_extras(replace(HELLO, modalities=("image", "audio"))) == {"output_image_tokens", "output_audio_tokens"}


def test_searches_are_held_for_as_the_request_bounds_them_else_as_the_model_does_them_unasked() -> None:
    searching = replace(HELLO, web_search=WebSearch(max_searches=3))
    assert count_searches(HELLO, {}) == 0
    assert count_searches(HELLO, {"searches_unasked": 100}) == 100
    assert count_searches(searching, {"searches_unasked": 100}) == 3
    assert worst_cost_usd(EVERYTHING, 0, 0, 3) == Decimal("0.03")


@pytest.mark.parametrize(
    ("extras", "worst"),
    [
        ([], "3.25"),
        (["cache_write_1h_tokens"], "3.5"),
        (["input_audio_tokens"], "6"),
        (["output_audio_tokens"], "9.25"),
        (["output_image_tokens"], "17.25"),
        (EXTRAS, "20"),
    ],
)
def test_a_hold_is_as_high_as_the_request_can_reach(extras: list[Extra], worst: str) -> None:
    assert worst_cost_usd(EVERYTHING, 1_000_000, 1_000_000, extras=frozenset(extras)) == Decimal(worst)


def test_a_price_of_an_older_hold_is_read() -> None:
    """As it was written before there were rates for sound, images, searches and the longer cache."""
    base = '{"input":"3","output":"15","cache_read":"0.30","cache_write":"3.75"}'
    old = f'{{"base":{base},"long_context_threshold":200000,"long_context":{base}}}'
    rates = Rates(Decimal(3), Decimal(15), Decimal("0.30"), Decimal("3.75"))
    assert decode_price(old) == Price(rates, 200_000, rates)
    assert decode_price(f'{{"base":{base}}}') == Price(rates)
    assert cost_usd(decode_price(old), Usage(cache_write_1h_tokens=1_000_000, searches=5)) == Decimal("3.75")


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
    "rate", [None, -1, 0.0000001, 1000.01, True, "", "free", "NaN", "Infinity", "sNaN", "1e999999999999", [], {}]
)
@pytest.mark.parametrize("name", ["input_per_million", "output_per_million"])
def test_a_model_without_a_usable_rate_has_no_price(name: str, rate: object) -> None:
    with pytest.raises(ModelNotPriced):
        read_price({"input_per_million": 1, "output_per_million": 2, name: rate})


@pytest.mark.parametrize("rate", [0.000001, 1000, "0.000001", "1000.0"])
def test_the_bounds_of_a_rate_are_usable(rate: object) -> None:
    assert read_price({"input_per_million": rate, "output_per_million": 1}).base.input == Decimal(str(rate))


@pytest.mark.parametrize("rate", [0, "0", "0.00", "-0", 0.0])
def test_a_rate_of_nothing_is_free_and_not_missing(rate: object) -> None:
    price = read_price({"input_per_million": rate, "output_per_million": rate, "cached_input_per_million": 5})
    assert str(cost_usd(price, Usage(1000, output_tokens=1000))) == "0.000000"
    assert cost_usd(price, Usage(cache_read_tokens=1000)) == Decimal("0.005")
    assert str(worst_cost_usd(read_price({"input_per_million": rate, "output_per_million": rate}), 9, 9)) == "0.000000"


@pytest.mark.parametrize("threshold", [None, "", "NaN", float("inf"), float("nan"), True, []])
def test_a_threshold_that_is_no_number_is_none(threshold: object) -> None:
    assert read_price({**LONG, "long_context_threshold": threshold}).long_context is None


RATES = st.decimals("0.000001", "1000", places=6).filter(lambda rate: rate > 0)
OR_NONE = st.none() | RATES
ALL_RATES = st.builds(Rates, RATES, RATES, RATES, RATES, OR_NONE, OR_NONE, OR_NONE, OR_NONE)
PRICES = st.builds(Price, ALL_RATES, st.none(), st.none(), OR_NONE) | st.builds(
    Price, ALL_RATES, st.integers(0, 5000), ALL_RATES, OR_NONE
)
TOKENS = st.integers(0, 5000)


@given(PRICES)
def test_a_price_survives_its_encoding(price: Price) -> None:
    assert decode_price(encode_price(price)) == price


@given(PRICES, TOKENS, TOKENS, st.integers(0, 20), st.sets(st.sampled_from(EXTRAS)), st.data())
def test_no_usage_within_its_bounds_costs_more_than_was_held(
    price: Price, prompt_tokens: int, output_tokens: int, searches: int, extras: set[Extra], data: st.DataObject
) -> None:
    prompt = ["input_tokens", "cache_read_tokens", "cache_write_tokens", *(set(EXTRAS[:2]) & extras)]
    output = ["output_tokens", "reasoning_tokens", *(set(EXTRAS[2:]) & extras)]
    buckets = share(data, prompt_tokens, prompt) | share(data, output_tokens, output)
    usage = Usage(**buckets, searches=data.draw(st.integers(0, searches)))
    assert cost_usd(price, usage) <= worst_cost_usd(price, prompt_tokens, output_tokens, searches, frozenset(extras))


def share(data: st.DataObject, tokens: int, buckets: list[str]) -> dict[str, int]:
    """So many tokens or fewer, in these buckets."""
    shared = {}
    for bucket in buckets:
        shared[bucket] = data.draw(st.integers(0, tokens))
        tokens -= shared[bucket]
    return shared


@given(PRICES, TOKENS, TOKENS)
def test_a_hold_is_a_charge_with_six_places(price: Price, prompt_tokens: int, output_tokens: int) -> None:
    exponent = worst_cost_usd(price, prompt_tokens, output_tokens).as_tuple().exponent
    assert exponent == cost_usd(price, Usage(prompt_tokens)).as_tuple().exponent == -6
