"""Every setting, read once. Nothing else sees the environment."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from proxy.provider import Provider, setting_names
from proxy.routing import Upstream
from server.auth.settings import SignInSettings, read_sign_in_settings
from server.billing.settings import BillingSettings, read_billing_settings
from server.budgets import Budgets, read_budgets
from server.push.settings import PushSettings, read_push_settings
from server.settings import (
    ConfigInvalid,
    Settings,
    is_loopback,
    read_base_url,
    read_count,
    read_flag,
    read_keys,
    read_log_level,
    read_name,
    read_networks,
    read_origins,
    read_positive,
    read_postgres_url,
    read_redis_url,
    read_secret,
)
from storage.legal_documents import LegalRegion

Environment = Literal["development", "production"]

MEBIBYTE = 1024 * 1024
SECRET_EXAMPLE = "32 or more random characters"  # noqa: S105 - what to put there, not a secret
MIN_FEEDBACK_CHARACTERS = 16
DEFAULT_SERVER_URL = "http://127.0.0.1:8080"

__all__ = ["Config", "ConfigInvalid", "read_config"]


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one process. Secrets and URLs that carry passwords show in no repr."""

    environment: Environment
    region: str
    server_url: str
    cdn_base_url: str | None
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    jwt_previous_secret: str | None = field(repr=False)
    token_days: float
    database_connections: int
    max_body_bytes: int
    upload_folder: Path
    max_audio_bytes: int
    max_video_bytes: int
    max_uploads_bytes: int
    upload_seconds: float
    keep_alive_seconds: float
    write_deadline_seconds: float
    hold_lease_seconds: int
    connect_seconds: float
    first_byte_seconds: float
    first_token_seconds: float
    idle_seconds: float
    total_seconds: float
    retry_seconds: float
    journal_folder: Path
    log_level: str
    logs_access: bool
    cors_origins: frozenset[str]
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    api_key_secret: str = field(repr=False)
    audit_secret: str = field(repr=False)
    deployment_token: str | None = field(repr=False)
    deployment_color: str
    feedback_secret: str | None = field(repr=False)
    consent_region: LegalRegion | None
    sign_in: SignInSettings
    billing: BillingSettings
    budgets: Budgets
    push: PushSettings
    upstreams: Mapping[str, Upstream] = field(repr=False)

    @property
    def is_production(self) -> bool:
        return self.environment == "production"


def read_config(environment: Mapping[str, str], providers: Mapping[str, Provider]) -> Config:
    """Raises ConfigInvalid with every problem at once."""
    settings = Settings(environment)
    production: Environment = "production"
    name = settings.read("ENVIRONMENT", production, _read_environment)
    server_url = _read_server_url(settings, name)
    config = Config(
        environment=name,
        region=settings.read("REGION", "default", read_name),
        server_url=server_url,
        cdn_base_url=settings.read("CDN_BASE_URL", None, _read_https_url),
        database_url=settings.require("DATABASE_URL", "postgresql://user:password@host/database", read_postgres_url),
        redis_url=settings.require("REDIS_URL", "redis://host:6379", read_redis_url),
        jwt_secret=settings.require("JWT_SECRET", SECRET_EXAMPLE, read_secret),
        jwt_previous_secret=settings.read("JWT_SECRET_PREVIOUS", None, read_secret),
        token_days=settings.read("JWT_ACCESS_TOKEN_DURATION_DAYS", 1.0, read_positive),
        database_connections=settings.read("DATABASE_CONNECTIONS", 20, read_count),
        max_body_bytes=settings.read("MAX_BODY_BYTES", 128 * MEBIBYTE, read_count),
        upload_folder=settings.read("UPLOAD_DIR", Path(tempfile.gettempdir()), _read_folder),
        max_audio_bytes=settings.read("MAX_AUDIO_BYTES", 100 * MEBIBYTE, read_count),
        max_video_bytes=settings.read("MAX_VIDEO_BYTES", 100 * MEBIBYTE, read_count),
        max_uploads_bytes=settings.read("MAX_UPLOADS_BYTES", 8192 * MEBIBYTE, read_count),
        upload_seconds=settings.read("UPLOAD_SECONDS", 1800.0, read_positive),
        keep_alive_seconds=settings.read("KEEP_ALIVE_SECONDS", 15.0, read_positive),
        write_deadline_seconds=settings.read("WRITE_DEADLINE_SECONDS", 30.0, read_positive),
        hold_lease_seconds=settings.read("HOLD_LEASE_SECONDS", 60, read_count),
        connect_seconds=settings.read("PROVIDER_CONNECT_SECONDS", 15.0, read_positive),
        first_byte_seconds=settings.read("PROVIDER_FIRST_BYTE_SECONDS", 600.0, read_positive),
        first_token_seconds=settings.read("PROVIDER_FIRST_TOKEN_SECONDS", 600.0, read_positive),
        idle_seconds=settings.read("PROVIDER_IDLE_SECONDS", 300.0, read_positive),
        total_seconds=settings.read("PROVIDER_TOTAL_SECONDS", 1740.0, read_positive),
        retry_seconds=settings.read("PROVIDER_RETRY_SECONDS", 10.0, read_positive),
        journal_folder=settings.read("JOURNAL_FOLDER", _default_journal_folder(environment), Path),
        log_level=settings.read("LOG_LEVEL", "INFO", read_log_level),
        logs_access=settings.read("ACCESS_LOG", True, read_flag),
        cors_origins=settings.read("CORS_ORIGINS", frozenset({"*"}), read_origins),
        trusted_proxies=settings.read("TRUSTED_PROXIES", (), read_networks),
        api_key_secret=_read_purpose_secret(settings, "API_KEY_HASH_SECRET", name),
        audit_secret=_read_purpose_secret(settings, "AUDIT_HMAC_SECRET", name),
        deployment_token=_read_deployment_token(settings),
        deployment_color=settings.read("DEPLOYMENT_COLOR", "unknown", read_name),
        consent_region=settings.read("REQUIRE_CONSENT", None, _read_consent_region),
        feedback_secret=settings.read("FEATUREBASE_SSO_SECRET", None, _read_feedback_secret),
        sign_in=read_sign_in_settings(settings, server_url, name == "production"),
        billing=read_billing_settings(settings, server_url, name == "production"),
        budgets=read_budgets(settings),
        push=read_push_settings(settings, name == "production"),
        upstreams=_read_upstreams(settings, providers, name == "production"),
    )
    if settings.problems:
        raise ConfigInvalid(settings.problems)
    return config


