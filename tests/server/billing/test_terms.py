"""What credits cost: the contract's figures, the bounds, and a configuration that says nonsense."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.billing.terms import DEFAULT_TIERS, FeeTier, PurchaseRefused, Quote, Terms, read_free_amount, read_terms

DEFAULT = Terms()
OTHER = {"min": "1", "max": None, "fee_rate": "0.5", "label": "ALL"}


@pytest.mark.parametrize(
    ("amount", "gross", "fee", "net"),
    [
        ("3", 300, 60, 240),
        ("10", 1000, 200, 800),
        ("11.99", 1199, 239, 960),
        ("12", 1200, 120, 1080),
        ("98.99", 9899, 989, 8910),
        ("99", 9900, 495, 9405),
        ("1000", 100000, 5000, 95000),
        ("1E+2", 10000, 500, 9500),
        ("10.000", 1000, 200, 800),
    ],
)
def test_an_amount_has_the_fee_of_its_tier_cut_to_whole_cents(amount: str, gross: int, fee: int, net: int) -> None:
    assert DEFAULT.quote(Decimal(amount)) == Quote(gross, fee, net)


@pytest.mark.parametrize(
    "amount", ["2.99", "1000.01", "0", "-0", "-10", "NaN", "sNaN", "Infinity", "-Infinity", "1E+400000", "1E-400000"]
)
def test_what_is_not_sold_is_refused_with_the_bounds(amount: str) -> None:
    with pytest.raises(PurchaseRefused, match=r"3\.00 to 1000\.00 US dollars"):
        DEFAULT.quote(Decimal(amount))


@pytest.mark.parametrize("amount", ["10.001", "10.0000000000000000000000000000000000000000000001", "999.999"])
def test_parts_of_a_cent_are_refused(amount: str) -> None:
    with pytest.raises(PurchaseRefused, match="two decimal places"):
        DEFAULT.quote(Decimal(amount))


def test_tiers_that_end_are_a_bound() -> None:
    terms = Terms(tiers=DEFAULT_TIERS[:1])
    assert terms.quote(Decimal("11.99")).net_cents == 960
    with pytest.raises(PurchaseRefused, match=r"3\.00 to less than 12\.00"):
        terms.quote(Decimal(12))


@given(st.integers(300, 100_000))
def test_what_is_paid_is_the_fee_and_the_credits(cents: int) -> None:
    quote = DEFAULT.quote(Decimal(cents) / 100)
    assert quote.gross_cents == cents == quote.fee_cents + quote.net_cents
    assert quote.fee_cents >= 0
    assert quote.net_cents > 0


@given(st.integers(300, 99_999))
@example(1199)
@example(9899)
def test_a_cent_more_never_brings_less(cents: int) -> None:
    less, more = (DEFAULT.quote(Decimal(amount) / 100).net_cents for amount in (cents, cents + 1))
    assert less <= more


@given(
    st.integers(50, 99_999_999),
    st.one_of(st.decimals(0, "0.999999", places=6), st.just(Decimal("0.999999"))),
)
def test_every_rate_that_may_be_leaves_a_cent_of_credits(cents: int, rate: Decimal) -> None:
    row = {"min": "0.50", "max": None, "fee_rate": str(rate)}
    rows = {"credit_purchase_fee_tiers": {"tiers": [row]}, "billing_max_credit_purchase": 999999.99}
    terms, _ = read(rows)
    quote = terms.quote(Decimal(cents) / 100)
    assert terms.tiers[0].fee_rate == rate
    assert quote.net_cents >= 1
    assert quote.fee_cents >= 0


def read(rows: dict[str, Any]) -> tuple[Terms, list[str]]:
    """The terms, and the keys that were of no use."""
    keys: list[str] = []
    return read_terms(rows, DEFAULT, lambda key, _: keys.append(key)), keys


def test_no_configuration_is_the_default() -> None:
    assert read({}) == (DEFAULT, [])


@pytest.mark.parametrize("as_number", [True, False])
def test_amounts_are_numbers_or_strings(as_number: bool) -> None:
    rows: dict[str, Any] = {
        "credit_purchase_fee_tiers": {
            "tiers": [
                {"min": 1, "max": 5.5, "fee_rate": 0.1, "label": "A"},
                {"min": 5.5, "max": None, "fee_rate": 0.05, "label": "B"},
            ]
        },
        "billing_max_credit_purchase": 500,
        "billing_free_credits_amount": 2.5,
        "billing_free_credits_expiry_days": 30,
    }
    terms, useless = read(rows if as_number else as_strings(rows))
    assert useless == []
    assert terms == Terms(
        tiers=(
            FeeTier(Decimal(1), Decimal("5.5"), Decimal("0.1"), "A"),
            FeeTier(Decimal("5.5"), None, Decimal("0.05"), "B"),
        ),
        max_purchase_usd=Decimal(500),
        free_credits_usd=Decimal("2.5"),
        free_credits_days=30,
    )


def as_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_strings(member) for name, member in value.items()}
    if isinstance(value, list):
        return [as_strings(member) for member in value]
    return value if value is None else str(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("billing_max_credit_purchase", "NaN"),
        ("billing_max_credit_purchase", 0),
        ("billing_max_credit_purchase", "0.49"),
        ("billing_max_credit_purchase", 1_000_000),
        ("billing_max_credit_purchase", -5),
        ("billing_max_credit_purchase", True),
        ("billing_max_credit_purchase", None),
        ("billing_max_credit_purchase", "10.001"),
        ("billing_max_credit_purchase", "1e999999"),
        ("billing_free_credits_amount", "-0.01"),
        ("billing_free_credits_amount", "0.0000001"),
        ("billing_free_credits_amount", "1000.01"),
        ("billing_free_credits_amount", ["2.00"]),
        ("billing_free_credits_expiry_days", "0"),
        ("billing_free_credits_expiry_days", 366),
        ("billing_free_credits_expiry_days", 1.5),
        ("billing_free_credits_expiry_days", "soon"),
        ("billing_free_credits_expiry_days", True),
    ],
)
def test_a_value_that_cannot_be_is_the_defaults_and_is_told(key: str, value: Any) -> None:
    assert read({key: value}) == (DEFAULT, [key])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"tiers": []},
        {"tiers": [{**OTHER, "min": "0.49"}]},
        {"tiers": [{**OTHER, "min": "-1"}]},
        {"tiers": [{**OTHER, "min": "NaN"}]},
        {"tiers": [{**OTHER, "min": "1.001"}]},
        {"tiers": [{**OTHER, "fee_rate": "1"}]},
        {"tiers": [{**OTHER, "fee_rate": "-0.1"}]},
        {"tiers": [{**OTHER, "fee_rate": "0.9999999"}]},
        {"tiers": [{**OTHER, "fee_rate": True}]},
        {"tiers": [{**OTHER, "max": "1"}]},
        {"tiers": [{"min": "1", "fee_rate": "0.5"}]},
        {"tiers": [OTHER, {**OTHER, "min": "5"}]},
        {"tiers": [{**OTHER, "max": "5"}, {**OTHER, "min": "6"}]},
        {"tiers": [{**OTHER, "max": "5"}, {**OTHER, "min": "4"}]},
        {"tiers": [{**OTHER, "min": "5", "max": "9"}, {**OTHER, "max": "5"}]},
    ],
    ids=str,
)
def test_tiers_with_gaps_overlaps_or_no_sense_are_the_defaults(value: Any) -> None:
    assert read({"credit_purchase_fee_tiers": value}) == (DEFAULT, ["credit_purchase_fee_tiers"])


def test_one_value_that_cannot_be_takes_no_other_along() -> None:
    terms, _ = read({"billing_max_credit_purchase": "?", "billing_free_credits_expiry_days": "7"})
    assert (terms.max_purchase_usd, terms.free_credits_days) == (DEFAULT.max_purchase_usd, 7)


def test_zero_has_no_sign() -> None:
    assert str(read_free_amount("-0.00")) == "0.00"
