"""Money, periods and pages as the clients of `/api/billing` write and read them. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from server.errors import ArgumentInvalid, RequestInvalid

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_OFFSET = 10_000_000
MAX_SEARCH = 200
MICRO_USD = Decimal("0.000001")

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_OFFSET = r"[+-](0[0-9]|1[0-5]):[0-5][0-9]"
"""PostgreSQL takes no other."""
_TIME = re.compile(rf"[0-9]{{4}}(-[0-9]{{2}}){{2}}[T ][0-9]{{2}}(:[0-9]{{2}}){{2}}(\.[0-9]{{1,12}})?(Z|{_OFFSET})")


class PageQuery(msgspec.Struct):
    """Which part of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET)] = 0


class PageWish(PageQuery):
    """`search` is empty where everything is asked for."""

    search: Annotated[str, msgspec.Meta(max_length=MAX_SEARCH, description="What descriptions or models hold.")] = ""


class PeriodQuery(msgspec.Struct):
    """Both ends belong to it."""

    start_date: Annotated[datetime, msgspec.Meta(tz=True)]
    end_date: Annotated[datetime, msgspec.Meta(tz=True)]


def show_usd(amount: Decimal) -> str:
    """US dollars in a string, with the six places of the ledger."""
    return f"{amount:.6f}"


def read_page(query: Mapping[str, str]) -> PageWish:
    """A limit out of its bounds is taken for the nearest in them. Raises RequestInvalid, naming the parameter."""
    limit = _read_number("limit", query.get("limit", ""), DEFAULT_LIMIT)
    offset = _read_number("offset", query.get("offset", ""), 0)
    search = query.get("search", "")
    if len(search) > MAX_SEARCH or "\0" in search:
        raise RequestInvalid(f"search: at most {MAX_SEARCH} characters, and none of them NUL")
    return PageWish(min(max(limit, 1), MAX_LIMIT), min(max(offset, 0), MAX_OFFSET), search)


def read_period(query: Mapping[str, str]) -> PeriodQuery:
    """Raises RequestInvalid, naming the parameter."""
    return PeriodQuery(_read_time("start_date", query), _read_time("end_date", query))


def read_usd(name: str, amount: Decimal, least: Decimal, most: Decimal) -> Decimal:
    """Within the bounds, with six places at most. Raises ArgumentInvalid."""
    if not amount.is_finite() or not least <= amount <= most or amount != amount.quantize(MICRO_USD):
        raise ArgumentInvalid(f"{name}: from {least} to {most} US dollars, with at most six decimal places")
    return amount.quantize(MICRO_USD) + 0


def _read_number(name: str, text: str, default: int) -> int:
    if not text:
        return default
    if _NUMBER.fullmatch(text) is None:
        raise RequestInvalid(f"{name}: a whole number")
    return int(text)


def _read_time(name: str, query: Mapping[str, str]) -> datetime:
    """Clients do not escape the plus sign of the offset, which comes as a space then."""
    text = re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", query.get(name, "").upper())
    try:
        if _TIME.fullmatch(text) is None:
            raise ValueError("not of the form")
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestInvalid(f"{name}: a time as RFC 3339 has it, such as 2025-01-31T10:20:30Z") from error
