"""Settings as they stand in the environment: read one by one, and everything that is wrong told at once. Pure."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
N = TypeVar("N", int, float)

MIN_SECRET_CHARACTERS = 32
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
"""Of any scheme: web views of apps have their own, like `tauri://localhost`."""


class ConfigInvalid(Exception):
    """Settings are missing or wrong. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings:
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
            if not is_text(text):
                raise ValueError("it must be UTF-8")
            return convert(text)
        except ValueError as error:
            self.problems.append(f"{name} is wrong: {error}")
            return default

    def require(self, name: str, example: str, convert: Callable[[str], str]) -> str:
        if not self._environment.get(name, "").strip():
            self.problems.append(f"{name} is missing: set it to {example}")
            return ""
        return self.read(name, "", convert)


def is_text(text: str) -> bool:
    """Bytes of the environment that are no UTF-8 come as halves of surrogate pairs, which nothing can write."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def read_postgres_url(text: str) -> str:
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("it must be a URL like postgresql://user:password@host/database")
    return text


def read_redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("it must be a URL like redis://host:6379")
    return text


def read_secret(text: str) -> str:
    if len(text) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"it must have {MIN_SECRET_CHARACTERS} or more random characters")
    return text


def read_base_url(text: str) -> str:
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


def read_keys(text: str) -> tuple[str, ...]:
    """Blanks around keys are dropped. What no header can hold is no key, and `Bearer` is no part of one."""
    keys = tuple(key for key in (piece.strip() for piece in text.split(",")) if key)
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ValueError("a key has letters, digits and signs of ASCII alone, and no space")
    return keys


def read_positive(text: str) -> float:
    number = _read_number(text, float)
    if not 0 < number < 1e9:
        raise ValueError("it must be a number above zero")
    return number


def read_count(text: str) -> int:
    number = _read_number(text, int)
    if not 0 < number < 2**63:
        raise ValueError("it must be a whole number above zero")
    return number


def _read_number(text: str, convert: Callable[[str], N]) -> N:
    """Python's own words repeat the text, which may be a secret that stands in the wrong place. 0 if it is none."""
    try:
        return convert(text)
    except ValueError:
        return convert("0")


def read_log_level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("it must be DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def is_loopback(url: str) -> bool:
    return (urlsplit(url).hostname or "") in {"127.0.0.1", "::1", "localhost"}


def read_name(text: str) -> str:
    if not text.isascii() or not text.replace("-", "").replace("_", "").isalnum() or len(text) > 40:
        raise ValueError("it must be a short name of letters, digits, - and _")
    return text


def read_flag(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("it must be true or false")


def read_words(text: str) -> tuple[str, ...]:
    """A list, separated by commas; blanks are dropped."""
    return tuple(word for word in (piece.strip() for piece in text.split(",")) if word)


def read_urls(text: str) -> tuple[str, ...]:
    return tuple(read_base_url(word) for word in read_words(text))


def read_origins(text: str) -> frozenset[str]:
    """Scheme, host and port alone, as browsers send them; `*` is any."""
    origins = frozenset(word.rstrip("/").lower() for word in read_words(text))
    if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("it must be a list of origins like https://app.example.com, or *")
    return origins


def read_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses or networks, separated by commas."""
    try:
        return tuple(ip_network(word, strict=False) for word in read_words(text))
    except ValueError as error:
        raise ValueError("it must be a list of addresses or networks like 10.0.0.0/8") from error


def read_amount_usd(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise ValueError("it must be an amount like 2.00") from error
    if not amount.is_finite() or not 0 <= amount <= 1_000_000 or amount != round(amount, 6):
        raise ValueError("it must be an amount from 0, with six decimal places at most")
    return amount
