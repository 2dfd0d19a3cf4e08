"""Notices in words."""

from collections.abc import Mapping
from typing import Any

import pytest

from server.billing.notice_texts import REASONS, write_notice
from server.billing.top_off_rules import (
    AMOUNT_REFUSED,
    NO_ADDRESS,
    NO_PAYMENT_METHOD,
    OUT_OF_TIME,
    RETURNED,
    TOLD_CODES,
)

LIMIT = {"limitUsd": "10.000000", "spentUsd": "8.250000", "period": "day", "percent": 80, "apiKeyId": None}


@pytest.mark.parametrize(
    ("kind", "details", "message"),
    [
        ("spending_threshold", LIMIT, "You have spent 80% of your limit of 10.00 USD a day."),
        (
            "spending_threshold",
            {**LIMIT, "apiKeyId": "an id"},
            "An API key of yours has spent 80% of its limit of 10.00 USD a day.",
        ),
        (
            "top_off_failed",
            {"reason": "insufficient_funds", "amountUsd": "10.00", "retryAfterSeconds": 3600},
            "Auto top-off of 10.00 USD failed: there are not enough funds on your card."
            " It will be tried again in 1 hour.",
        ),
        (
            "top_off_failed",
            {"reason": "who knows", "amountUsd": "10.00", "retryAfterSeconds": 21600},
            "Auto top-off of 10.00 USD failed: the payment did not go through. It will be tried again in 6 hours.",
        ),
        (
            "top_off_disabled",
            {"reason": "card_declined", "amountUsd": "10.00", "failures": 3},
            "Auto top-off was turned off: your bank declined the payment. See to it, then turn auto top-off on again;"
            " until then credits have to be bought by hand.",
        ),
        (
            "top_off_succeeded",
            {"amountUsd": "10.00", "creditsUsd": "8.00"},
            "Auto top-off: 10.00 USD were paid, taxes apart, and 8.00 USD of credits were added.",
        ),
        (
            "top_off_paused",
            {"attempts": 5},
            "Auto top-off has tried 5 times within a day, and waits. Raise its amount, or buy credits by hand.",
        ),
        (
            "debt",
            {"debtUsd": "1.250000"},
            "Your balance is below zero by 1.25 USD. Credits that you buy make up for it first.",
        ),
    ],
)
def test_a_notice_is_told_in_words(kind: str, details: Mapping[str, Any], message: str) -> None:
    assert write_notice(kind, details) == message


def test_every_reason_that_users_are_told_has_words() -> None:
    told = {failure.reason for failure in (NO_PAYMENT_METHOD, NO_ADDRESS, AMOUNT_REFUSED, RETURNED, OUT_OF_TIME)}
    assert told | {*TOLD_CODES, "card_declined"} == set(REASONS)


KINDS = ["spending_threshold", "top_off_failed", "top_off_disabled", "top_off_succeeded", "top_off_paused", "debt"]


@pytest.mark.parametrize("kind", KINDS)
def test_details_that_lack_something_or_are_strange_break_nothing(kind: str) -> None:
    assert write_notice(kind, {})
    assert write_notice(kind, {"amountUsd": None, "limitUsd": "many", "debtUsd": [], "reason": {}, "apiKeyId": 0})


def test_a_kind_that_nobody_knows_has_no_words() -> None:
    assert write_notice("invented", {}) is None
