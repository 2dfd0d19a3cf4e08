"""What goes wrong with the Gemini API, as an HTTP status or inside a stream: `{"error": {code, message, status}}`, with
details of https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from proxy.answer import NOT_JSON
from proxy.events import Failed
from proxy.failures import failed_status, tell_status

_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""https://google.aip.dev/193 and its table of codes, for errors without a number."""

_BAD_KEY = {"API_KEY_INVALID", "API_KEY_EXPIRED"}
_KEY_PHRASES = ("api key not valid", "api key expired", "api key not found")
_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s", re.ASCII)
_OUR_PROJECT = re.compile(r"(?<=project)[ =][\w-]*\d[\w-]*")
"""«has not been used in project 4711 before»."""


class GoogleError(msgspec.Struct):
    """What is said by `code` and `details` is looked at when it is there."""

    code: Any = None
    message: str | None = None
    status: str | None = None
    details: Any = None


class _Refusal(msgspec.Struct):
    error: GoogleError | str | None = None


_decode_refusal = msgspec.json.Decoder(_Refusal | list[_Refusal], strict=False).decode


def read_refusal(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> Failed:
    """An error status with, usually, an error object; a request for a stream may get it in a list."""
    try:
        decoded = _decode_refusal(body)
    except NOT_JSON:
        decoded = _Refusal()
    refusals = decoded if isinstance(decoded, list) else [decoded]
    error = next((refusal.error for refusal in refusals if refusal.error is not None), None)
    return read_error(provider, error or GoogleError(), status, headers)


def read_error(
    provider: str, error: GoogleError | str, status: int = 0, headers: Mapping[str, str] | None = None
) -> Failed:
    """`status` is that of HTTP, 0 for an error inside an answer."""
    if isinstance(error, str):
        error = GoogleError(message=error)
    status = status or _status_of(error)
    message = _OUR_PROJECT.sub("…", error.message or tell_status(status))
    delay = _read_delay(error.details)
    if _is_bad_key(error):
        # Google answers 400; it is our key all the same, and another key or provider may do.
        failed = failed_status(provider, 401, message, error.status or "", "", headers, retry_after_seconds=delay)
        return replace(failed, status=status)
    return failed_status(provider, status, message, error.status or "", "", headers, retry_after_seconds=delay)


def _status_of(error: GoogleError) -> int:
    if isinstance(error.code, int) and 400 <= error.code <= 599:
        return error.code
    return _STATUSES.get(error.status or "", 0)


def _is_bad_key(error: GoogleError) -> bool:
    message = (error.message or "").lower()
    return any(detail.get("reason") in _BAD_KEY for detail in _details(error.details)) or any(
        phrase in message for phrase in _KEY_PHRASES
    )


def _read_delay(details: Any) -> float | None:
    """How many seconds to wait; Google says it in the body, as `{"retryDelay": "48s"}`."""
    for detail in _details(details):
        delay = detail.get("retryDelay")
        found = _DELAY.fullmatch(delay) if isinstance(delay, str) else None
        if found is not None:
            return float(found[1])
    return None


def _details(details: Any) -> Iterator[dict[str, Any]]:
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))
