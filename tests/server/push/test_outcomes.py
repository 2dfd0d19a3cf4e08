"""What follows from an outcome for a delivery, and how long the next attempt has to wait."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.push.outcomes import (
    LONGEST_PAUSE_SECONDS,
    MAX_GONE_ATTEMPTS,
    Accepted,
    Later,
    Refused,
    TokenGone,
    build_note,
    find_pause_seconds,
)
from storage.deliveries import Ended, Gone, PutOff
from tests.server.push.test_delivery_pace import build_delivery

CLAIMED_AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
DELIVERY = replace(build_delivery(), claimed_at=CLAIMED_AT, attempts=2)


def test_what_a_service_has_taken_is_sent_and_its_token_is_at_home_there() -> None:
    assert build_note(DELIVERY, Accepted("sandbox"), 0) == Ended(DELIVERY, "sent", environment="sandbox")


def test_what_is_refused_has_failed_with_the_services_word() -> None:
    assert build_note(DELIVERY, Refused("PayloadTooLarge"), 0) == Ended(DELIVERY, "failed", "PayloadTooLarge")


def test_what_may_be_sent_again_is_put_off() -> None:
    assert build_note(DELIVERY, Later("Shutdown"), 0) == PutOff(DELIVERY, 2, "Shutdown")
    assert build_note(DELIVERY, Later("TooManyRequests", 60), 0) == PutOff(DELIVERY, 60, "TooManyRequests")


def test_a_token_is_gone_since_the_services_moment_or_since_the_claim() -> None:
    since = CLAIMED_AT - timedelta(days=1)
    assert build_note(DELIVERY, TokenGone("Unregistered", since), 0) == Gone(DELIVERY, since, 2, "Unregistered")
    assert build_note(DELIVERY, TokenGone("BadDeviceToken"), 0) == Gone(DELIVERY, CLAIMED_AT, 2, "BadDeviceToken")


def test_a_token_that_is_brought_again_and_again_and_stays_gone_is_given_up() -> None:
    often = replace(DELIVERY, attempts=MAX_GONE_ATTEMPTS)
    assert build_note(often, TokenGone("Unregistered"), 0) == Gone(often, CLAIMED_AT, None, "Unregistered")


def test_pauses_double_up_to_five_minutes() -> None:
    assert [find_pause_seconds(attempts, None, 0) for attempts in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert [find_pause_seconds(attempts, None, 1) for attempts in (1, 2, 3, 4)] == [2, 4, 8, 16]
    assert find_pause_seconds(1000, None, 1) == LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(("attempts", "pause"), [(1, 30), (6, 32)])
def test_a_pause_is_never_shorter_than_the_service_asks_for(attempts: int, pause: float) -> None:
    assert find_pause_seconds(attempts, 30, 0) == pause


@given(st.integers(0, 10**6), st.none() | st.floats(0, 3600), st.floats(0, 1))
def test_a_pause_is_from_a_second_to_five_minutes_or_what_the_service_asks_for(
    attempts: int, after_seconds: float | None, jitter: float
) -> None:
    pause = find_pause_seconds(attempts, after_seconds, jitter)
    assert max(1, after_seconds or 0) <= pause <= max(LONGEST_PAUSE_SECONDS, (after_seconds or 0) + 1)
