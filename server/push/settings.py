"""The push services: keys and addresses. Reads the files that its settings name, at the start, and nothing else."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.settings import Settings, is_loopback, read_base_url, read_flag, read_positive
from storage.push_tokens import PushEnvironment

APNS_PRODUCTION_URL = "https://api.push.apple.com"
APNS_SANDBOX_URL = "https://api.sandbox.push.apple.com"
FCM_URL = "https://fcm.googleapis.com"
DEFAULT_LEASE_SECONDS = 60.0
MIN_LEASE_SECONDS = 5.0
"""A batch's deadline follows from it, and no service answers a hundred pushes in less."""
MIN_RSA_BITS = 2048

_WORD = re.compile(r"[A-Za-z0-9._-]{1,255}")
_PROJECT = re.compile(r"[a-z0-9.:-]{1,100}")
_APNS_NAMES = ("APNS_TEAM_ID", "APNS_KEY_ID", "APNS_PRIVATE_KEY", "APNS_BUNDLE_ID")


@dataclass(frozen=True, slots=True)
class ApnsSettings:
    """`environment` is where tokens are looked for first that nobody has been reached at yet. The key is a PEM."""

    team_id: str
    key_id: str
    private_key: str = field(repr=False)
    bundle_id: str
    environment: PushEnvironment
    production_url: str
    sandbox_url: str


@dataclass(frozen=True, slots=True)
class FcmSettings:
    """Of a service account. `token_url` is where its assertions are exchanged. `private_key` is a PEM."""

    project_id: str
    client_email: str
    private_key_id: str
    private_key: str = field(repr=False)
    token_url: str
    base_url: str


@dataclass(frozen=True, slots=True)
class PushSettings:
    """A service that is None is off: nothing is sent to its devices."""

    apns: ApnsSettings | None
    fcm: FcmSettings | None
    ca_file: Path | None
    """Certificates of further authorities to believe, for a proxy that ends TLS."""
    lease_seconds: float
    """For so long a batch is its sender's; after a kill, its pushes are sent again that much later."""


class _ServiceAccount(msgspec.Struct):
    """What we need of the file that Google's console gives: https://cloud.google.com/iam/docs/keys-create-delete"""

    project_id: str
    client_email: str
    private_key_id: str
    private_key: str
    token_uri: str


def read_push_settings(settings: Settings, is_production: bool) -> PushSettings:
    """Half a configuration is a problem: nobody would notice that nothing arrives. No problem repeats what was set."""
    unset: Path | None = None
    return PushSettings(
        apns=_read_apns(settings),
        fcm=_read_fcm(settings, is_production),
        ca_file=settings.read("PUSH_CA_FILE", unset, _read_ca_file),
        lease_seconds=settings.read("PUSH_LEASE_SECONDS", DEFAULT_LEASE_SECONDS, _read_lease_seconds),
    )


def _read_apns(settings: Settings) -> ApnsSettings | None:
    """What is wrong is told beside what is missing, so that all can be mended at once."""
    converters: tuple[Callable[[str], str], ...] = (_read_word, _read_word, _read_ec_key, _read_word)
    values, missing = [], []
    for name, convert in zip(_APNS_NAMES, converters, strict=True):
        told = len(settings.problems)
        values.append(settings.read(name, "", convert))
        missing += [name] if not values[-1] and len(settings.problems) == told else []
    is_production = settings.read("APNS_PRODUCTION", False, read_flag)
    production_url = settings.read("APNS_PRODUCTION_URL", APNS_PRODUCTION_URL, _read_https_origin)
    sandbox_url = settings.read("APNS_SANDBOX_URL", APNS_SANDBOX_URL, _read_https_origin)
    if 0 < len(missing) < len(_APNS_NAMES):
        settings.problems.append(f"{', '.join(missing)} missing: set all of {', '.join(_APNS_NAMES)}, or none")
    if not all(values):
        return None
    team_id, key_id, private_key, bundle_id = values
    environment: PushEnvironment = "production" if is_production else "sandbox"
    return ApnsSettings(team_id, key_id, private_key, bundle_id, environment, production_url, sandbox_url)


def _read_fcm(settings: Settings, is_production: bool) -> FcmSettings | None:
    unset: _ServiceAccount | None = None
    account = settings.read("FCM_SERVICE_ACCOUNT", unset, _read_service_account)
    base_url = settings.read("FCM_URL", FCM_URL, read_base_url)
    if is_production and base_url.startswith("http://") and not is_loopback(base_url):
        settings.problems.append("FCM_URL is wrong: access tokens may leave this machine over https only")
    if account is None:
        return None
    return FcmSettings(
        project_id=account.project_id,
        client_email=account.client_email,
        private_key_id=account.private_key_id,
        private_key=account.private_key,
        token_url=account.token_uri,
        base_url=base_url,
    )


def _read_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError("it must be an identifier as Apple's developer pages show it")
    return text


def _read_ec_key(text: str) -> str:
    """The text of the .p8 file. Files of settings can often hold one line alone, and then have `\\n` in it."""
    pem = _unfold(text)
    key = _load_key(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("it must be the text of the .p8 file from Apple: a P-256 private key in PEM, without password")
    return pem


def _read_service_account(text: str) -> _ServiceAccount:
    """The text, or the file that it names, as Google's own libraries take the latter."""
    document = text if text.startswith("{") else _read_file(text)
    try:
        account = msgspec.json.decode(document, type=_ServiceAccount)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("it must be a service account's key as Google's console gives it, or its file") from None
    _check_service_account(account)
    return account


def _check_service_account(account: _ServiceAccount) -> None:
    if not all((account.project_id, account.client_email, account.private_key_id)):
        raise ValueError("the service account's key lacks project_id, client_email or private_key_id")
    if not _PROJECT.fullmatch(account.project_id):
        raise ValueError("the service account's project_id is none")
    key = _load_key(account.private_key)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < MIN_RSA_BITS:
        raise ValueError(f"the service account's private_key must be an RSA key of {MIN_RSA_BITS} bits or more, in PEM")
    if not _is_private(account.token_uri):
        raise ValueError("the service account's token_uri must be an https URL")


def _is_private(url: str) -> bool:
    try:
        return is_loopback(read_base_url(url)) or url.startswith("https://")
    except ValueError:
        return False


def _read_https_origin(text: str) -> str:
    """Connections are to this host whatever a push says, and HTTP/2 is agreed on within TLS."""
    url = read_base_url(text)
    if not url.startswith("https://") or urlsplit(url).path:
        raise ValueError("it must be a URL like https://api.push.apple.com, without a path")
    return url


def _read_ca_file(text: str) -> Path:
    path = Path(text)
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise ValueError("it must be a file of certificates in PEM that this process may read") from None
    return path


def _read_lease_seconds(text: str) -> float:
    seconds = read_positive(text)
    if seconds < MIN_LEASE_SECONDS:
        raise ValueError(f"it must be {MIN_LEASE_SECONDS:g} seconds or more, so that a batch can be sent meanwhile")
    return seconds


def _unfold(text: str) -> str:
    return text.replace("\\r", "").replace("\\n", "\n")


def _load_key(pem: str) -> Any:
    """None for what is no key, or one with a password: why would tell of the key."""
    try:
        return load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _read_file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except (OSError, ValueError):
        raise ValueError("it must be JSON, or the path of a file that this process may read") from None
