"""When a service wants to be asked again. Pure."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_PAUSE_SECONDS = 3600.0
"""Nobody's word keeps a push back for longer: it would outlive the push."""


def read_retry_after(text: str, now: datetime) -> float | None:
    """Seconds or a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after. None for what is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MAX_PAUSE_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return min(max(seconds, 0.0), MAX_PAUSE_SECONDS)
