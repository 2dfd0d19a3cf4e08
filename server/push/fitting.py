"""What a push may hold: data cut to so many bytes of JSON, and the id by which a later push replaces another. Pure."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import msgspec

ELLIPSIS = "…"
MIN_STRING_BYTES = 64
"""Shorter ones are never cut: ids and words that apps decide by are of no use in part."""
MAX_DEPTH = 32
"""What is nested deeper cannot be encoded everywhere that it comes by."""
MAX_COLLAPSE_ID_BYTES = 64
"""https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns"""
DIGEST_CHARACTERS = 32
OPENED_BY = ("type", "jobId", "taskId", "deviceId", "sessionId", "projectDirectory")
"""Members by which the apps know what a push is of, and what to open."""


def fit_strings(data: Mapping[str, Any], limit_bytes: int, spared: Collection[str] = ()) -> dict[str, Any]:
    """The data, of which the JSON takes no more bytes than that: whole if it fits; else the longest strings are cut to
    one length, and if that is not enough, the largest members left out. The strings of the `spared` members stay whole,
    if they fit for themselves. The same data is always cut the same.
    """
    kept = {name: data[name] for name in spared if isinstance(data.get(name), str)}
    room_bytes = limit_bytes - measure_json(kept) + 1  # one comma joins them, two braces are shared
    if not kept or room_bytes < 1:
        return _fit(data, limit_bytes)
    kept |= _fit({name: value for name, value in data.items() if name not in kept}, room_bytes)
    return {name: kept[name] for name in data if name in kept}


def _fit(data: Mapping[str, Any], limit_bytes: int) -> dict[str, Any]:
    fitting = {name: value for name, value in data.items() if _is_shallow(value, MAX_DEPTH)}
    if measure_json(fitting) <= limit_bytes:
        return fitting
    fitting = _drop_largest(cut_strings(fitting, MIN_STRING_BYTES), fitting, limit_bytes)
    low, high = MIN_STRING_BYTES, max(limit_bytes, MIN_STRING_BYTES + 1)  # it fits cut to `low`, and not to `high`
    if measure_json(cut_strings(fitting, high)) <= limit_bytes:
        return dict(cut_strings(fitting, high))
    while high - low > 1:
        middle = (low + high) // 2
        if measure_json(cut_strings(fitting, middle)) <= limit_bytes:
            low = middle
        else:
            high = middle
    return dict(cut_strings(fitting, low))


def measure_json(value: Any) -> int:
    """Bytes."""
    return len(msgspec.json.encode(value))


def cut_strings(value: Any, max_bytes: int) -> Any:
    """The same JSON value with strings of so many bytes at most."""
    match value:
        case str():
            return cut_text(value, max_bytes)
        case dict():
            return {name: cut_strings(member, max_bytes) for name, member in value.items()}
        case list():
            return [cut_strings(member, max_bytes) for member in value]
    return value


def cut_text(text: str, max_bytes: int) -> str:
    """Ends with an ellipsis if it had to be cut. No character is cut in two."""
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    kept = encoded[: max(max_bytes - len(ELLIPSIS.encode()), 0)]
    return kept.decode(errors="ignore") + ELLIPSIS


def build_collapse_id(kind: str, job_id: str | None, notification_id: UUID) -> str:
    """`<kind>:<jobId>`, in at most 64 bytes that a header can carry. Where that cannot be, a digest stands for what is
    left out, so that different ids stay different. A notification of no job replaces nothing but its own repetition.
    """
    whole = f"{kind}:{job_id or notification_id}"
    if len(whole) <= MAX_COLLAPSE_ID_BYTES and whole.isascii() and whole.isprintable() and whole == whole.strip():
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:DIGEST_CHARACTERS]
    room = MAX_COLLAPSE_ID_BYTES - DIGEST_CHARACTERS - 1
    legible = "".join(sign for sign in whole if sign.isascii() and sign.isprintable() and sign != " ")
    return f"{legible[:room]}~{digest}"


def _is_shallow(value: Any, depth: int) -> bool:
    """Whether it is nested no deeper than that."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(depth > 0 and _is_shallow(member, depth - 1) for member in members)


def _drop_largest(shortest: Mapping[str, Any], data: Mapping[str, Any], limit_bytes: int) -> dict[str, Any]:
    """What fits if strings are cut as far as they may be; `shortest` is the data cut so."""
    sizes = {name: measure_json({name: value}) - 1 for name, value in shortest.items()}  # with a comma, without braces
    total = sum(sizes.values()) + 1
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if total <= limit_bytes:
            break
        total -= sizes.pop(name)
    return {name: value for name, value in data.items() if name in sizes}
