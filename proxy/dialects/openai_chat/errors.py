"""Errors in OpenAI's chat dialect, of which every server has its own: an object, a text, a list of complaints."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proxy.answer import NOT_JSON
from proxy.events import Failed
from proxy.failures import classify, failed_status, tell_status

_MAX_COMPLAINTS = 5
_POLICY = re.compile(r"violates usage guidelines|violating our usage policy")
"""What xAI, with a status that speaks of permissions, and OpenAI say of a prompt that they do not let through."""
_KINDS_IN_A_CAUSE = {"context_length_exceeded", "content_filter", "rate_limit_exceeded"}
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Problem:
    """What a server says of an error. `status` is 0 where it names none; `cause` is what its own provider said, which
    is for us alone: it may name accounts.
    """

    message: str = ""
    type: str = ""
    code: str = ""
    status: int = 0
    cause: str = ""
    headers: Mapping[str, str] | None = None


def read_refusal(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> Failed:
    """An error status with, usually, an error object. `headers` in lower case."""
    problem = _read_body(body) or Problem()
    message = problem.message or tell_status(status)
    return _failed(provider, replace(problem, message=message, headers={**(problem.headers or {}), **headers}), status)


def read_error(provider: str, error: object) -> Failed:
    """An error in an answer that began well: the value of its `error`, whatever that is."""
    problem = _read_error(error)
    message = problem.message or tell_status(0)
    return _failed(provider, replace(problem, message=message), problem.status)


def find_error(provider: str, body: bytes) -> Failed | None:
    """An error in a body that is no answer; None if it tells of none."""
    problem = _read_body(body)
    if problem is None or not problem.message:
        return None
    return _failed(provider, problem, problem.status)


def _failed(provider: str, problem: Problem, status: int) -> Failed:
    """The cause may tell what kind of error it is, and is not shown."""
    if _POLICY.search(problem.message):
        problem = replace(problem, cause=f"content_filter {problem.cause}")
    kind = classify(status, f"{problem.message} {problem.cause}", problem.type, problem.code)
    code = kind if problem.cause and kind in _KINDS_IN_A_CAUSE else problem.code
    failed = failed_status(provider, status, problem.message, problem.type, code, problem.headers)
    return replace(failed, provider_error_type=(problem.type or problem.code)[:100])


def _read_body(body: bytes) -> Problem | None:
    try:
        decoded = _decode(body)
    except NOT_JSON:
        return None
    match decoded:
        case [dict(first), *_]:  # Google's servers of this dialect wrap the object in a list
            decoded = first
        case {"errors": [dict(first), *_]} if "error" not in decoded:
            decoded = first
    if not isinstance(decoded, dict):
        return None
    error = decoded.get("error")
    if isinstance(error, dict):
        return _read_error(error)
    # The whole object is the error: {"error": text, "code"} of xAI, {"detail"} and {"message", "code"} of Mistral.
    return _read_error(decoded)


def _read_error(error: object) -> Problem:
    if not isinstance(error, dict):
        return Problem(_text(error) or _complaints(error))
    statuses = (_status(error.get(name)) for name in ("code", "status_code", "raw_status_code", "status"))
    return Problem(
        _message(error),
        _text(error.get("type")),
        _text(error.get("code")),
        next((status for status in statuses if status), 0),
        **_read_metadata(error.get("metadata")),
    )


def _message(error: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "error", "msg"):
        value = error.get(name)
        if said := _text(value) or _complaints(value):
            return said
    return ""


def _complaints(value: object) -> str:
    """What a validator says: `[{"loc": ["body", "model"], "msg": "Field required"}]`, bare or under `detail`."""
    if isinstance(value, dict):
        return _message(value)
    if not isinstance(value, list):
        return ""
    said = [_complaint(one) for one in value[:_MAX_COMPLAINTS] if isinstance(one, dict)]
    return "; ".join(one for one in said if one)


def _complaint(one: Mapping[str, Any]) -> str:
    said = _text(one.get("msg")) or _text(one.get("message"))
    place = one.get("loc")
    where = ".".join(str(step)[:50] for step in place[:10]) if isinstance(place, list) else ""
    return f"{where}: {said}" if where and said else said


def _read_metadata(metadata: object) -> dict[str, Any]:
    """OpenRouter's: what its provider said, and why a prompt was not let through.
    https://openrouter.ai/docs/api-reference/errors
    """
    if not isinstance(metadata, dict):
        return {}
    raw = metadata.get("raw")
    cause = _text(raw) if isinstance(raw, str) else _encoded(raw)
    if isinstance(metadata.get("reasons"), list) or _POLICY.search(cause):
        cause = f"content_filter {cause}"
    headers = metadata.get("headers")
    known = {str(name).lower(): _text(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
    return {"cause": cause, "headers": known}


def _encoded(raw: object) -> str:
    return msgspec.json.encode(raw).decode() if isinstance(raw, dict) else ""


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9 else ""


def _status(value: object) -> int:
    """A code that is an HTTP status, also as a text."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and isinstance(value, int) and 100 <= value <= 599 else 0
