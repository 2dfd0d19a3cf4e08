"""Times as clients read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from server.times import show_exact_time, show_time, show_time_if_any

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_a_time_is_shown_in_utc_with_milliseconds() -> None:
    later = NOON.replace(microsecond=123999).astimezone(timezone(timedelta(hours=2)))
    assert show_time(later) == "2025-01-31T12:00:00.123Z"
    assert (show_time_if_any(NOON), show_time_if_any(None)) == ("2025-01-31T12:00:00.000Z", None)


@pytest.mark.parametrize(
    ("microsecond", "fraction"), [(0, "000000"), (123000, "123000"), (123456, "123456"), (7, "000007")]
)
def test_an_exact_time_has_six_digits_and_a_z_whatever_they_are(microsecond: int, fraction: str) -> None:
    elsewhere = NOON.replace(microsecond=microsecond).astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    assert show_exact_time(elsewhere) == f"2025-01-31T12:00:00.{fraction}Z"
