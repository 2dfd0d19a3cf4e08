"""Auth0, or any other OpenID provider: what we ask it, and what its answers mean."""

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from proxy.transport import build_ssl_context
from server.auth.access_tokens import (
    REFUSED,
    AccessToken,
    Profile,
    build_profile,
    read_key_id,
    verify_access_token,
)
from server.auth.issuer_documents import Published, decode, discovery_url, read_endpoints, read_keys
from server.auth.issuer_http import TOTAL_SECONDS, Answer, IssuerHttp
from server.auth.issuer_keys import IssuerKeys
from server.auth.settings import SignInSettings
from server.errors import IssuerUnavailable, NotAuthenticated

__all__ = ["AccessToken", "IssuedTokens", "OpenIdProvider", "Profile", "open_openid_provider"]

ENDED = frozenset(
    {
        *("invalid_grant", "access_denied", "login_required", "interaction_required", "consent_required"),
        *("unauthorized", "mfa_required"),
    }
)
"""What an issuer says of a sign-in that is over: RFC 6749, 4.1.2.1 and 5.2, OpenID Connect Core, 3.1.2.6, and Auth0 of
somebody who is blocked, or has to prove more. Any other error is of the server's own client, or of something in front
of the issuer: nothing is said about the user, who stays signed in.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)


class _TokenAnswer(msgspec.Struct):
    access_token: str
    refresh_token: str | None = None


class _TokenError(msgspec.Struct):
    error: str


class OpenIdProvider:
    """Every method raises IssuerUnavailable if the provider cannot be reached or talks nonsense, and NotAuthenticated
    if it, or its signature, says no.
    """

    def __init__(self, settings: SignInSettings, http: IssuerHttp) -> None:
        self.settings = settings
        self._http = http
        self._keys = IssuerKeys(self._fetch_published)

    async def find_authorization_endpoint(self) -> str:
        """Where a browser is sent to sign in; it may have a query already."""
        return (await self._keys.read()).endpoints.authorization

    async def verify(self, text: str) -> AccessToken:
        """Asks the provider nothing, unless the key is unknown. Checking costs 50 µs, so it is done here and now."""
        key = await self._keys.find(read_key_id(text))
        return verify_access_token(self.settings, key, text)

    async def fetch_profile(self, token: AccessToken) -> Profile:
        """What the token carries, else what the provider's userinfo endpoint says."""
        if token.profile is not None:
            return token.profile
        endpoints = (await self._keys.read()).endpoints
        return read_userinfo(await self._http.get(endpoints.userinfo, bearer=token.text), token.subject)

    async def refresh(self, refresh_token: str) -> IssuedTokens:
        """With the server's own client. The refresh token in the answer, if any, replaces the old one."""
        endpoints = (await self._keys.read()).endpoints
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **self._client()}
        return read_issued(await self._http.post(endpoints.token, form))

    async def revoke(self, refresh_token: str) -> None:
        """Never raises: what could not be revoked ends by itself (RFC 7009)."""
        form = {"token": refresh_token, "token_type_hint": "refresh_token", **self._client()}
        try:
            endpoints = (await self._keys.read()).endpoints
            answer = await self._http.post(endpoints.revocation, form)
        except IssuerUnavailable as error:
            logger.warning("a refresh token could not be revoked: %s", error)
        else:
            if answer.status != 200:
                logger.warning("the issuer did not revoke a refresh token", extra={"status": answer.status})

    async def keep_keys_fresh(self) -> None:
        """A loop of the root nursery: whoever signs in finds the keys here. Our own stand-in does not listen yet when
        it begins, and never changes its keys, so it is asked when it is needed.
        """
        if not self.settings.is_local:
            await self._keys.keep_fresh()

    def _client(self) -> dict[str, str]:
        """The server's client; or, if it has none, the app's, which is no secret."""
        secret = self.settings.server_client_secret
        client_id = self.settings.server_client_id or min(self.settings.client_ids)
        return {"client_id": client_id} | ({"client_secret": secret} if secret else {})

    async def _fetch_published(self) -> Published:
        """Both documents within the deadline of one."""
        try:
            with trio.fail_after(self._http.total_seconds):
                endpoints = read_endpoints(self.settings, await self._fetch(discovery_url(self.settings.issuer)))
                return Published(endpoints, read_keys(await self._fetch(endpoints.keys)))
        except trio.TooSlowError as error:
            raise IssuerUnavailable("the issuer did not answer in time") from error

    async def _fetch(self, url: str) -> bytes:
        answer = await self._http.get(url)
        if answer.status != 200:
            raise _unexpected(answer)
        return answer.body


def read_userinfo(answer: Answer, subject: str) -> Profile:
    """Of the very subject of the token: what is said of another counts for nobody (OpenID Connect Core, 5.3.2). A token
    that does not hold is told by 401 (RFC 6750, 3.1); 403 is also what a firewall says.
    """
    if answer.status == 401:
        raise NotAuthenticated(REFUSED)
    if answer.status != 200:
        raise _unexpected(answer)
    claims = decode(answer.body, dict[str, Any])
    if claims.get("sub") != subject:
        raise IssuerUnavailable("the issuer's userinfo is about somebody else")
    return build_profile(subject, claims)


def read_issued(answer: Answer) -> IssuedTokens:
    """Where the RFC has 400 for a refresh token that is refused, Auth0 has 401 or 403, too."""
    if answer.status == 200:
        found = decode(answer.body, _TokenAnswer)
        return IssuedTokens(found.access_token, found.refresh_token)
    if _read_error(answer) in ENDED:
        raise NotAuthenticated("the sign-in has ended at the issuer: sign in again")
    raise _unexpected(answer)


def _read_error(answer: Answer) -> str:
    if answer.status not in {400, 401, 403}:
        return ""
    try:
        return decode(answer.body, _TokenError).error
    except IssuerUnavailable:
        return ""


def _unexpected(answer: Answer) -> IssuerUnavailable:
    return IssuerUnavailable(f"the issuer answered with status {answer.status}")


@asynccontextmanager
async def open_openid_provider(
    settings: SignInSettings, *, ssl_context: ssl.SSLContext | None = None, total_seconds: float = TOTAL_SECONDS
) -> AsyncIterator[OpenIdProvider]:
    """`total_seconds`: for one question, however the answer comes. Nothing is asked yet, and nothing stays open."""
    yield OpenIdProvider(settings, IssuerHttp(ssl_context or build_ssl_context(), total_seconds))
