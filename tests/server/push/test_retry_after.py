"""When a service wants to be asked again."""

from datetime import UTC, datetime

import pytest

from server.push.retry_after import MAX_PAUSE_SECONDS, read_retry_after

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (" 7 ", 7.0),
        ("Tue, 03 Feb 2026 04:05:36 GMT", 30.0),
        ("Tue, 03 Feb 2026 04:05:36 -0000", 30.0),
        ("Tue, 03 Feb 2026 04:00:00 GMT", 0.0),
        ("99999999999999999999", MAX_PAUSE_SECONDS),
        ("Wed, 03 Feb 2027 04:05:36 GMT", MAX_PAUSE_SECONDS),
    ],
)
def test_seconds_and_dates_are_read_up_to_an_hour(text: str, seconds: float) -> None:
    assert read_retry_after(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e3", "٣", "Tue, 99 Feb 2026 04:05:36 GMT"])
def test_what_is_neither_says_nothing(text: str) -> None:
    assert read_retry_after(text, NOW) is None
