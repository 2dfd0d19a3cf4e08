"""What the browser brings: when an app sends it to sign in, and when the issuer sends it back. Pure.

Only what is listed here goes on, each value checked; a parameter that nobody knows is passed over, and one that comes
twice is refused (RFC 6749, 3.1). The way back answers for itself: whatever it brings, the app is told something.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlencode

from server.auth.settings import SignInSettings
from server.errors import RequestInvalid

SCOPES = frozenset({"openid", "profile", "email", "offline_access"})
MAX_CODE = 4096
MAX_REASON = 300
MAX_STATE = 128

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""SHA-256 in base64url without padding: https://www.rfc-editor.org/rfc/rfc7636#section-4.2."""
_CSRF = re.compile(r"[!-~]{16,128}")
_CODE = re.compile(rf"[ -~]{{1,{MAX_CODE}}}")
_CONNECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Query(Protocol):
    """A request's query, decoded."""

    def getlist(self, key: str, /) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """An app wants somebody to sign in. `pid`, which it will poll with, is kept as it was written."""

    pid: str
    csrf: str = field(repr=False)
    challenge: str
    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    connection: str | None


@dataclass(frozen=True, slots=True)
class Callback:
    """What the issuer says of a login: a code, or why there is none."""

    code: str | None = field(repr=False)
    error: str | None
    is_denial: bool = False
    """Somebody, most likely the one who was asked, said no (RFC 6749, 4.1.2.1): nothing is broken."""


def read_login_request(query: Query, settings: SignInSettings) -> LoginRequest:
    """Raises RequestInvalid, naming the parameter."""
    _read(query, "challenge_method", lambda text: text == "S256", "must be S256")
    _read(query, "audience", lambda text: text == settings.audience, "is not this server's API")
    return LoginRequest(
        pid=read_polling_id(query),
        csrf=_match(query, "csrf_tauri", _CSRF, "must be 16 to 128 visible characters of ASCII"),
        challenge=_match(query, "challenge", _CHALLENGE, "must be 43 characters of base64url"),
        client_id=_read(query, "client_id", settings.client_ids.__contains__, "is no app of this server"),
        redirect_uri=_read(
            query, "redirect_uri", settings.callback_urls.__contains__, "is not this server's callback"
        ),
        scopes=_read_scopes(query),
        connection=_read_connection(query),
    )


def is_uuid(text: str) -> bool:
    """In the one spelling that the apps use, in any case."""
    return _UUID.fullmatch(text) is not None


def read_polling_id(query: Query) -> str:
    """In the case that the app writes it in: iOS writes capitals. Raises RequestInvalid."""
    return _read(query, "pid", is_uuid, "must be a UUID")


def build_location(endpoint: str, login: LoginRequest, state: str, settings: SignInSettings) -> str:
    """Where the browser goes to sign in: https://www.rfc-editor.org/rfc/rfc6749#section-4.1.1.

    No `prompt=consent`, which OpenID Connect Core, 11, wants beside offline_access: Auth0 gives a refresh token without
    and with it would ask everybody at every sign-in. Where an issuer gives none, ours refresh without it.
    """
    scopes = [*login.scopes, *(["offline_access"] if settings.asks_for_refresh_token else [])]
    parameters = {
        "response_type": "code",
        "client_id": login.client_id,
        "redirect_uri": login.redirect_uri,
        "scope": " ".join(dict.fromkeys(scopes)),
        "audience": settings.audience,
        "state": state,
        "code_challenge": login.challenge,
        "code_challenge_method": "S256",
    }
    if login.connection is not None:
        parameters["connection"] = login.connection
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters, quote_via=quote)}"


def read_state(query: Query) -> str | None:
    """None if there is none that could be one of ours."""
    state = _read_only(query, "state")
    return state if state is not None and len(state) <= MAX_STATE else None


def read_callback(query: Query) -> Callback:
    """A word of the issuer's about an error counts more than a code; neither is an error too."""
    code = _read_only(query, "code")
    if query.getlist("error"):
        return Callback(None, _read_reason(query), is_denial=_read_only(query, "error") == "access_denied")
    if code is None or not _CODE.fullmatch(code):
        return Callback(None, "the sign-in page sent no code that could be used")
    return Callback(code, None)


def _read_reason(query: Query) -> str:
    """In the issuer's words, in one line; they come through the browser, so they are told and never acted on."""
    reason = _read_only(query, "error_description") or _read_only(query, "error") or ""
    printable = "".join(char if char.isprintable() else " " for char in reason[: 4 * MAX_REASON])
    return " ".join(printable.split())[:MAX_REASON] or "the sign-in page gave no reason"


def _read_scopes(query: Query) -> tuple[str, ...]:
    def is_fit(text: str) -> bool:
        return "openid" in text.split() and SCOPES.issuperset(text.split())

    text = _read(query, "scope", is_fit, "must hold openid, and may hold profile, email and offline_access")
    return tuple(dict.fromkeys(text.split()))


def _read_connection(query: Query) -> str | None:
    if not query.getlist("connection"):
        return None
    return _match(query, "connection", _CONNECTION, "must be a name of letters, digits, dots, - and _")


def _match(query: Query, name: str, pattern: re.Pattern[str], problem: str) -> str:
    return _read(query, name, lambda text: pattern.fullmatch(text) is not None, problem)


def _read(query: Query, name: str, is_fit: "_Test", problem: str) -> str:
    texts = query.getlist(name)
    if len(texts) != 1:
        raise RequestInvalid(f"{name}: {'is missing' if not texts else 'stands there more than once'}")
    if not is_fit(texts[0]):
        raise RequestInvalid(f"{name}: {problem}")
    return texts[0]


def _read_only(query: Query, name: str) -> str | None:
    texts = query.getlist(name)
    return texts[0] if len(texts) == 1 else None


class _Test(Protocol):
    def __call__(self, text: str, /) -> object: ...