def _read_upstreams(
    settings: Settings, providers: Mapping[str, Provider], is_production: bool
) -> Mapping[str, Upstream]:
    """A provider that needs no key is a stand-in, and stand-ins exist in development only."""
    upstreams = {}
    none: tuple[str, ...] = ()
    for code, provider in providers.items():
        if not provider.needs_key and is_production:
            continue
        names = setting_names(code)
        base_url = settings.read(names.base_url, provider.default_base_url, read_base_url)
        if is_production and base_url.startswith("http://") and not is_loopback(base_url):
            problem = f"{names.base_url} is wrong: keys and prompts may leave this machine over https only"
            settings.problems.append(problem)
        keys = [key for name in (names.api_key, names.api_keys) for key in settings.read(name, none, read_keys)]
        upstreams[code] = Upstream(provider, base_url, tuple(dict.fromkeys(keys)))
    return upstreams


def _read_server_url(settings: Settings, environment: Environment) -> str:
    """In production nobody could sign in with an address that only this machine knows."""
    if environment == "production":
        return settings.require("SERVER_URL", "this server's address for clients and the issuer", read_base_url)
    return settings.read("SERVER_URL", DEFAULT_SERVER_URL, read_base_url)


def _read_https_url(text: str) -> str:
    url = read_base_url(text)
    if not url.startswith("https://"):
        raise ValueError("it must be an https URL: phones load nothing from others")
    return url


def _read_purpose_secret(settings: Settings, name: str, environment: Environment) -> str:
    """A secret of its own in production; on a developer's machine one that follows from JWT_SECRET will do."""
    if environment == "production":
        return settings.require(name, SECRET_EXAMPLE, read_secret)
    derived = hashlib.sha256(f"{name} {settings.read('JWT_SECRET', '', str)}".encode()).hexdigest()
    return settings.read(name, derived, read_secret)


def _read_deployment_token(settings: Settings) -> str | None:
    """Both names are in use. Without a token the page that shows what still runs is closed."""
    unset: str | None = None
    names = ("VIBE_DEPLOYMENT_TOKEN", "PLANTOCODE_DEPLOYMENT_TOKEN")
    return next((token for name in names if (token := settings.read(name, unset, str))), None)


def _read_feedback_secret(text: str) -> str:
    """Featurebase makes it, so it may be shorter than ours."""
    if len(text) < MIN_FEEDBACK_CHARACTERS:
        raise ValueError(f"it must have {MIN_FEEDBACK_CHARACTERS} or more characters, as Featurebase shows them")
    return text


def _read_consent_region(text: str) -> LegalRegion | None:
    """Whose legal documents must be accepted before a chat; nobody's if it is off."""
    match text.lower():
        case "eu" | "us" as region:
            return region
        case "off":
            return None
    raise ValueError("it must be eu, us or off")


def _read_environment(text: str) -> Environment:
    match text:
        case "development" | "production":
            return text
    raise ValueError("it must be development or production")


def _read_folder(text: str) -> Path:
    if not (os.path.isdir(text) and os.access(text, os.W_OK | os.X_OK)):  # noqa: PTH112 # says no where a Path raises
        raise ValueError("it must be a folder that is there and may be written to")
    return Path(text)


def _default_journal_folder(environment: Mapping[str, str]) -> Path:
    """One per machine, user and database: what a killed process leaves there, its successor finds, and nobody else.

    The password is left out of the name, for it may change between the two. Any text will do: this is before anybody
    has said whether it is a URL, and one of PostgreSQL's may name several hosts.
    """
    database = environment.get("DATABASE_URL", "").rpartition("@")[2]
    name = hashlib.sha256(os.fsencode(database)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cloche-{os.getuid()}-{name}"
