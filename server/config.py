"""Every setting, read once. Nothing else sees the environment."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from proxy.provider import Provider, setting_names
from proxy.routing import Upstream

Environment = Literal["development", "production"]
T = TypeVar("T")

MEBIBYTE = 1024 * 1024
MIN_SECRET_CHARACTERS = 32


class ConfigInvalid(Exception):
    """Settings are missing or wrong. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one process. Secrets and URLs that carry passwords show in no repr."""

    environment: Environment
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    jwt_previous_secret: str | None = field(repr=False)
    token_days: float
    database_connections: int
    max_body_bytes: int
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
    upstreams: Mapping[str, Upstream] = field(repr=False)

    @property
    def is_production(self) -> bool:
        return self.environment == "production"


def read_config(environment: Mapping[str, str], providers: Mapping[str, Provider]) -> Config:
    """Raises ConfigInvalid with every problem at once."""
    settings = _Settings(environment)
    production: Environment = "production"
    name = settings.read("ENVIRONMENT", production, _read_environment)
    config = Config(
        environment=name,
        database_url=settings.require("DATABASE_URL", "postgresql://user:password@host/database", _read_postgres_url),
        redis_url=settings.require("REDIS_URL", "redis://host:6379", _read_redis_url),
        jwt_secret=settings.require("JWT_SECRET", f"{MIN_SECRET_CHARACTERS} or more random characters", _read_secret),
        jwt_previous_secret=settings.read("JWT_SECRET_PREVIOUS", None, _read_secret),
        token_days=settings.read("JWT_ACCESS_TOKEN_DURATION_DAYS", 1.0, _read_positive),
        database_connections=settings.read("DATABASE_CONNECTIONS", 20, _read_count),
        max_body_bytes=settings.read("MAX_BODY_BYTES", 128 * MEBIBYTE, _read_count),
        keep_alive_seconds=settings.read("KEEP_ALIVE_SECONDS", 15.0, _read_positive),
        write_deadline_seconds=settings.read("WRITE_DEADLINE_SECONDS", 30.0, _read_positive),
        hold_lease_seconds=settings.read("HOLD_LEASE_SECONDS", 60, _read_count),
        connect_seconds=settings.read("PROVIDER_CONNECT_SECONDS", 15.0, _read_positive),
        first_byte_seconds=settings.read("PROVIDER_FIRST_BYTE_SECONDS", 600.0, _read_positive),
        first_token_seconds=settings.read("PROVIDER_FIRST_TOKEN_SECONDS", 600.0, _read_positive),
        idle_seconds=settings.read("PROVIDER_IDLE_SECONDS", 300.0, _read_positive),
        total_seconds=settings.read("PROVIDER_TOTAL_SECONDS", 1740.0, _read_positive),
        retry_seconds=settings.read("PROVIDER_RETRY_SECONDS", 10.0, _read_positive),
        journal_folder=settings.read("JOURNAL_FOLDER", _default_journal_folder(environment), Path),
        log_level=settings.read("LOG_LEVEL", "INFO", _read_log_level),
        upstreams=_read_upstreams(settings, providers, name == "production"),
    )
    if settings.problems:
        raise ConfigInvalid(settings.problems)
    return config


class _Settings:
    """Reads settings one by one and remembers what is wrong, so that all of it can be said at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def read(self, name: str, default: T, convert: Callable[[str], T]) -> T:
        """An empty setting counts as unset."""
        text = self._environment.get(name, "").strip()
        if not text:
            return default
        try:
            return convert(text)
        except ValueError as error:
            self.problems.append(f"{name} is wrong: {error}")
            return default

    def require(self, name: str, example: str, convert: Callable[[str], str]) -> str:
        if not self._environment.get(name, "").strip():
            self.problems.append(f"{name} is missing: set it to {example}")
            return ""
        return self.read(name, "", convert)


def _read_upstreams(
    settings: _Settings, providers: Mapping[str, Provider], is_production: bool
) -> Mapping[str, Upstream]:
    """A provider that needs no key is a stand-in, and stand-ins exist in development only."""
    upstreams = {}
    none: tuple[str, ...] = ()
    for code, provider in providers.items():
        if not provider.needs_key and is_production:
            continue
        names = setting_names(code)
        base_url = settings.read(names.base_url, provider.default_base_url, _read_base_url)
        if is_production and base_url.startswith("http://") and not _is_loopback(base_url):
            problem = f"{names.base_url} is wrong: keys and prompts may leave this machine over https only"
            settings.problems.append(problem)
        keys = [key for name in (names.api_key, names.api_keys) for key in settings.read(name, none, _read_keys)]
        upstreams[code] = Upstream(provider, base_url, tuple(dict.fromkeys(keys)))
    return upstreams


def _read_environment(text: str) -> Environment:
    match text:
        case "development" | "production":
            return text
    raise ValueError("it must be development or production")


def _read_postgres_url(text: str) -> str:
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("it must be a URL like postgresql://user:password@host/database")
    return text


def _read_redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("it must be a URL like redis://host:6379")
    return text


def _read_secret(text: str) -> str:
    if len(text) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"it must have {MIN_SECRET_CHARACTERS} or more random characters")
    return text


def _read_base_url(text: str) -> str:
    if not _is_base_url(text):
        raise ValueError("it must be a URL like https://api.example.com/v1, without user, query or fragment")
    return text.rstrip("/")


def _is_base_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:  # of the port, or of brackets that do not match
        return False
    is_plain = text.isprintable() and " " not in text and "@" not in url.netloc
    return url.scheme in {"http", "https"} and has_host and is_plain and not url.query and not url.fragment


def _read_keys(text: str) -> tuple[str, ...]:
    """Blanks around keys are dropped. What no header can hold is no key, and `Bearer` is no part of one."""
    keys = tuple(key for key in (piece.strip() for piece in text.split(",")) if key)
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ValueError("a key has letters, digits and signs of ASCII alone, and no space")
    return keys


def _read_positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError("it must be a number above zero")
    return number


def _read_count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("it must be a whole number above zero")
    return number


def _read_log_level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("it must be DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def _is_loopback(url: str) -> bool:
    return (urlsplit(url).hostname or "") in {"127.0.0.1", "::1", "localhost"}


def _default_journal_folder(environment: Mapping[str, str]) -> Path:
    """One per machine, user and database: what a killed process leaves there, its successor finds, and nobody else.

    The password is left out of the name, for it may change between the two.
    """
    url = urlsplit(environment.get("DATABASE_URL", ""))
    database = f"{url.hostname}:{url.port}{url.path}?{url.query}"
    name = hashlib.sha256(database.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cloche-{os.getuid()}-{name}"
