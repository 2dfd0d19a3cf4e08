"""Times as clients read them."""

from datetime import UTC, datetime, timedelta, timezone

from server.times import show_time, show_time_if_any

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_a_time_is_shown_in_utc_with_milliseconds() -> None:
    later = NOON.replace(microsecond=123999).astimezone(timezone(timedelta(hours=2)))
    assert show_time(later) == "2025-01-31T12:00:00.123Z"
    assert (show_time_if_any(NOON), show_time_if_any(None)) == ("2025-01-31T12:00:00.000Z", None)
