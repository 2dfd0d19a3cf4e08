"""The heads of a request and of its answer, HTTP/1.1. Pure; h11 checks both.

Framing, the connection and the encoding of the answer belong to the transport, so a provider's headers of those names
are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

from proxy.body_framing import Body, EndlessBody, build_body
from proxy.errors import RequestNotSendable, UpstreamBroken
from proxy.provider import UpstreamRequest

MAX_HEAD_BYTES = 64 * 1024

_DEFAULT_PORTS = {"https": 443, "http": 80}
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "upgrade", "expect"}
    | {"accept-encoding"}
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a connection is kept for. `host` is ASCII, without the brackets of an IPv6 address."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A request ready to be sent, as often as it takes."""

    origin: Origin
    event: h11.Request = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """`body` is at its beginning; `early_bytes` of it have come with the head. `may_keep` is the provider's word."""

    status: int
    headers: Mapping[str, str]
    body: Body
    early_bytes: bytes = field(repr=False)
    may_keep: bool


class HeadExchange:
    """Writes one request's head and reads the head of its answer. Not for use again."""

    __slots__ = ("_connection", "_method", "_origin", "_size_bytes", "request_bytes")

    def __init__(self, line: RequestLine) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._origin = line.origin
        self._size_bytes = 0
        self._method = line.event.method.decode("ascii")
        self.request_bytes = self._connection.send(line.event) or b""

    @property
    def has_heard(self) -> bool:
        """Whether anything of an answer has come."""
        return self._size_bytes > 0

    def feed(self, data: bytes) -> ResponseHead | None:
        """None until the head is complete; interim (1xx) answers are skipped. Raises UpstreamBroken."""
        self._size_bytes += len(data)
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
            while isinstance(event, h11.InformationalResponse):
                event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise UpstreamBroken(f"{self._origin.host} sent what is not an HTTP answer") from error
        early_bytes, _ = self._connection.trailing_data
        if self._size_bytes - len(early_bytes) > MAX_HEAD_BYTES:  # h11 looks only at what it has not yet understood
            raise UpstreamBroken(f"{self._origin.host} sent a head that is too long")
        return self._read_response(event, early_bytes) if isinstance(event, h11.Response) else None

    def _read_response(self, response: h11.Response, early_bytes: bytes) -> ResponseHead:
        headers = _read_headers(response)
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise UpstreamBroken(f"{self._origin.host} encoded its answer, which it was asked not to do")
        body = build_body(self._method, response.status_code, headers)
        may_keep = _read_may_keep(response, headers) and not isinstance(body, EndlessBody)
        return ResponseHead(response.status_code, headers, body, early_bytes, may_keep)


def build_request_line(request: UpstreamRequest) -> RequestLine:
    """Raises RequestNotSendable, which names nothing but the host: a URL can hold a password, a header a key."""
    origin, target = _read_url(request.url)
    names = {name.lower() for name, _ in request.headers}
    headers = [("host", origin.authority)]
    headers += [(name, value) for name, value in request.headers if name.lower() not in _OURS]
    headers += [("accept-encoding", "identity"), ("content-length", str(request.body_bytes))]
    if "user-agent" not in names:
        headers.append(("user-agent", "cloche"))
    event = _build_event(request.method, target, headers)
    if event is None:
        raise RequestNotSendable(f"the request to {origin.host} holds a character that HTTP does not allow in a head")
    return RequestLine(origin, event)


def _build_event(method: str, target: str, headers: list[tuple[str, str]]) -> h11.Request | None:
    """None for what cannot be sent: the reason would quote the header, and with it the key."""
    try:
        return h11.Request(method=method, target=target, headers=headers)
    except (h11.LocalProtocolError, UnicodeError):
        return None


def _read_url(url: str) -> tuple[Origin, str]:
    if not url.isprintable() or " " in url:
        raise RequestNotSendable("a provider's URL holds a space or a control character")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if not host or parts.scheme not in _DEFAULT_PORTS:
        raise RequestNotSendable("a provider's URL is not an absolute http or https URL")
    if "@" in parts.netloc:
        raise RequestNotSendable(f"the URL of {host} carries user information, which belongs into a header")
    origin = Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _read_headers(response: h11.Response) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _read_may_keep(response: h11.Response, headers: Mapping[str, str]) -> bool:
    options = {option.strip() for option in headers.get("connection", "").lower().split(",")}
    is_ambiguous = "transfer-encoding" in headers and "content-length" in headers
    return response.http_version == b"1.1" and not is_ambiguous and "close" not in options
