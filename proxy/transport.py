"""The only module that talks to LLM providers over the network: HTTP/1.1, lean, on h11.

A client of our own, because an abandoned answer must close its connection at once and a slot that can leak must not
exist. There is no limit on connections, no proxy from the environment, no cookie and no redirect: callers are limited
elsewhere, and a key goes to the host that it is meant for and to no other.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import certifi
import trio

from proxy.body_framing import Body, FramingBroken
from proxy.errors import Phase, UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable
from proxy.http_head import HeadExchange, Origin, RequestLine, ResponseHead, build_request_line
from proxy.provider import UpstreamRequest
from proxy.wire import Wire, open_tcp

MAX_IDLE_PER_ORIGIN = 100
IDLE_EXPIRY_SECONDS = 30.0
_ONE_SEND_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a provider may be silent in each phase; how long a whole answer may take is the caller's to say.

    `connect` covers name, TCP and TLS together, `write` the time without progress, `response` the time from the end of
    the request to the head of the answer, `idle` the time between two reads of the body.
    """

    connect_seconds: float
    response_seconds: float
    idle_seconds: float
    write_seconds: float


class Exchange(Protocol):
    """An answer whose head has come. For one task at a time."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; a field that came twice is joined by a comma."""
        ...

    async def receive_some(self) -> bytes:
        """Everything that one read brought, without its framing; b"" is the complete end, as often as it is asked.

        Raises UpstreamBroken if the connection ends before the body does, and UpstreamTimedOut on silence. Cancelling
        it loses nothing that has been read.
        """
        ...

    async def receive_all(self, limit_bytes: int) -> bytes:
        """The rest of the body. Raises UpstreamBroken for one above the limit, and what receive_some raises."""
        ...


class Transport(Protocol):
    def open_exchange(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Exchange]:
        """Sends `request` and waits for the head of the answer, of whatever status. Raises UpstreamError.

        Leaving closes the connection at once and without waiting, unless the body was read to its end.
        """
        ...


