"""Money, times and pages: what is written to clients, and what is taken from them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from server.billing.wire import (
    MAX_OFFSET,
    PageWish,
    read_page,
    read_period,
    read_usd,
    show_usd,
)
from server.errors import ArgumentInvalid, RequestInvalid

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_a_string_of_dollars_has_six_places() -> None:
    assert [show_usd(Decimal(text)) for text in ("2", "0.000001", "-1.5")] == ["2.000000", "0.000001", "-1.500000"]


@pytest.mark.parametrize(
    ("query", "wish"),
    [
        ({}, PageWish(20, 0, "")),
        ({"limit": "1", "offset": "40", "search": "a%"}, PageWish(1, 40, "a%")),
        ({"limit": "0", "offset": "-1"}, PageWish(1, 0, "")),
        ({"limit": "101"}, PageWish(100, 0, "")),
        ({"limit": "", "offset": ""}, PageWish(20, 0, "")),
        ({"offset": "9" * 18}, PageWish(20, MAX_OFFSET, "")),
    ],
)
def test_a_page_is_brought_into_its_bounds(query: dict[str, str], wish: PageWish) -> None:
    assert read_page(query) == wish


@pytest.mark.parametrize(
    "query",
    [{"limit": "x"}, {"limit": "1.5"}, {"offset": "٣"}, {"offset": "9" * 19}, {"search": "\0"}, {"search": "a" * 201}],
)
def test_what_is_no_page_is_refused_by_name(query: dict[str, str]) -> None:
    with pytest.raises(RequestInvalid, match=f"^{next(iter(query))}: "):
        read_page(query)


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-31T12:00:00Z",
        "2025-01-31t12:00:00z",
        "2025-01-31T12:00:00+00:00",
        "2025-01-31T12:00:00 00:00",
        "2025-01-31 12:00:00 00:00",
        "2025-01-31T14:00:00.000000000 02:00",
        "2025-01-31T07:00:00.000-05:00",
        "2025-02-01T03:59:00+15:59",
    ],
)
def test_a_time_may_come_with_its_plus_sign_read_as_a_space(text: str) -> None:
    assert read_period({"start_date": text, "end_date": "9999-12-31T23:59:59.999999999Z"}).start_date == NOON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-01-31",
        "2025-01-31T12:00:00",
        "2025-01-31T12:00",
        "2025-02-29T12:00:00Z",
        "2025-01-31T12:00:00.Z",
        "0000-01-31T12:00:00Z",
        "2025-01-31T12:00:00+99:00",
        "2025-01-31T12:00:00+16:00",
        "2025-01-31T12:00:00-02:60",
        "20250131T120000Z",
        "٢025-01-31T12:00:00Z",
        "2025-01-31T12:00:00Z'; --",
        "1738324800",
    ],
)
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestInvalid, match=r"^end_date: .* RFC 3339"):
        read_period({"start_date": "2025-01-31T12:00:00Z", "end_date": text})


@pytest.mark.parametrize("amount", ["0", "0.000001", "-5", "5", "5e0", "0.10"])
def test_dollars_within_the_bounds_are_taken(amount: str) -> None:
    assert read_usd("amount", Decimal(amount), Decimal(-5), Decimal(5)) == Decimal(amount)


@pytest.mark.parametrize("amount", ["5.000001", "-6", "0.0000001", "NaN", "sNaN", "inf", "-inf", "1e400", "1e-400"])
def test_dollars_out_of_the_bounds_are_refused_by_name(amount: str) -> None:
    with pytest.raises(ArgumentInvalid, match=r"^amount: from -5 to 5 US dollars"):
        read_usd("amount", Decimal(amount), Decimal(-5), Decimal(5))
