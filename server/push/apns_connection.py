"""The way to one of APNs's two environments: an HTTP/2 connection that lives as long as it is used.

Any number of tasks ask; one loop connects when somebody wants to send, and again when a connection has come to its
end. What waits goes over to the next connection, and so does what the peer says it has not looked at. What was under
way on a connection that broke stays without an answer.
"""

import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Never

import trio

from proxy.wire import Wire, open_tcp
from server.push.apns_streams import Answered, ApnsStreams, ConnectionBroken, Exchange, Headers, Unanswered

STOPPING = "the server is stopping"
MAX_LAST_READS = 64
"""A megabyte of answers, which is more than one connection ever waits for."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionTimes:
    """In seconds. `connect` is for name, TCP, TLS and the peer's settings together, `write` without progress."""

    connect: float = 10.0
    write: float = 10.0
    silence_while_asking: float = 10.0
    """After it the connection is probed with a PING."""
    silence_while_idle: float = 240.0
    """Less than what address translators forget connections after."""
    ping_answer: float = 5.0
    look: float = 5.0
    """How often all of these are looked at."""
    unused: float = 3600.0
    """After it the connection is closed. APNs wants connections kept: frequent ones look to it like an attack."""
    first_pause: float = 1.0
    longest_pause: float = 60.0
    """Between attempts to connect, doubling; whoever asks meanwhile is told at once."""
    grace: float = 5.0
    """At the end of the process, for what is under way."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where to, and how TLS is agreed on. `authority` is what requests name."""

    host: str
    port: int
    authority: str
    ssl_context: ssl.SSLContext


