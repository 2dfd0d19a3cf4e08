"""What Google checks of a message. Pure.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages, and INVALID_ARGUMENT in
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode.
"""

import re
from typing import Any

import msgspec

MAX_PAYLOAD_BYTES = 4096
MAX_TTL_SECONDS = 28 * 24 * 3600

_RESERVED = re.compile(r"from|message_type|(google|gcm).*")
_MESSAGE = {"name", "data", "notification", "android", "webpush", "apns", "fcm_options", "token", "topic", "condition"}
_NOTIFICATION = {"title", "body", "image"}
_ANDROID = {
    *("collapse_key", "priority", "ttl", "restricted_package_name", "data", "notification", "fcm_options"),
    *("direct_boot_ok", "bandwidth_constrained_ok", "restricted_satellite_ok"),
}
_ANDROID_NOTIFICATION = {
    *("title", "body", "icon", "color", "sound", "tag", "click_action", "body_loc_key", "body_loc_args"),
    *("title_loc_key", "title_loc_args", "channel_id", "ticker", "sticky", "event_time", "local_only"),
    *("notification_priority", "default_sound", "default_vibrate_timings", "default_light_settings"),
    *("vibrate_timings", "visibility", "notification_count", "light_settings", "image", "proxy"),
}


def check_message(document: Any) -> str:
    """FCM's error code, or nothing if it is good."""
    message = document.get("message") if isinstance(document, dict) else None
    if not isinstance(message, dict) or not set(document) <= {"message", "validate_only"}:
        return "INVALID_ARGUMENT"
    is_good = isinstance(message.get("token"), str) and bool(message["token"]) and set(message) <= _MESSAGE
    is_good = is_good and _is_good_data(message.get("data", {}))
    is_good = is_good and _is_object_of(message.get("notification", {}), _NOTIFICATION)
    is_good = is_good and _is_good_android(message.get("android", {})) and _count_bytes(message) <= MAX_PAYLOAD_BYTES
    return "" if is_good else "INVALID_ARGUMENT"


def _is_good_data(data: Any) -> bool:
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        return False
    return not any(_RESERVED.fullmatch(name) for name in data)


def _is_good_android(android: Any) -> bool:
    if not _is_object_of(android, _ANDROID) or android.get("priority", "NORMAL") not in {"NORMAL", "HIGH"}:
        return False
    return _is_good_ttl(android.get("ttl", "0s")) and _is_object_of(
        android.get("notification", {}), _ANDROID_NOTIFICATION
    )


def _is_good_ttl(ttl: Any) -> bool:
    is_duration = isinstance(ttl, str) and re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?s", ttl)
    return bool(is_duration) and float(ttl[:-1]) <= MAX_TTL_SECONDS


def _is_object_of(value: Any, names: set[str]) -> bool:
    return isinstance(value, dict) and set(value) <= names


def _count_bytes(message: dict[str, Any]) -> int:
    """Of the payload, keys and values."""
    return sum(len(msgspec.json.encode(message[name])) for name in ("data", "notification") if name in message)
