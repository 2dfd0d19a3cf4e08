"""The edge, where requests come in: who sends this one, what it is called, what its answer must carry. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from uuid import uuid4

Network = IPv4Network | IPv6Network
Header = tuple[str, str]

UNKNOWN = "unknown"
"""The address of whoever comes by a Unix socket and is told of by nobody."""
MAX_HOPS = 16
MAX_USER_AGENT = 300
PREFLIGHT_SECONDS = 7200
"""Chromium keeps a preflight no longer: https://developer.mozilla.org/docs/Web/HTTP/Headers/Access-Control-Max-Age."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PORT = re.compile(r"(?:\[([^\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5})")

_DEFAULTS: tuple[Header, ...] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cache-Control", "no-store"),
)
"""What an answer has unless its route says otherwise."""
_OVER_TLS: Header = ("Strict-Transport-Security", "max-age=31536000")
_VARY: Header = ("Vary", "Origin")
_CREDENTIALS: Header = ("Access-Control-Allow-Credentials", "true")
_EXPOSED: Header = (
    "Access-Control-Expose-Headers",
    "X-Request-ID, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset",
)


@dataclass(frozen=True, slots=True)
class Rules:
    """`origins` are those of web apps that may read our answers, `*` is any. `proxies` are believed about clients."""

    origins: frozenset[str]
    proxies: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it came in. `origin` is empty unless it may read the answer."""

    request_id: str
    address: str
    user_agent: str
    origin: str
    is_https: bool


def read_arrival(
    rules: Rules, peer: str | None, scheme: str, headers: Iterable[tuple[bytes, bytes]]
) -> Arrival:
    """`peer` is the other end of the connection, None for a Unix socket; `headers` have lower-case names."""
    pairs = list(headers)
    found = dict(pairs)
    address, is_proxied = peer or UNKNOWN, False
    if peer is None or rules.proxies or ":" in peer:
        hops = ",".join(_decode(value) for name, value in pairs if name == b"x-forwarded-for")
        address, is_proxied = find_client(rules.proxies, peer, hops)
    if is_proxied:
        scheme = _decode(found.get(b"x-forwarded-proto", b"")).rpartition(",")[2].strip().lower() or scheme
    origin = _decode(found.get(b"origin", b""))
    return Arrival(
        request_id=read_request_id(found.get(b"x-request-id", b"")),
        address=address,
        user_agent=_read_user_agent(found.get(b"user-agent", b"")),
        origin=origin if origin and is_allowed(rules.origins, origin) else "",
        is_https=scheme in {"https", "wss"},
    )


def read_request_id(value: bytes) -> str:
    """The client's, if it is fit for logs; else a new one."""
    return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else uuid4().hex


def is_allowed(origins: frozenset[str], origin: str) -> bool:
    return "*" in origins or origin in origins


def find_client(proxies: Sequence[Network], peer: str | None, forwarded_for: str) -> tuple[str, bool]:
    """The client's address, as it is counted, and whether the peer is a proxy that is believed.

    Every proxy appends who came to it, so the entries are walked from the right, for as long as the one who wrote them
    is trusted; what the client itself has sent stands further left. What is no address ends the walk. A Unix socket is
    trusted, for only who may open its file comes by it: that is a proxy on this machine. X-Real-IP is not read, for a
    proxy that does not set it passes on the client's own.
    """
    known = None if peer is None else read_address(peer)
    if peer is not None and (known is None or not is_trusted(proxies, known)):
        return as_counted(known), False
    for hop in reversed(forwarded_for.rsplit(",", MAX_HOPS)):
        address = read_address(hop)
        if address is None:
            break
        known = address
        if not is_trusted(proxies, address):
            break
    return as_counted(known), True


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """With or without a port; an IPv4 address inside an IPv6 one is the IPv4 address. None if it is no address."""
    text = text.strip()
    with_port = _PORT.fullmatch(text)
    try:
        address = ip_address((with_port[1] or with_port[2] or "") if with_port else text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_trusted(proxies: Sequence[Network], address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in proxies)


def as_counted(address: IPv4Address | IPv6Address | None) -> str:
    """IPv6 by /64, for that is what one customer has: https://www.rfc-editor.org/rfc/rfc6177."""
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def find_path(path: str) -> str:
    """The one name of a path that has several: `/api-key/…` and `/api/v1/…` are `/api/…`, and what proxies are sent,
    `http://host/…`, is `/…` (https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2).
    """
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    if path.startswith("/api"):
        if path == "/api-key" or path.startswith("/api-key/"):
            path = "/api" + path.removeprefix("/api-key")
        if path == "/api/v1" or path.startswith("/api/v1/"):
            path = "/api" + path.removeprefix("/api/v1")
    return path


def build_headers(arrival: Arrival, present: Iterable[str]) -> list[Header]:
    """What an answer has to carry beside its own headers, whose names are `present`."""
    names = {name.lower() for name in present}
    headers = [("X-Request-ID", arrival.request_id), _VARY]
    headers += [header for header in _DEFAULTS if header[0].lower() not in names]
    if arrival.is_https:
        headers.append(_OVER_TLS)
    if arrival.origin:
        headers += [("Access-Control-Allow-Origin", arrival.origin), _CREDENTIALS, _EXPOSED]
    return headers


def answers_preflight(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """A browser asks before it sends: https://fetch.spec.whatwg.org/#cors-preflight-request."""
    return method == "OPTIONS" and {b"origin", b"access-control-request-method"} <= {name for name, _ in headers}


def build_preflight(arrival: Arrival, headers: Iterable[tuple[bytes, bytes]]) -> list[Header]:
    """Any method and any header, for an origin that is allowed; what an answer always carries otherwise."""
    if not arrival.origin:
        return build_headers(arrival, [])
    found = dict(headers)
    asked = [
        ("Access-Control-Allow-Methods", _decode(found[b"access-control-request-method"])),
        ("Access-Control-Allow-Headers", _decode(found.get(b"access-control-request-headers", b""))),
        ("Access-Control-Max-Age", str(PREFLIGHT_SECONDS)),
    ]
    return build_headers(arrival, []) + [header for header in asked if header[1]]


def _read_user_agent(value: bytes) -> str:
    text = _decode(value)[:MAX_USER_AGENT]
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def _decode(value: bytes) -> str:
    return value.decode("latin1")