class ApnsConnection:
    """One connection, from its first packet to its last. `on_change` is called whenever there may be more room, or
    none any more.
    """

    def __init__(self, peer: Peer, times: ConnectionTimes, on_change: Callable[["ApnsConnection"], None]) -> None:
        self.streams = ApnsStreams()
        self.retired = trio.Event()
        """Set once no more requests may go out here."""
        self.reason = ""
        self._peer = peer
        self._times = times
        self._on_change = on_change
        self._wire: Wire | None = None
        self._has_outgoing = trio.Event()
        self._ready = trio.Event()
        self._opened_at = self._heard_at = self._used_at = trio.current_time()

    async def run(self) -> None:
        """Returns when it is over; then every request on it has ended."""
        try:
            with self._noting():
                await self._serve(await self._connect())
        finally:
            self._end()

    def start(self, exchange: Exchange) -> bool:
        """False if it did not go out here, and may elsewhere."""
        self._used_at = trio.current_time()
        try:
            return self.streams.start(exchange)
        except ConnectionBroken as error:
            self.reason = self.reason or str(error)
            self.streams.abandon(self.reason)
            return exchange.ended.is_set()

    def cancel(self, exchange: Exchange) -> None:
        self.streams.cancel(exchange)
        self.announce()

    def announce(self) -> None:
        """Something has changed, and there may be something to send."""
        self._has_outgoing.set()
        if self.streams.is_ready:
            self._ready.set()
        if self.streams.is_retiring:
            self.retired.set()
        self._on_change(self)

    async def _connect(self) -> Wire:
        peer = self._peer
        with trio.fail_after(self._times.connect):
            self._wire = wire = await open_tcp(peer.host, peer.port)
            await wire.start_tls(peer.ssl_context, peer.host)
        if wire.protocol != "h2":
            raise ConnectionBroken("the peer does not speak HTTP/2")
        return wire

    async def _serve(self, wire: Wire) -> None:
        """Until one of the three has come to an end."""

        async def run(part: Callable[[Wire], Awaitable[None]]) -> None:
            with self._noting():
                await part(wire)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for part in (self._read, self._write, self._watch):
                    nursery.start_soon(run, part)
        finally:
            self._read_rest(wire)

    async def _read(self, wire: Wire) -> None:
        while True:
            data = wire.receive_nowait()
            if data is None:
                await wire.wait_incoming()
                continue
            if not data:
                raise ConnectionBroken("the peer closed the connection")
            self._heard_at = trio.current_time()
            self.streams.receive(data)
            self.announce()
            await trio.lowlevel.checkpoint()  # or a peer that never stops would have all our time

    def _read_rest(self, wire: Wire) -> None:
        """What had come before the connection broke: a push whose answer is in it would be sent again."""
        for _ in range(MAX_LAST_READS):
            data = wire.receive_nowait() if self.streams.open_streams else None
            if not data:
                return
            self.streams.receive(data)

    async def _write(self, wire: Wire) -> None:
        while not self.streams.is_done:
            await self._flush(wire)
            await self._has_outgoing.wait()
            self._has_outgoing = trio.Event()
        self.streams.close()
        await self._flush(wire)

    async def _flush(self, wire: Wire) -> None:
        while data := self.streams.take_outgoing():
            left = memoryview(data)
            while left:
                with trio.fail_after(self._times.write):
                    left = left[await wire.send_some(left) :]

    async def _watch(self, _: Wire) -> None:
        with trio.fail_at(self._opened_at + self._times.connect):
            await self._ready.wait()
        while True:
            await trio.sleep(self._times.look)
            if self._is_silent():
                await self._probe()
            elif not self.streams.open_streams and trio.current_time() - self._used_at >= self._times.unused:
                self.streams.retire()
                self.announce()

    def _is_silent(self) -> bool:
        is_asking = self.streams.open_streams > 0
        allowed_seconds = self._times.silence_while_asking if is_asking else self._times.silence_while_idle
        return trio.current_time() - self._heard_at >= allowed_seconds

    async def _probe(self) -> None:
        """Whatever is heard is a sign of life."""
        heard_at = self._heard_at
        self.streams.ping()
        self._has_outgoing.set()
        await trio.sleep(self._times.ping_answer)
        if self._heard_at == heard_at:
            raise ConnectionBroken("the peer did not answer a PING")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """The first thing that goes wrong is why the connection ends."""
        try:
            yield
        except ConnectionBroken as error:
            self.reason = self.reason or str(error)
        except (OSError, trio.TooSlowError, trio.ClosedResourceError) as error:
            self.reason = self.reason or f"the connection failed: {type(error).__name__}"

    def _end(self) -> None:
        if self._wire is not None:
            self._wire.close(reset=not self.streams.is_done)
        self.streams.abandon(self.streams.why or self.reason or "the connection was closed")
        self.announce()


