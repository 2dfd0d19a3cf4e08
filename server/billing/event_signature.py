"""Whether bytes are an event of Stripe's: the header `Stripe-Signature`. Pure.

`t=1700000000,v1=…[,v1=…]`: each v1 is an HMAC-SHA256 over `t.body`, in hex, by one of the endpoint's secrets; other
schemes count for nothing: https://docs.stripe.com/webhooks#verify-manually
"""

import hashlib
import hmac
import re
from collections.abc import Sequence

from server.errors import RequestInvalid

TOLERANCE_SECONDS = 300
"""Older ones may be replayed by somebody who listened; our clock and Stripe's differ by less."""
MAX_HEADER = 4096

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class SignatureInvalid(RequestInvalid):
    """Whoever sent this did not have the secret, or sent it too long ago."""


def verify(payload: bytes, header: str | None, secrets: Sequence[str], now: float) -> None:
    """`secrets` are all that count: two while one takes over from another. `now` in Unix seconds. Raises
    SignatureInvalid.
    """
    timestamp, digests = _read_header(header)
    if not any(_has_signed(payload, timestamp, digests, secret) for secret in secrets):
        raise SignatureInvalid("Stripe-Signature: it does not fit the body and the endpoint's secret")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise SignatureInvalid("Stripe-Signature: it was made too long ago, or one of the clocks is wrong")


def _read_header(header: str | None) -> tuple[str, Sequence[str]]:
    if not header or len(header) > MAX_HEADER:
        raise SignatureInvalid("Stripe-Signature: the header is missing, or too long")
    pairs = [piece.strip().partition("=") for piece in header.split(",")]
    timestamps = [value for name, _, value in pairs if name == "t"]
    digests = [value for name, _, value in pairs if name == "v1" and _DIGEST.fullmatch(value)]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]) or not digests:
        raise SignatureInvalid("Stripe-Signature: it must have one t and a v1")
    return timestamps[0], digests


def _has_signed(payload: bytes, timestamp: str, digests: Sequence[str], secret: str) -> bool:
    expected = hmac.new(secret.encode(), timestamp.encode() + b"." + payload, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(expected, digest) for digest in digests)