@asynccontextmanager
async def open_transport(
    deadlines: Deadlines, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator["NetworkTransport"]:
    """Opens no connection yet; leaving closes all of them, also those in use."""
    transport = NetworkTransport(deadlines, ssl_context or build_ssl_context())
    try:
        yield transport
    finally:
        transport.close()


def build_ssl_context() -> ssl.SSLContext:
    """Certificates and host names are checked, HTTP/1.1 is the only protocol, and nothing is renegotiated."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


@dataclass(frozen=True, slots=True)
class _IdleWire:
    wire: Wire
    since: float


class NetworkTransport:
    """The connections to all providers. Use open_transport()."""

    def __init__(self, deadlines: Deadlines, ssl_context: ssl.SSLContext) -> None:
        self._deadlines = deadlines
        self._ssl_context = ssl_context
        self._wires: set[Wire] = set()
        self._idle: dict[Origin, deque[_IdleWire]] = {}
        self._connecting = 0
        self._is_closed = False

    @property
    def open_connections(self) -> int:
        """Connections in use, idle ones, and attempts to connect."""
        return len(self._wires) + self._connecting

    @property
    def idle_connections(self) -> int:
        return sum(len(wires) for wires in self._idle.values())

    @asynccontextmanager
    async def open_exchange(self, request: UpstreamRequest) -> AsyncIterator["NetworkExchange"]:
        """See Transport.

        A request that a kept connection did not take, because the provider had closed it before any byte of an answer,
        is sent once more on a new one: https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1 speaks of that race.
        """
        line = build_request_line(request)
        exchange = NetworkExchange(line, request.body, self._deadlines)
        try:
            await self._start(exchange, line.origin)
            yield exchange
        finally:
            self._finish(exchange, line.origin)

    def close(self) -> None:
        self._is_closed = True
        self._idle.clear()
        for wire in tuple(self._wires):
            self._drop(wire, reset=True)

    async def _start(self, exchange: "NetworkExchange", origin: Origin) -> None:
        exchange.wire = self._take_idle(origin)
        if exchange.wire is not None:
            try:
                await exchange.begin()
            except _ClosedUnanswered:
                self._drop(exchange.wire, reset=True)
            else:
                return
        await self._connect(exchange, origin)
        try:
            await exchange.begin()
        except _ClosedUnanswered as error:
            raise UpstreamBroken(f"{origin.host} closed the connection without an answer") from error

    async def _connect(self, exchange: "NetworkExchange", origin: Origin) -> None:
        """The exchange owns the wire as soon as there is one, so that nobody who is cancelled can lose it."""
        try:
            with _deadline(origin.host, "connect", self._deadlines.connect_seconds):
                exchange.wire = wire = await self._open_wire(origin)
                if origin.scheme == "https":
                    await wire.start_tls(self._ssl_context, origin.host)
        except (OSError, trio.ClosedResourceError) as error:
            raise UpstreamUnreachable(f"{origin.host} cannot be reached: {type(error).__name__}") from error

    async def _open_wire(self, origin: Origin) -> Wire:
        if self._is_closed:
            raise trio.ClosedResourceError("the transport is closed")
        self._connecting += 1
        try:
            wire = await open_tcp(origin.host, origin.port)
        finally:
            self._connecting -= 1
        self._wires.add(wire)
        return wire

    def _take_idle(self, origin: Origin) -> Wire | None:
        """The connection that was used last, if it still lives: the older it is, the sooner a provider closes it."""
        idle = self._idle.get(origin)
        while idle:
            last = idle.pop()
            if last.since + IDLE_EXPIRY_SECONDS > trio.current_time() and last.wire.is_idle():
                return last.wire
            self._drop(last.wire, reset=False)
        return None

    def _finish(self, exchange: "NetworkExchange", origin: Origin) -> None:
        wire = exchange.wire
        if wire is None:
            return
        if exchange.may_keep_wire and not wire.is_closed:
            self._keep(wire, origin)
        else:
            self._drop(wire, reset=not exchange.is_complete)

    def _keep(self, wire: Wire, origin: Origin) -> None:
        now = trio.current_time()
        idle = self._idle.setdefault(origin, deque())
        idle.append(_IdleWire(wire, now))
        while len(idle) > MAX_IDLE_PER_ORIGIN or idle[0].since + IDLE_EXPIRY_SECONDS <= now:
            self._drop(idle.popleft().wire, reset=False)

    def _drop(self, wire: Wire, *, reset: bool) -> None:
        self._wires.discard(wire)
        wire.close(reset=reset)


class _ClosedUnanswered(Exception):
    """The connection ended before the first byte of an answer."""


class NetworkExchange:
    """One request and its answer. NetworkTransport gives it a wire and takes that back."""

    def __init__(self, line: RequestLine, request_body: bytes, deadlines: Deadlines) -> None:
        self.wire: Wire | None = None
        self._host = line.origin.host
        self._line = line
        self._request_body = request_body
        self._deadlines = deadlines
        self._is_sent = False
        self._head: ResponseHead | None = None
        self._early_payload = b""

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def is_complete(self) -> bool:
        """Whether the body's last byte has come."""
        return self._head is not None and self._head.body.is_complete

    @property
    def may_keep_wire(self) -> bool:
        head = self._head
        is_at_end = head is not None and head.body.is_complete and not head.body.has_excess
        return is_at_end and self._is_sent and self._answer.may_keep

    async def begin(self) -> None:
        """Sends the request and waits for the head of its answer. Raises _ClosedUnanswered and UpstreamError."""
        exchange = HeadExchange(self._line)
        self._is_sent = await self._send(exchange.request_bytes)
        with _deadline(self._host, "response", self._deadlines.response_seconds):
            head = await self._receive_head(exchange)
        self._early_payload = self._unframe(head.body, head.early_bytes) if head.early_bytes else b""
        self._head = head

    async def receive_some(self) -> bytes:
        """See Exchange."""
        await trio.lowlevel.checkpoint_if_cancelled()
        payload, self._early_payload = self._early_payload, b""
        body = self._answer.body
        while not payload and not body.is_complete:
            payload = self._unframe(body, await self._receive())
        return payload

    async def receive_all(self, limit_bytes: int) -> bytes:
        """See Exchange."""
        pieces: list[bytes] = []
        size_bytes = 0
        while piece := await self.receive_some():
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > limit_bytes:
                raise UpstreamBroken(f"{self._host} answered with more than {limit_bytes} bytes")
        return b"".join(pieces)

    @property
    def _answer(self) -> ResponseHead:
        if self._head is None:
            raise RuntimeError("begin() has not returned")
        return self._head

    @property
    def _open_wire(self) -> Wire:
        if self.wire is None:
            raise RuntimeError("an exchange needs a wire first")
        return self.wire

    async def _send(self, head: bytes) -> bool:
        """Whether all was sent. A provider may refuse and close before it has read everything: its answer counts."""
        small = len(self._request_body) <= _ONE_SEND_BYTES
        try:
            for piece in (head + self._request_body,) if small else (head, self._request_body):
                await self._send_piece(memoryview(piece))
        except (OSError, trio.ClosedResourceError):
            return False
        return True

    async def _send_piece(self, piece: memoryview) -> None:
        while piece:
            with _deadline(self._host, "write", self._deadlines.write_seconds):
                piece = piece[await self._open_wire.send_some(piece) :]
                await trio.lowlevel.checkpoint()

    async def _receive_head(self, exchange: HeadExchange) -> ResponseHead:
        heard = False
        while True:
            try:
                data = await self._open_wire.receive_some()
            except (OSError, trio.ClosedResourceError) as error:
                raise self._ended_early(heard) from error
            if not data:
                raise self._ended_early(heard)
            heard = True
            if (head := exchange.feed(data)) is not None:
                return head

    def _ended_early(self, heard: bool) -> Exception:
        return UpstreamBroken(f"{self._host} broke off within the head of its answer") if heard else _ClosedUnanswered()

    async def _receive(self) -> bytes:
        """One read, always waited for: whatever comes until it is this task's turn is then in the same batch."""
        seconds = self._deadlines.idle_seconds
        try:
            # written out: a context manager of our own would cost a tenth of the whole event
            with trio.CancelScope(relative_deadline=seconds):
                return await self._open_wire.receive_later()
        except (OSError, trio.ClosedResourceError) as error:
            raise UpstreamBroken(f"{self._host} broke the connection within its answer") from error
        raise _timed_out(self._host, "idle", seconds)

    def _unframe(self, body: Body, data: bytes) -> bytes:
        try:
            if data:
                return body.feed(data)
            body.feed_end()
        except FramingBroken as error:
            raise UpstreamBroken(f"{self._host} did not finish its answer: {error}") from error
        return b""


@contextmanager
def _deadline(host: str, phase: Phase, seconds: float) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise _timed_out(host, phase, seconds)


def _timed_out(host: str, phase: Phase, seconds: float) -> UpstreamTimedOut:
    return UpstreamTimedOut(f"{host} was silent for {seconds:g} seconds ({phase})", phase)