class ApnsLink:
    """One environment of APNs, for any number of tasks. `keep_connected` has to run beside them."""

    def __init__(self, peer: Peer, times: ConnectionTimes) -> None:
        self._peer = peer
        self._times = times
        self._queue: deque[Exchange] = deque()
        self._arrival = trio.Event()
        self._connections: list[ApnsConnection] = []
        self._current: ApnsConnection | None = None
        self._failures = 0
        self._not_before = float("-inf")
        self._failure = ""
        self._is_over = False
        self._askers = 0
        self._silence = trio.Event()

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def ask(self, path: str, headers: Headers, body: bytes) -> Answered | Unanswered:
        """One request; who asks owns the time. Cancelled, it is called off, and no other one with it."""
        refusal = self._find_refusal()
        if refusal is not None:
            await trio.lowlevel.checkpoint()
            return refusal
        pseudo = ((":method", "POST"), (":scheme", "https"), (":authority", self._peer.authority), (":path", path))
        exchange = Exchange((*pseudo, *headers), body)
        self._askers += 1
        try:
            self._queue.append(exchange)
            self._arrival.set()
            self._fill()
            await exchange.ended.wait()
        finally:
            self._askers -= 1
            self._forget(exchange)
        return exchange.result

    async def keep_connected(self) -> None:
        """Until it is cancelled, and then for a moment longer, so that what is under way still gets its answer: a push
        without one would be sent again.
        """
        self._is_over = False
        async with trio.open_nursery() as nursery:
            life = trio.CancelScope(shield=True)
            nursery.start_soon(self._live, life)
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(self._times.grace, shield=True):
                    await self._wait_silence()
                life.cancel()
                self._is_over = True
                self._tell_all(Unanswered(STOPPING))

    async def _live(self, life: trio.CancelScope) -> None:
        with life:
            async with trio.open_nursery() as nursery:
                await self._connect_whenever_wanted(nursery)

    async def _connect_whenever_wanted(self, nursery: trio.Nursery) -> Never:
        """A connection that may take no more requests lives on beside its successor until its last answer."""
        while True:
            await self._wait_wanted()
            self._current = connection = ApnsConnection(self._peer, self._times, self._take_change)
            self._connections.append(connection)
            nursery.start_soon(self._run, connection)
            await connection.retired.wait()
            self._current = None
            self._weigh(connection)

    async def _run(self, connection: ApnsConnection) -> None:
        try:
            await connection.run()
        except Exception:  # the task's edge: a fault in the protocol must not end the server
            logger.exception("a connection to APNs met a fault of ours")
        finally:
            self._connections.remove(connection)
        logger.info("a connection to APNs has ended", extra={"host": self._peer.host, "reason": connection.reason})

    async def _wait_wanted(self) -> None:
        while not self._queue:
            self._arrival = trio.Event()
            await self._arrival.wait()

    async def _wait_silence(self) -> None:
        while self._askers:
            self._silence = trio.Event()
            await self._silence.wait()

    def _take_change(self, connection: ApnsConnection) -> None:
        refused = connection.streams.take_refused()
        self._queue.extendleft(reversed(refused))
        if refused:
            self._arrival.set()
        self._fill()

    def _fill(self) -> None:
        """Let go out what there is room for, in the order in which it came."""
        connection = self._current
        if connection is None or connection.retired.is_set():
            return
        started = False
        while self._queue and connection.streams.has_room:
            exchange = self._queue.popleft()
            started = True
            if not connection.start(exchange):
                self._queue.appendleft(exchange)
        if started:
            connection.announce()

    def _forget(self, exchange: Exchange) -> None:
        if not self._askers:
            self._silence.set()
        if exchange.ended.is_set():
            return
        with suppress(ValueError):
            self._queue.remove(exchange)
        for connection in tuple(self._connections):
            connection.cancel(exchange)

    def _weigh(self, connection: ApnsConnection) -> None:
        """A connection that never answered anything is a failure: whoever waits is told, and the next attempt is put
        off. A peer that sends us away at once may be stopping, and another one may take its place: that is forgiven
        once.
        """
        streams = connection.streams
        if streams.has_answered or not (connection.reason or streams.was_sent_away):
            self._failures = 0
            return
        self._failures += 1
        if streams.was_sent_away and self._failures == 1:
            return
        self._put_off(streams.why or connection.reason)

    def _put_off(self, reason: str) -> None:
        seconds = min(self._times.first_pause * 2 ** min(self._failures - 1, 30), self._times.longest_pause)
        self._not_before = trio.current_time() + seconds
        self._failure = reason
        logger.warning(
            "APNs cannot be reached", extra={"host": self._peer.host, "reason": reason, "again_after_seconds": seconds}
        )
        self._tell_all(Unanswered(reason, seconds))

    def _tell_all(self, result: Unanswered) -> None:
        """Those who wait for their turn."""
        while self._queue:
            self._queue.popleft().end(result)

    def _find_refusal(self) -> Unanswered | None:
        """Why nobody needs to wait, if so."""
        if self._is_over:
            return Unanswered(STOPPING)
        pause_seconds = self._not_before - trio.current_time()
        return Unanswered(self._failure, pause_seconds) if pause_seconds > 0 else None
