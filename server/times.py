"""Times as clients read them. Pure."""

from datetime import UTC, datetime


def show_time(at: datetime) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def show_exact_time(at: datetime) -> str:
    """RFC 3339, in UTC, with microseconds and a `Z`, always: the phone app's reader of device lists takes this form
    alone, and one date without a fraction spoils it for all that follow.
    """
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def show_time_if_any(at: datetime | None) -> str | None:
    return None if at is None else show_time(at)
