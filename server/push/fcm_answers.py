"""What FCM answers, and what becomes of the push. Pure.

All codes: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, the shape of an error:
https://firebase.google.com/docs/cloud-messaging/error-codes, when to come again:
https://firebase.google.com/docs/cloud-messaging/scale-fcm
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from server.push.outcomes import Accepted, Later, Outcome, Refused, TokenGone
from server.push.retry_after import MAX_PAUSE_SECONDS, read_retry_after

CONFIGURATION_PAUSE_SECONDS = 300.0
"""While the operator mends what Google does not accept of us; nothing is lost that still has time."""
QUOTA_PAUSE_SECONDS = 60.0
"""A quota is refilled every minute."""
FOREIGN_SENDER = "SENDER_ID_MISMATCH"
"""The token is another project's: it is wrong, or our service account is."""

_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_NO_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105 - Google's words, no secret
_WORD = re.compile(r"[A-Z][A-Z_]{0,99}")
_DURATION = re.compile(r"(\d{1,10}(?:\.\d{1,9})?)s")


@dataclass(frozen=True, slots=True)
class FcmAnswer:
    """`fcm_code` is FCM's own word, `rpc_code` that of Google's front, which stands before it and before all its other
    services; each is empty if it was not said. Nothing of the push is in it.
    """

    status: int
    is_acknowledged: bool = False
    fcm_code: str = ""
    rpc_code: str = ""
    is_about_token: bool = False
    retry_after_seconds: float | None = None


def read_answer(status: int, headers: Mapping[str, str], body: bytes | None, now: datetime) -> FcmAnswer:
    """Header names are in lower case. Whatever the body is, it is an answer; None is one that broke off.

    The head of a 200 in JSON is FCM's word that it has the message, though the message's name may have been lost.
    """
    found = None if body is None else _read_object(body)
    if status == 200:
        is_json = headers.get("content-type", "").startswith("application/json")
        return FcmAnswer(status, is_acknowledged=is_json if found is None else _names_message(found))
    error = _as_object((found or {}).get("error"))
    details = [_as_object(detail) for detail in _as_list(error.get("details"))]
    return FcmAnswer(
        status,
        fcm_code=_find_fcm_code(details),
        rpc_code=_as_word(error.get("status")),
        is_about_token=_is_about_token(error, details),
        retry_after_seconds=_find_pause(headers, details, now),
    )


def is_our_configuration(answer: FcmAnswer) -> bool:
    """Whether nothing will arrive until the operator mends something: the account, its rights, the project, the URL."""
    if answer.fcm_code and answer.fcm_code != "UNSPECIFIED_ERROR":
        return answer.fcm_code == "THIRD_PARTY_AUTH_ERROR"
    is_ours = answer.status in {401, 403, 404} or answer.rpc_code == "FAILED_PRECONDITION"
    return is_ours or answer.status in range(300, 400)


def find_outcome(answer: FcmAnswer) -> Outcome:
    """What has become of a push that this answers, once there is no other access token to try."""
    reason = tell_reason(answer)
    if answer.is_acknowledged:
        return Accepted()
    if answer.fcm_code in {"UNREGISTERED", FOREIGN_SENDER}:
        return TokenGone(reason)
    if is_our_configuration(answer):
        return Later(reason, answer.retry_after_seconds or CONFIGURATION_PAUSE_SECONDS)
    if answer.status == 400 and (answer.fcm_code or answer.rpc_code):
        return TokenGone(reason) if answer.is_about_token else Refused(reason)
    if answer.status == 429:
        return Later(reason, answer.retry_after_seconds or QUOTA_PAUSE_SECONDS)
    return Later(reason, answer.retry_after_seconds)


def tell_reason(answer: FcmAnswer) -> str:
    """For the operator."""
    return answer.fcm_code or answer.rpc_code or f"status {answer.status}"


def _find_fcm_code(details: Sequence[Mapping[str, Any]]) -> str:
    words = [_as_word(detail.get("errorCode")) for detail in details if detail.get("@type") == _FCM_ERROR]
    return next((word for word in words if word), "")


def _is_about_token(error: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> bool:
    """FCM has no code for a malformed token: it says so in these words, or names the field."""
    fields = [
        _as_object(violation).get("field")
        for detail in details
        if detail.get("@type") == _BAD_REQUEST
        for violation in _as_list(detail.get("fieldViolations"))
    ]
    return "message.token" in fields or str(error.get("message", "")).startswith(_NO_TOKEN)


def _find_pause(headers: Mapping[str, str], details: Sequence[Mapping[str, Any]], now: datetime) -> float | None:
    """The longest that was asked for, in the header or in the body: https://google.aip.dev/194"""
    pauses = [_read_duration(detail.get("retryDelay")) for detail in details if detail.get("@type") == _RETRY_INFO]
    pauses.append(read_retry_after(headers.get("retry-after", ""), now))
    return max((pause for pause in pauses if pause is not None), default=None)


def _read_duration(value: object) -> float | None:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return min(float(found[1]), MAX_PAUSE_SECONDS) if found else None


def _names_message(found: Mapping[str, Any]) -> bool:
    """`projects/*/messages/{id}`; another answer with a 200 is somebody else's, who stands in between."""
    name = found.get("name")
    return isinstance(name, str) and "/messages/" in name


def _read_object(body: bytes) -> Mapping[str, Any]:
    try:
        return _as_object(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _as_object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _as_word(value: object) -> str:
    """Nothing but a code: what somebody else puts there goes into no log."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
