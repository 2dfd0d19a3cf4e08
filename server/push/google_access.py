"""Access tokens of a Google service account: asked for with a signed assertion, kept until shortly before their end.

https://developers.google.com/identity/protocols/oauth2/service-account, under HTTP/REST. An exchange of its own for
every push would cost a round trip and a signature, and Google limits them.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

import jwt
import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from proxy.errors import RequestNotSendable, UpstreamError
from proxy.provider import UpstreamRequest
from proxy.transport import Transport
from server.push.settings import FcmSettings

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS = 3600
"""The most that Google takes."""
MARGIN_SECONDS = 300.0
"""So long before its end a token is renewed; one that lives for less than twice this, at half its life."""
EXCHANGE_SECONDS = 10.0
PAUSE_SECONDS = 1.0
"""After a failure nobody asks for this long: those who want a token are told at once."""
REFUSED_PAUSE_SECONDS = 30.0
"""The same after a no, which only the operator can change."""
REPLACE_PAUSE_SECONDS = 60.0
"""Between two tokens that are given up because FCM refuses them, if it took nothing in between: then it is not the
token that is wrong.
"""
MAX_ANSWER_BYTES = 64 * 1024

T = TypeVar("T")


class AccessError(Exception):
    """There is no access token for now. Messages hold neither key nor token."""


class AccessUnavailable(AccessError):
    """Google could not be asked, or did not answer as it should: it passes."""


class AccessRefused(AccessError):
    """Google does not accept the service account: the operator has to do something."""


@dataclass(frozen=True, slots=True)
class Granted:
    token: str = field(repr=False)
    life_seconds: float


@dataclass(frozen=True, slots=True)
class _Kept:
    token: str = field(repr=False)
    fresh_until: float
    ends_at: float


class AccessTokens:
    """One token at a time, for any number of tasks. `ask` exchanges, within a deadline of its own, or raises
    AccessError.
    """

    def __init__(self, ask: Callable[[], Awaitable[Granted]]) -> None:
        self._ask = ask
        self._asking = trio.Lock()
        self._attempts = 0
        self._kept: _Kept | None = None
        self._failure: AccessError | None = None
        self._not_asked_before = -math.inf
        self._replaced_at = -math.inf

    async def read(self) -> str:
        """A token that is good for a while. Raises AccessError. An old one goes on for as long as it lives if there is
        no new one to be had.
        """
        kept = self._kept
        if kept is not None and trio.current_time() < kept.fresh_until:
            return kept.token
        try:
            return await self._renew()
        except AccessError:
            if kept is None or self._kept is not kept or trio.current_time() >= kept.ends_at:
                raise
            return kept.token

    async def replace(self, refused: str) -> str:
        """Another token than this one, which FCM does not take. Of all that were refused at the same time, one makes
        the next and the others get it. Raises AccessError; AccessRefused if the last one was replaced a moment ago.
        """
        if self._kept is not None and self._kept.token == refused:
            if trio.current_time() < self._replaced_at + REPLACE_PAUSE_SECONDS:
                raise AccessRefused("FCM refuses the access tokens that Google gives")
            self._kept, self._replaced_at = None, trio.current_time()
        return await self.read()

    def confirm(self, token: str) -> None:
        """FCM takes this one: if it refuses it later, it may be replaced at once."""
        if self._kept is not None and self._kept.token == token:
            self._replaced_at = -math.inf

    async def _renew(self) -> str:
        """One at a time. Whoever comes meanwhile has the same token, or the same failure; if who asks is cancelled, the
        next in line asks.
        """
        attempts = self._attempts
        if trio.current_time() >= self._not_asked_before:
            async with self._asking:
                if self._attempts == attempts or self._is_given_up:
                    await self._attempt()
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure
        if self._kept is None:
            raise RuntimeError("an attempt ends with a token or with a failure")
        return self._kept.token

    @property
    def _is_given_up(self) -> bool:
        """Whether the last attempt brought a token that was refused since, perhaps while others waited for it."""
        return self._kept is None and self._failure is None

    async def _attempt(self) -> None:
        asked_at = trio.current_time()
        try:
            granted = await self._ask()
        except AccessError as error:
            pause_seconds = REFUSED_PAUSE_SECONDS if isinstance(error, AccessRefused) else PAUSE_SECONDS
            self._failure, self._not_asked_before = error, trio.current_time() + pause_seconds
        else:
            self._failure, self._kept = None, _keep(granted, asked_at)
        self._attempts += 1


class _Grant(msgspec.Struct):
    access_token: str
    expires_in: float


class _No(msgspec.Struct):
    error: str


def build_access_tokens(
    settings: FcmSettings, transport: Transport, read_time: Callable[[], float]
) -> AccessTokens:
    """`read_time` is Unix time in seconds. Nobody is asked yet."""
    key = load_pem_private_key(settings.private_key.encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("the settings were read without a look at the key")

    async def ask() -> Granted:
        return await _exchange(transport, build_exchange(settings, key, read_time()))

    return AccessTokens(ask)


def build_exchange(settings: FcmSettings, key: RSAPrivateKey, now: float) -> UpstreamRequest:
    """The request for an access token; its assertion is good for an hour."""
    issued_at = int(now)
    claims = {
        "iss": settings.client_email,
        "scope": SCOPE,
        "aud": settings.token_url,
        "iat": issued_at,
        "exp": issued_at + ASSERTION_SECONDS,
    }
    assertion = jwt.encode(claims, key, algorithm="RS256", headers={"kid": settings.private_key_id})
    form = urlencode({"grant_type": GRANT_TYPE, "assertion": assertion})
    headers = (("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json"))
    return UpstreamRequest(settings.token_url, headers, form.encode())


def read_grant(status: int, body: bytes) -> Granted:
    """What the token endpoint answered. Raises AccessError; of Google's words only the code of an error is repeated:
    https://www.rfc-editor.org/rfc/rfc6749#section-5.2
    """
    if status == 200:
        grant = _decode(body, _Grant)
        if grant is not None and _is_usable(grant):
            return Granted(grant.access_token, grant.expires_in)
        raise AccessUnavailable("the token endpoint's answer is not what its protocol says")
    no = _decode(body, _No)
    if status in {400, 401, 403} and no is not None and no.error.isascii() and no.error.isidentifier():
        raise AccessRefused(f"Google does not accept the service account: {no.error[:100]}")
    raise AccessUnavailable(f"the token endpoint answered with status {status}")


async def _exchange(transport: Transport, request: UpstreamRequest) -> Granted:
    try:
        with trio.fail_after(EXCHANGE_SECONDS):
            async with transport.open_exchange(request) as exchange:
                return read_grant(exchange.status, await exchange.receive_all(MAX_ANSWER_BYTES))
    except trio.TooSlowError as error:
        raise AccessUnavailable("the token endpoint did not answer in time") from error
    except RequestNotSendable as error:
        raise AccessRefused(f"the token endpoint cannot be asked: {error}") from error
    except UpstreamError as error:
        raise AccessUnavailable(str(error)) from error


def _keep(granted: Granted, asked_at: float) -> _Kept:
    margin_seconds = min(MARGIN_SECONDS, granted.life_seconds / 2)
    ends_at = asked_at + granted.life_seconds
    return _Kept(granted.token, ends_at - margin_seconds, ends_at)


def _is_usable(grant: _Grant) -> bool:
    """It goes into a header."""
    token = grant.access_token
    is_word = bool(token) and token.isascii() and token.isprintable() and " " not in token
    return is_word and math.isfinite(grant.expires_in) and grant.expires_in > 0


def _decode(body: bytes, type_: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
