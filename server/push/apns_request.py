"""A notification as APNs is told of it. Pure.

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns for the headers,
https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification for the payload.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from server.push.fitting import OPENED_BY, build_collapse_id, fit_strings
from storage.deliveries import Delivery

MAX_PAYLOAD_BYTES = 4096
MIN_ALERT_BYTES = 2048
"""What the texts may have of a payload that is too large, however much else there is."""
TEST_SUBTITLE = "Push notifications work"

_AT_ONCE = "10"
_SAVING_POWER = "5"
"""The only priority that APNs takes for a push in the background."""


@dataclass(frozen=True, slots=True)
class ApnsRequest:
    """All but who sends it and where to. The path holds the device's token."""

    path: str = field(repr=False)
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


def build_request(delivery: Delivery, bundle_id: str) -> ApnsRequest:
    """The same at every attempt, so that a repetition is no second notification on the phone."""
    headers = (
        ("apns-topic", bundle_id),
        ("apns-push-type", "background" if delivery.is_silent else "alert"),
        ("apns-priority", _SAVING_POWER if delivery.is_silent else _AT_ONCE),
        ("apns-expiration", str(int(delivery.deliver_until.timestamp()))),
        ("apns-id", str(delivery.push_id)),
        ("apns-collapse-id", build_collapse_id(delivery.kind, delivery.job_id, delivery.notification_id)),
    )
    return ApnsRequest(f"/3/device/{quote(delivery.token, safe='')}", headers, build_payload(delivery))


def build_payload(delivery: Delivery) -> bytes:
    """What the app is to know stands at the root, beside what iOS reads. Too long texts are cut."""
    custom = _build_custom(delivery)
    aps: dict[str, Any] = {"content-available": 1} if delivery.is_silent else _build_visible(delivery)
    payload = msgspec.json.encode({"aps": aps} | custom)
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return payload
    if not delivery.is_silent:
        rest_bytes = len(payload) - len(msgspec.json.encode(aps["alert"]))
        aps["alert"] = fit_strings(aps["alert"], max(MIN_ALERT_BYTES, MAX_PAYLOAD_BYTES - rest_bytes))
    room_bytes = MAX_PAYLOAD_BYTES - len(msgspec.json.encode({"aps": aps}))
    return msgspec.json.encode({"aps": aps} | fit_strings(custom, room_bytes, OPENED_BY))


def _build_visible(delivery: Delivery) -> dict[str, Any]:
    alert = {"title": delivery.title, "body": delivery.body}
    if delivery.kind == "test":
        alert["subtitle"] = TEST_SUBTITLE
    return {"alert": alert, "badge": 1, "sound": "default", "category": delivery.kind, "content-available": 1}


def _build_custom(delivery: Delivery) -> dict[str, Any]:
    """The iOS app looks for what to do in `type`, and opens a job by its `jobId`: words both. `aps` is Apple's."""
    given = {name: value for name, value in delivery.custom_data.items() if name != "aps" and value is not None}
    ours = {"type": delivery.kind} | ({} if delivery.job_id is None else {"jobId": delivery.job_id})
    return given | {name: value for name, value in ours.items() if not isinstance(given.get(name), str)}
