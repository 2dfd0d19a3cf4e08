"""What is decided about a top-off that has something in its way."""

import pytest

from server.billing.top_off_rules import (
    GIVE_UP_SECONDS,
    MAX_PER_DAY,
    MAX_PER_DAY_KEY,
    NO_ADDRESS,
    PAUSES_SECONDS,
    find_pause_seconds,
    find_poll_seconds,
    is_out_of_time,
    read_max_per_day,
    read_refusal,
)
from server.errors import CardDeclined, StripeRefused
from storage.top_offs import Failure

KEYS_ARE_KNOWN_SECONDS = 24 * 3600
"""By Stripe, at least: https://docs.stripe.com/api/idempotent_requests"""


@pytest.mark.parametrize(
    ("code", "decline_code", "reason"),
    [
        ("card_declined", "insufficient_funds", "insufficient_funds"),
        ("expired_card", "", "expired_card"),
        ("card_declined", "stolen_card", "card_declined"),
        ("card_declined", "", "card_declined"),
        ("", "", "card_declined"),
        ("authentication_required", "authentication_required", "authentication_required"),
        ("invoice_payment_intent_requires_action", "", "authentication_required"),
        ("payment_intent_authentication_failure", "", "authentication_required"),
    ],
)
def test_a_decline_counts_and_is_told_as_far_as_it_may_be(code: str, decline_code: str, reason: str) -> None:
    assert read_refusal(CardDeclined("declined", code, decline_code)) == Failure(reason, PAUSES_SECONDS)


def test_an_address_without_taxes_is_the_users_to_put_right() -> None:
    assert read_refusal(StripeRefused("refused", "customer_tax_location_invalid")) == NO_ADDRESS


@pytest.mark.parametrize("code", ["", "parameter_unknown", "idempotency_error", "resource_missing"])
def test_any_other_refusal_is_ours_to_put_right(code: str) -> None:
    failure = read_refusal(StripeRefused("refused", code))
    assert not failure.counts
    assert not failure.is_told


@pytest.mark.parametrize(("age", "pause"), [(0, 15), (15, 15), (40, 40), (599, 599), (3000, 600)])
def test_pauses_double_up_to_ten_minutes(age: float, pause: float) -> None:
    assert find_pause_seconds(age) == pause


@pytest.mark.parametrize(("looked", "poll"), [(0.0, 2.0), (0.002, 2.0), (0.04, 2.0), (0.15, 7.5), (1.0, 50.0)])
def test_who_has_long_to_look_looks_more_rarely(looked: float, poll: float) -> None:
    assert find_poll_seconds(looked) == pytest.approx(poll)


def test_an_order_is_given_up_long_before_stripe_forgets_its_keys() -> None:
    assert not is_out_of_time(GIVE_UP_SECONDS)
    assert is_out_of_time(GIVE_UP_SECONDS + 1)
    assert GIVE_UP_SECONDS * 10 < KEYS_ARE_KNOWN_SECONDS


@pytest.mark.parametrize(("value", "most"), [(1, 1), (100, 100)])
def test_the_configuration_may_say_how_many_a_day(value: int, most: int) -> None:
    assert read_max_per_day({MAX_PER_DAY_KEY: value}) == most


@pytest.mark.parametrize("value", [0, -1, 101, 2.5, "3", True, None, [2]])
def test_what_cannot_be_meant_does_not_count(value: object) -> None:
    assert read_max_per_day({MAX_PER_DAY_KEY: value}) == read_max_per_day({}) == MAX_PER_DAY
