"""The only module that talks to LLM providers over the network: HTTP/1.1, lean, on h11.

A client of our own, because an abandoned answer must close its connection at once and a slot that can leak must not
exist. There is no limit on connections, no proxy from the environment, no cookie and no redirect: callers are limited
elsewhere, and a key goes to the host that it is meant for and to no other.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Never, Protocol

import certifi
import trio

from proxy.errors import UpstreamBroken, UpstreamUnreachable
from proxy.exchange import ClosedUnanswered, Deadlines, Exchange, NetworkExchange, deadline
from proxy.http_head import Origin, build_request_line
from proxy.provider import UpstreamRequest
from proxy.wire import Wire, open_tcp

__all__ = ["Deadlines", "Exchange", "NetworkTransport", "Transport", "build_ssl_context", "open_transport"]

MAX_IDLE_PER_ORIGIN = 100
IDLE_EXPIRY_SECONDS = 30.0


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


@cache
def build_ssl_context() -> ssl.SSLContext:
    """Certificates and host names are checked, HTTP/1.1 is the only protocol, and nothing is renegotiated.

    Made once, for reading all certificates takes 20 ms: nobody may alter it.
    """
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
        self._exchanges: set[NetworkExchange] = set()
        self._connecting = 0
        self._is_watched = False
        self._is_closed = False

    @property
    def open_connections(self) -> int:
        """Connections in use, idle ones, and attempts to connect."""
        return len(self._wires) + self._connecting

    @property
    def idle_connections(self) -> int:
        return sum(len(wires) for wires in self._idle.values())

    @asynccontextmanager
    async def open_exchange(self, request: UpstreamRequest) -> AsyncIterator[NetworkExchange]:
        """See Transport.

        A request that a kept connection did not take, because the provider had closed it before any byte of an answer,
        is sent once more on a new one: https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1 speaks of that race.
        """
        line = build_request_line(request)
        exchange = NetworkExchange(line, request.body, self._deadlines, request.tail)
        exchange.is_watched = self._is_watched
        self._exchanges.add(exchange)
        try:
            await self._start(exchange, line.origin, may_reuse=request.is_repeatable)
            yield exchange
        finally:
            self._finish(exchange, line.origin)

    async def watch_silence(self) -> Never:
        """Takes the idle deadline from every read of the exchanges that are opened from now on, and checks it here.

        To be run beside the server, as long as it lives. A scope for each read costs half as much as all the rest of
        it; without this the deadline is kept all the same, with this it may be an eighth late.
        """
        self._is_watched = True
        try:
            while True:
                await trio.sleep(self._deadlines.idle_seconds / 8)
                silent_since = trio.current_time() - self._deadlines.idle_seconds
                for exchange in self._exchanges:
                    exchange.interrupt_if_waiting_since(silent_since)
        finally:
            self._is_watched = False
            for exchange in self._exchanges:
                exchange.is_watched = False

    def close(self) -> None:
        self._is_closed = True
        self._idle.clear()
        for wire in tuple(self._wires):
            self._drop(wire, reset=True)

    async def _start(self, exchange: NetworkExchange, origin: Origin, *, may_reuse: bool) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # or a kept connection would still send the request
        exchange.wire = self._take_idle(origin) if may_reuse else None
        if exchange.wire is not None:
            try:
                await exchange.begin()
            except ClosedUnanswered:
                self._drop(exchange.wire, reset=True)
            else:
                return
        await self._connect(exchange, origin)
        try:
            await exchange.begin()
        except ClosedUnanswered as error:
            raise UpstreamBroken(f"{origin.host} closed the connection without an answer") from error

    async def _connect(self, exchange: NetworkExchange, origin: Origin) -> None:
        """The exchange owns the wire as soon as there is one, so that nobody who is cancelled can lose it."""
        try:
            with deadline(origin.host, "connect", self._deadlines.connect_seconds):
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

    def _finish(self, exchange: NetworkExchange, origin: Origin) -> None:
        self._exchanges.discard(exchange)
        wire = exchange.wire
        if wire is None:
            return
        if exchange.may_keep_wire and not wire.is_closed:
            self._keep(wire, origin)
        else:
            self._drop(wire, reset=not exchange.is_over)

    def _keep(self, wire: Wire, origin: Origin) -> None:
        now = trio.current_time()
        idle = self._idle.setdefault(origin, deque())
        idle.append(_IdleWire(wire, now))
        while len(idle) > MAX_IDLE_PER_ORIGIN or idle[0].since + IDLE_EXPIRY_SECONDS <= now:
            self._drop(idle.popleft().wire, reset=False)

    def _drop(self, wire: Wire, *, reset: bool) -> None:
        self._wires.discard(wire)
        wire.close(reset=reset)
