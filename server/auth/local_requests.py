"""What is asked of the local issuer, checked as a real provider would. Pure.

RFC 6749 with PKCE (RFC 7636): https://www.rfc-editor.org/rfc/rfc6749 and https://www.rfc-editor.org/rfc/rfc7636.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from server.auth.settings import LOCAL_ISSUER_PATH, SignInSettings
from server.errors import RequestInvalid, ServerError

SCOPES = ("openid", "profile", "email", "offline_access")
MAX_CHARACTERS = 2000
"""Of `state` and whatever else comes back as it was."""
MAX_EMAIL_CHARACTERS = 254
MAX_NAME_CHARACTERS = 100

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@.]+(\.[^\s@.]+)+")


class AuthorizationRefused(ServerError):
    """The app is told, by the browser: `location` is where that goes (RFC 6749, 4.1.2.1)."""

    def __init__(self, location: str, description: str) -> None:
        super().__init__(description)
        self.location = location


class GrantRefused(ServerError):
    """Whoever asked for tokens is told; `error` is a word of RFC 6749, 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


@dataclass(frozen=True, slots=True)
class Authorization:
    """An app wants somebody to sign in, and has the right to ask."""

    client_id: str
    redirect_uri: str
    state: str
    scopes: tuple[str, ...]
    challenge: str = field(repr=False)
    nonce: str

    def build_form(self, settings: SignInSettings) -> dict[str, str]:
        """The request once more, for a form to carry: what is posted is checked as if it came for the first time."""
        return {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "scope": " ".join(self.scopes),
            "audience": settings.audience,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            "nonce": self.nonce,
        }

    def build_answer(self, **answer: str) -> str:
        """Where the browser goes back to, with a code or an error."""
        return _build_location(self.redirect_uri, {**answer, "state": self.state})


@dataclass(frozen=True, slots=True)
class Person:
    """Whoever signs in, by their own word."""

    email: str = field(repr=False)
    name: str = field(repr=False)

    @property
    def subject(self) -> str:
        """The same for the same address, in whatever case."""
        return f"local|{hashlib.sha256(self.email.lower().encode()).hexdigest()[:32]}"


def read_fields(lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Of a query or a form, each by its name. Raises RequestInvalid for one that comes twice (RFC 6749, 3.1)."""
    found = {}
    for name, values in lists.items():
        if len(values) != 1:
            raise RequestInvalid(f"{name[:40]}: stands there more than once")
        found[name] = values[0]
    return found


def read_authorization(settings: SignInSettings, fields: Mapping[str, str]) -> Authorization:
    """Raises RequestInvalid while it is not certain that the app is one of ours and where it is answered: nothing is
    sent to an address that a stranger chose. After that AuthorizationRefused.
    """
    if fields.get("client_id") not in settings.client_ids:
        raise RequestInvalid("client_id: is no app of this server")
    if fields.get("redirect_uri") not in settings.callback_urls:
        raise RequestInvalid("redirect_uri: is not this server's callback")
    if any(len(fields.get(name, "")) > MAX_CHARACTERS for name in ("state", "nonce", "scope")):
        raise RequestInvalid("state, nonce and scope: must be shorter")
    if problem := _find_problem(settings, fields):
        error, description = problem
        answer = {"error": error, "error_description": description, "state": fields.get("state", "")}
        raise AuthorizationRefused(_build_location(fields["redirect_uri"], answer), description)
    return Authorization(
        client_id=fields["client_id"],
        redirect_uri=fields["redirect_uri"],
        state=fields.get("state", ""),
        scopes=tuple(scope for scope in SCOPES if scope in fields["scope"].split()),
        challenge=fields["code_challenge"],
        nonce=fields.get("nonce", ""),
    )


def _find_problem(settings: SignInSettings, fields: Mapping[str, str]) -> tuple[str, str] | None:
    if fields.get("response_type") != "code":
        return "unsupported_response_type", "response_type must be code"
    if "openid" not in fields.get("scope", "").split():
        return "invalid_scope", "scope must hold openid"
    if fields.get("audience") != settings.audience:
        return "invalid_request", "audience is not this server's API"
    if fields.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(fields.get("code_challenge", "")):
        return "invalid_request", "code_challenge must be 43 characters of base64url, by the method S256"
    return None


def read_person(fields: Mapping[str, str]) -> Person:
    """Raises RequestInvalid, in words for the one who fills in the form."""
    email = fields.get("email", "").strip()
    if len(email) > MAX_EMAIL_CHARACTERS or not _EMAIL.fullmatch(email) or not email.isprintable():
        raise RequestInvalid("Enter an e-mail address, like ann@example.com")
    name = " ".join(fields.get("name", "").split())
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise RequestInvalid("Enter a shorter name, of letters that can be shown")
    return Person(email, name)


def check_client(settings: SignInSettings, fields: Mapping[str, str]) -> str:
    """An app has no secret; what is asked for in its name it proves by the code's verifier. Raises GrantRefused."""
    client_id = fields.get("client_id", "")
    if client_id not in settings.client_ids:
        raise GrantRefused("invalid_client", "client_id is no app of this server")
    return client_id


def is_verified_by(challenge: str, verifier: str) -> bool:
    """Whether who brings the code is who asked for it (RFC 7636, 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return hmac.compare_digest(digest, challenge)


def read_logout_location(settings: SignInSettings, fields: Mapping[str, str]) -> str:
    """Raises RequestInvalid for any other address than our own: a link to us must not lead elsewhere."""
    ours = settings.issuer.removesuffix(f"{LOCAL_ISSUER_PATH}/") + "/auth/auth0/logged-out"
    if fields.get("returnTo", ours) != ours:
        raise RequestInvalid("returnTo: is not this server's page for those who have signed out")
    return ours


def build_discovery(issuer: str) -> dict[str, object]:
    """`issuer` ends in a slash. https://openid.net/specs/openid-connect-discovery-1_0.html, section 3."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}authorize",
        "token_endpoint": f"{issuer}oauth/token",
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
    }


def _build_location(redirect_uri: str, answer: Mapping[str, str]) -> str:
    return f"{redirect_uri}?{urlencode({name: value for name, value in answer.items() if value})}"
