"""A notification as FCM is told of it. Pure.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages for the message,
https://firebase.google.com/docs/cloud-messaging/customize-messages/collapsible-message-types for what FCM keeps of it
while a phone is away.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from server.push.fitting import OPENED_BY, build_collapse_id, fit_strings, measure_json
from storage.deliveries import Delivery

MAX_PAYLOAD_BYTES = 4096
"""Of texts and data together. FCM counts names and values; we count their JSON too, which is more."""
MIN_TEXT_BYTES = 2048
"""What the texts may have of a payload that is too large, however much else there is."""
MAX_LIFE_SECONDS = 28 * 24 * 3600
RENAMED_PREFIX = "x-"

_RESERVED = frozenset({"from", "message_type", "collapse_key"})
_RESERVED_PREFIXES = ("google", "gcm")


def build_message(delivery: Delivery, now: datetime) -> bytes:
    """The body of messages:send. Only the time to live changes from one attempt to the next; the tag does not, so that
    a repetition takes the place of the first on the phone.
    """
    data = _build_data(delivery)
    message: dict[str, Any] = {"token": delivery.token, "android": _build_android(delivery, now)}
    room_bytes = MAX_PAYLOAD_BYTES
    if not delivery.is_silent:
        texts = {"title": delivery.title, "body": delivery.body}
        texts = fit_strings(texts, max(MIN_TEXT_BYTES, MAX_PAYLOAD_BYTES - measure_json(data)))
        message["notification"] = texts
        room_bytes -= measure_json(texts)
    nested = {name for name, value in delivery.custom_data.items() if not isinstance(value, str)}
    message["data"] = _fit_data(data, {_find_name(name) for name in nested}, room_bytes)
    return msgspec.json.encode({"message": message})


def _build_android(delivery: Delivery, now: datetime) -> dict[str, Any]:
    """Of messages that wait for a phone FCM keeps four different collapse keys, whichever they are, so silent ones have
    one for each kind: they must not take the place of what is to be seen. Without a key a hundred would be kept, and
    all thrown away at the next.
    """
    life_seconds = math.floor((delivery.deliver_until - now).total_seconds())
    ttl = f"{min(max(life_seconds, 0), MAX_LIFE_SECONDS)}s"
    if delivery.is_silent:
        return {"priority": "NORMAL", "collapse_key": delivery.kind, "ttl": ttl}
    collapse_id = build_collapse_id(delivery.kind, delivery.job_id, delivery.notification_id)
    shown = {"tag": collapse_id, "sound": "default"}
    return {"priority": "HIGH", "collapse_key": collapse_id, "ttl": ttl, "notification": shown}


def _build_data(delivery: Delivery) -> dict[str, str]:
    """Every value is a string. What is null is left out: the app reads both as nothing."""
    given = {name: value for name, value in delivery.custom_data.items() if name and value is not None}
    ours = {"type": delivery.kind} | ({} if delivery.job_id is None else {"jobId": delivery.job_id})
    found: Mapping[str, Any] = ours | given
    renamed = {_find_name(name): _show(value) for name, value in found.items() if _is_reserved(name)}
    return renamed | {name: _show(value) for name, value in found.items() if not _is_reserved(name)}


def _fit_data(data: dict[str, str], encoded: set[str], room_bytes: int) -> dict[str, str]:
    """Half a JSON value is none: the largest ones go whole, before any text is cut."""
    by_size = sorted(encoded & data.keys(), key=lambda name: (len(data[name]), name))
    left = dict(data)
    while by_size and measure_json(left) > room_bytes:
        del left[by_size.pop()]
    return fit_strings(left, room_bytes, OPENED_BY)


def _find_name(name: str) -> str:
    return f"{RENAMED_PREFIX}{name}" if _is_reserved(name) else name


def _is_reserved(name: str) -> bool:
    """FCM refuses the whole message for one of these, or puts its own value there."""
    lower = name.lower()
    return lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES)


def _show(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
