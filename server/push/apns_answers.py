"""What APNs answers, and what becomes of the push. Pure.

All reasons: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from server.push.outcomes import Accepted, Later, Outcome, Refused, TokenGone
from server.push.retry_after import read_retry_after
from storage.push_tokens import PushEnvironment

CONFIGURATION_PAUSE_SECONDS = 300.0
"""While the operator mends what APNs does not accept of us; nothing is lost that still has time."""
TOKEN_UPDATES_PAUSE_SECONDS = 60.0
MAX_REASON_CHARACTERS = 100

Remedy = Literal["other_environment", "new_token"]

_GONE = frozenset({"ExpiredToken", "Unregistered"})
_UNFITTING = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})
_OUR_CONFIGURATION = frozenset(
    {"BadCertificate", "BadCertificateEnvironment", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken"}
    | {"BadTopic", "Forbidden", "InvalidProviderToken", "MissingProviderToken", "MissingTopic", "TopicDisallowed"}
    | {"UnrelatedKeyIdInToken"}
)
_PASSING = frozenset({"ExpiredProviderToken", "IdleTimeout", "InternalServerError", "ServiceUnavailable", "Shutdown"})


@dataclass(frozen=True, slots=True)
class ApnsAnswer:
    """`reason` is APNs's word, or empty if it said none: then somebody else may have answered in its place."""

    status: int
    reason: str = ""
    gone_since: datetime | None = None
    retry_after_seconds: float | None = None


def read_answer(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> ApnsAnswer:
    """Header names are in lower case. Whatever the body is, it is an answer."""
    fields = _read_object(body)
    retry_after = headers.get("retry-after", "")
    return ApnsAnswer(status, _find_reason(fields), _read_since(fields), read_retry_after(retry_after, now))


def read_reason(body: bytes) -> str:
    """APNs's word for why, which also comes with the end of a connection; empty if there is none."""
    return _find_reason(_read_object(body))


def find_remedy(answer: ApnsAnswer) -> Remedy | None:
    """What may help at once, if it has not been tried."""
    if answer.reason == "BadDeviceToken":
        return "other_environment"
    return "new_token" if answer.reason in {"ExpiredProviderToken", "InvalidProviderToken"} else None


def is_our_configuration(answer: ApnsAnswer) -> bool:
    """Whether nothing will arrive until the operator mends something: an address that leads to somebody else, too."""
    if answer.reason:
        return answer.reason in _OUR_CONFIGURATION or (answer.status == 403 and answer.reason not in _PASSING)
    return answer.status in range(300, 500) and answer.status != 429


def may_be_our_mistake(answer: ApnsAnswer) -> bool:
    """Whether either the token is for another app or environment than ours, or ours is not what the operator meant."""
    return answer.reason in _UNFITTING


def find_outcome(answer: ApnsAnswer, environment: PushEnvironment) -> Outcome:
    """What has become of a push that this answers, once no remedy is left. Never a word of the push is in it."""
    reason = answer.reason or f"status {answer.status}"
    if answer.status in range(200, 300):
        return Accepted(environment)
    if (answer.status == 410 and answer.reason) or answer.reason in _GONE | _UNFITTING:
        return TokenGone(reason, answer.gone_since)
    if answer.reason == "TooManyProviderTokenUpdates":
        return Later(reason, answer.retry_after_seconds or TOKEN_UPDATES_PAUSE_SECONDS)
    if answer.status == 429 or answer.status not in range(200, 500) or answer.reason in _PASSING:
        return Later(reason, answer.retry_after_seconds)
    if is_our_configuration(answer):
        return Later(reason, answer.retry_after_seconds or CONFIGURATION_PAUSE_SECONDS)
    return Refused(reason)


def _find_reason(fields: Mapping[str, Any]) -> str:
    """Nothing else than a word: what somebody else puts there goes into no log."""
    reason = fields.get("reason")
    is_word = isinstance(reason, str) and reason.isascii() and reason.isalnum()
    return str(reason)[:MAX_REASON_CHARACTERS] if is_word else ""


def _read_object(body: bytes) -> Mapping[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _read_since(fields: Mapping[str, Any]) -> datetime | None:
    """When APNs last confirmed that the token reaches nobody, in milliseconds of Unix time."""
    milliseconds = fields.get("timestamp")
    if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
