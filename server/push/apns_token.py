"""The token that shows APNs who sends: made by us, used for many pushes, renewed neither too seldom nor too often.

https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns: a token is
good for an hour, and one that is renewed more often than every 20 minutes is refused with TooManyProviderTokenUpdates.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.push.settings import ApnsSettings

LIFE_SECONDS = 40 * 60.0
RENEWAL_SECONDS = 60.0
"""A token that APNs refuses is made anew, but not again within this: the clock or the key is wrong, not the token."""
REFUSED_RENEWAL_SECONDS = 20 * 60.0
"""After TooManyProviderTokenUpdates."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    made_at: float
    issued_at: float


class ProviderTokens:
    """One token at a time. `read_clock` is monotonic, `read_time` is Unix time; both in seconds."""

    def __init__(
        self, settings: ApnsSettings, read_clock: Callable[[], float], read_time: Callable[[], float]
    ) -> None:
        key = load_pem_private_key(settings.private_key.encode(), password=None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise TypeError("the settings were read without a look at the key")
        self._key = key
        self._headers = {"kid": settings.key_id}
        self._team_id = settings.team_id
        self._read_clock = read_clock
        self._read_time = read_time
        self._token: _Token | None = None
        self._not_renewed_before = float("-inf")

    def take(self) -> str:
        """The token to send with."""
        token = self._token
        if token is None or self._is_old(token):
            token = self._make()
        return token.text

    def renew(self, refused: str) -> str | None:
        """Another token than the one that APNs has refused; None if there is none for now. Of all that were refused at
        the same time, one makes the next and the others get it.
        """
        if self._token is not None and self._token.text != refused:
            return self._token.text
        return self._make().text if self._read_clock() >= self._not_renewed_before else None

    def slow_down(self) -> None:
        """APNs says that tokens come too often."""
        self._not_renewed_before = self._read_clock() + REFUSED_RENEWAL_SECONDS

    def _is_old(self, token: _Token) -> bool:
        """By either clock: the monotonic one stands still while a machine sleeps, the other may be set."""
        now = self._read_time()
        is_old = self._read_clock() - token.made_at >= LIFE_SECONDS
        return is_old or not token.issued_at - RENEWAL_SECONDS <= now < token.issued_at + LIFE_SECONDS

    def _make(self) -> _Token:
        """Nothing but the team and the moment: APNs takes no other claims."""
        now, issued_at = self._read_clock(), self._read_time()
        claims = {"iss": self._team_id, "iat": int(issued_at)}
        text = jwt.encode(claims, self._key, algorithm="ES256", headers=self._headers)
        self._token = _Token(text, now, issued_at)
        self._not_renewed_before = max(self._not_renewed_before, now + RENEWAL_SECONDS)
        return self._token
