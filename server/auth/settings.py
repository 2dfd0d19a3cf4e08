"""How people sign in: whose tokens count, for whom, and for how long. Pure."""

import binascii
from dataclasses import dataclass, field
from decimal import Decimal

from server.settings import (
    Settings,
    is_loopback,
    read_amount_usd,
    read_base_url,
    read_flag,
    read_positive,
    read_urls,
    read_words,
)

LOCAL_ISSUER_PATH = "/local-issuer"
LOCAL_CLIENT_ID = "cloche-local"
LOCAL_AUDIENCE = "cloche-local-api"
MAX_LOGIN_DAYS = 90
"""Tombstones of deleted accounts last 100 days, longer than any token."""


@dataclass(frozen=True, slots=True)
class SignInSettings:
    """`issuer` is compared with tokens as it stands, a trailing slash included. `client_ids` are the apps'; the
    server's own client is only for refreshing at the issuer. `website_url` None means that we show the last page
    ourselves.
    """

    issuer: str
    is_local: bool
    """The issuer is our own, which signs in whoever asks: on a developer's machine alone."""
    audience: str
    client_ids: frozenset[str]
    callback_urls: tuple[str, ...]
    website_url: str | None
    asks_for_refresh_token: bool
    server_client_id: str | None
    server_client_secret: str | None = field(repr=False)
    refresh_token_key: bytes | None = field(repr=False)
    login_max_age_days: float
    refresh_grace_days: float
    signup_credits_usd: Decimal


def read_sign_in_settings(settings: Settings, server_url: str, is_production: bool) -> SignInSettings:
    issuer = _read_issuer(settings, is_production)
    is_local = not issuer and not is_production
    unset: str | None = None
    no_key: bytes | None = None
    callback = (f"{server_url}/auth/auth0/callback",)
    audience = LOCAL_AUDIENCE
    clients: tuple[str, ...] = (LOCAL_CLIENT_ID,)
    if not is_local:
        audience = settings.require("AUTH0_API_AUDIENCE", "the identifier of the API at Auth0", str)
        words = settings.require("AUTH0_NATIVE_CLIENT_ID", "the client ids of the apps, by commas", _check_words)
        clients = read_words(words)
    return SignInSettings(
        issuer=f"{server_url}{LOCAL_ISSUER_PATH}/" if is_local else issuer,
        is_local=is_local,
        audience=audience,
        client_ids=frozenset(clients),
        callback_urls=settings.read("SERVER_AUTH0_CALLBACK_URL", callback, read_urls),
        website_url=settings.read("WEBSITE_BASE_URL", unset, read_base_url),
        asks_for_refresh_token=settings.read("AUTH0_OFFLINE_ACCESS", is_local, read_flag),
        server_client_id=settings.read("AUTH0_SERVER_CLIENT_ID", LOCAL_CLIENT_ID if is_local else unset, str),
        server_client_secret=settings.read("AUTH0_SERVER_CLIENT_SECRET", unset, str),
        refresh_token_key=settings.read("REFRESH_TOKEN_ENCRYPTION_KEY", no_key, _read_encryption_key),
        login_max_age_days=settings.read("LOGIN_MAX_AGE_DAYS", 30.0, _read_login_days),
        refresh_grace_days=settings.read("REFRESH_GRACE_DAYS", 7.0, read_positive),
        signup_credits_usd=settings.read("SIGNUP_CREDITS_USD", Decimal("2.00"), read_amount_usd),
    )


def _read_issuer(settings: Settings, is_production: bool) -> str:
    """`AUTH0_DOMAIN`, or the exact issuer of any other OpenID provider in `AUTH0_ISSUER_URL`. Empty: neither is set."""
    told = len(settings.problems)
    domain = settings.read("AUTH0_DOMAIN", "", _read_domain)
    issuer = settings.read("AUTH0_ISSUER_URL", f"https://{domain}/" if domain else "", _read_issuer_url)
    if is_production and not issuer and len(settings.problems) == told:
        settings.problems.append("AUTH0_DOMAIN is missing: set it to your tenant's host, like example.eu.auth0.com")
    if is_production and issuer.startswith("http://") and not is_loopback(issuer):
        settings.problems.append("AUTH0_ISSUER_URL is wrong: an issuer is asked over https only")
    return issuer


def _read_domain(text: str) -> str:
    domain = text.removeprefix("https://").rstrip("/")
    if "/" in domain or domain != read_base_url(f"https://{domain}").removeprefix("https://"):
        raise ValueError("it must be a host like example.eu.auth0.com")
    return domain


def _read_issuer_url(text: str) -> str:
    read_base_url(text)
    return text


def _check_words(text: str) -> str:
    if not read_words(text):
        raise ValueError("it must be a list with at least one entry")
    return text


def _read_encryption_key(text: str) -> bytes:
    try:
        key = binascii.unhexlify(text)
    except binascii.Error as error:
        raise ValueError("it must be 64 hexadecimal digits") from error
    if len(key) != 32:
        raise ValueError("it must be 64 hexadecimal digits")
    return key


def _read_login_days(text: str) -> float:
    days = read_positive(text)
    if days > MAX_LOGIN_DAYS:
        raise ValueError(f"a login lasts {MAX_LOGIN_DAYS} days at most")
    return days
