"""What Apple checks of a request, in the words of its answers. Pure.

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns for the headers,
https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns for the reasons.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAX_PAYLOAD_BYTES = 4096
MAX_COLLAPSE_ID_BYTES = 64
TOKEN_SECONDS = 3600
TOKEN_UPDATE_SECONDS = 20 * 60
CLOCK_SECONDS = 60

PUSH_TYPES = {"alert", "background", "location", "voip", "complication", "fileprovider", "mdm", "liveactivity"}

_PATH = re.compile(r"/3/device/([^/?]*)")
_TOKEN = re.compile(r"(?:[0-9a-f]{2}){4,100}")


@dataclass(frozen=True, slots=True)
class ApnsRequest:
    """`headers` in order and as they came, with the pseudo-headers."""

    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def fields(self) -> Mapping[str, str]:
        return dict(self.headers)

    @property
    def token(self) -> str:
        """Of the device; empty if the path has none."""
        found = _PATH.fullmatch(self.fields.get(":path", ""))
        return found.group(1) if found else ""

    @property
    def payload(self) -> Any:
        """None if it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


@dataclass(frozen=True, slots=True)
class Refused:
    status: int
    reason: str


@dataclass(slots=True)
class ProviderTokenRules:
    """Of one connection, which remembers what it was shown. A token that was refused counts for nothing."""

    key: EllipticCurvePublicKey
    key_id: str
    team_id: str
    newest: str = field(default="", repr=False)
    newest_at: float = 0.0
    valid: set[str] = field(default_factory=set, repr=False)
    """Signatures of these were looked at."""

    def check(self, authorization: str | None, now: float) -> Refused | None:
        """`now` is Unix time."""
        if authorization is None:
            return Refused(403, "MissingProviderToken")
        scheme, _, token = authorization.partition(" ")
        if scheme != "bearer":
            return Refused(403, "InvalidProviderToken")
        claims = self._read(token)
        if claims is None or claims["iat"] > now + CLOCK_SECONDS:
            return Refused(403, "InvalidProviderToken")
        if claims["iat"] < now - TOKEN_SECONDS:
            return Refused(403, "ExpiredProviderToken")
        if token != self.newest:
            if self.newest and now < self.newest_at + TOKEN_UPDATE_SECONDS:
                return Refused(429, "TooManyProviderTokenUpdates")
            self.newest, self.newest_at = token, now
        return None

    def forget(self) -> None:
        """The token was refused by a script, so another one is asked for."""
        self.newest = ""

    def _read(self, token: str) -> dict[str, Any] | None:
        options: Any = {"verify_signature": token not in self.valid, "verify_iat": False, "verify_exp": False}
        try:
            head = jwt.get_unverified_header(token)
            claims: dict[str, Any] = jwt.decode(token, self.key, algorithms=["ES256"], options=options)
        except jwt.InvalidTokenError:
            return None
        if (head.get("alg"), head.get("kid")) != ("ES256", self.key_id):
            return None
        if set(claims) != {"iss", "iat"} or claims["iss"] != self.team_id or type(claims["iat"]) is not int:
            return None
        self.valid.add(token)
        return claims


def check_request(request: ApnsRequest, bundle_id: str) -> Refused | None:
    """All but the provider's token and whether the device's token is known."""
    fields = request.fields
    if fields.get(":method") != "POST":
        return Refused(405, "MethodNotAllowed")
    if _PATH.fullmatch(fields.get(":path", "")) is None:
        return Refused(404, "BadPath")
    if len(fields) != len(request.headers):
        return Refused(400, "DuplicateHeaders")
    if reason := _find_bad_token(request.token) or _find_bad_header(fields, bundle_id):
        return Refused(400, reason)
    if len(request.body) > MAX_PAYLOAD_BYTES:
        return Refused(413, "PayloadTooLarge")
    payload = request.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("aps"), dict):
        return Refused(400, "PayloadEmpty")  # what Apple says of JSON without `aps` is written nowhere
    return None


def _find_bad_token(token: str) -> str:
    if not token:
        return "MissingDeviceToken"
    return "" if _TOKEN.fullmatch(token.lower()) else "BadDeviceToken"


def _find_bad_header(fields: Mapping[str, str], bundle_id: str) -> str:
    """The reason, or nothing."""
    if "apns-topic" not in fields:
        return "MissingTopic"
    if fields["apns-topic"] != bundle_id:
        return "TopicDisallowed"
    if fields.get("apns-push-type") not in PUSH_TYPES:
        return "InvalidPushType"
    if len(fields.get("apns-collapse-id", "").encode()) > MAX_COLLAPSE_ID_BYTES:
        return "BadCollapseId"
    if not re.fullmatch("[0-9]{1,12}", fields.get("apns-expiration", "0")):
        return "BadExpirationDate"
    return _find_bad_priority(fields) or _find_bad_id(fields)


def _find_bad_priority(fields: Mapping[str, str]) -> str:
    """Ten is what it is without the header, and an error for a push in the background."""
    priority = fields.get("apns-priority", "10")
    allowed = {"1", "5"} if fields["apns-push-type"] == "background" else {"1", "5", "10"}
    return "" if priority in allowed else "BadPriority"


def _find_bad_id(fields: Mapping[str, str]) -> str:
    push_id = fields.get("apns-id")
    try:
        is_good = push_id is None or str(UUID(push_id)) == push_id.lower()
    except ValueError:
        is_good = False
    return "" if is_good else "BadMessageId"
