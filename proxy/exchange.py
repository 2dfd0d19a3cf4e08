"""One request to a provider and its answer, on one connection: what waits, and for how long."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Protocol

import trio

from proxy.body_framing import Body, FramingBroken
from proxy.body_pieces import TailPieces
from proxy.errors import Phase, UpstreamBroken, UpstreamTimedOut
from proxy.http_head import HeadExchange, RequestLine, ResponseHead
from proxy.media_file import BodyTail
from proxy.wire import Wire

_ONE_SEND_BYTES = 64 * 1024
LOOK_SECONDS = 0.1
"""How often a request that the provider does not take is interrupted by a look for its answer."""


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


class ClosedUnanswered(Exception):
    """The connection ended before the first byte of an answer."""


class NetworkExchange:
    """One request and its answer. NetworkTransport gives it a wire and takes that back."""

    def __init__(
        self, line: RequestLine, request_body: bytes, deadlines: Deadlines, tail: BodyTail | None = None
    ) -> None:
        self.wire: Wire | None = None
        self._tail = tail
        self._host = line.origin.host
        self._line = line
        self._request_body = request_body
        self._deadlines = deadlines
        self._is_sent = False
        self._head: ResponseHead | None = None
        self._early_payload = b""
        self.is_watched = False
        """Whether somebody calls interrupt_if_waiting_since(), so that a read needs no deadline of its own."""
        self._waiting_since = inf
        self._waited_seconds = 0.0
        self._was_interrupted = False

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def is_over(self) -> bool:
        """Whether the request has gone out and the answer has come, both to the last byte."""
        return self._is_sent and self._head is not None and self._head.body.is_complete

    @property
    def may_keep_wire(self) -> bool:
        return self.is_over and self._answer.may_keep and not self._answer.body.has_excess

    async def begin(self) -> None:
        """Sends the request and waits for the head of its answer. Raises ClosedUnanswered, UpstreamError and
        MediaUnreadable.
        """
        exchange = HeadExchange(self._line)
        self._is_sent = await self._send(exchange.request_bytes)
        head = None
        if self._tail is not None and self._is_sent:
            self._is_sent = False
            head = await self._send_tail(self._tail, exchange)
        if head is None:
            with deadline(self._host, "response", self._deadlines.response_seconds):
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

    def interrupt_if_waiting_since(self, moment: float) -> None:
        """Makes a read that has waited since then, or for longer, raise UpstreamTimedOut. Without one, does nothing."""
        if self._waiting_since <= moment and self.wire is not None:
            self._was_interrupted = True
            self.wire.interrupt()

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
            with deadline(self._host, "write", self._deadlines.write_seconds):
                piece = piece[await self._open_wire.send_some(piece) :]
            if piece:
                await trio.lowlevel.checkpoint()  # a fast network would let nobody else run

    async def _send_tail(self, tail: BodyTail, exchange: HeadExchange) -> ResponseHead | None:
        """The head of an answer that came before all was sent: then nobody wants the rest, and it stays here."""
        pieces = TailPieces(tail)
        while piece := await pieces.read_next():
            try:
                head = await self._send_listening(memoryview(piece), exchange)
            except (OSError, trio.ClosedResourceError):
                return None
            if head is not None:
                return head
        self._is_sent = True
        return None

    async def _send_listening(self, piece: memoryview, exchange: HeadExchange) -> ResponseHead | None:
        wire = self._open_wire
        while (head := self._hear_nowait(exchange)) is None:
            piece = piece[wire.send_nowait(piece) :]
            if not piece and not wire.has_unsent:
                return None
            if (head := await self._wait_room(exchange)) is not None:
                return head
        return head

    async def _wait_room(self, exchange: HeadExchange) -> ResponseHead | None:
        """Until more can be sent, or has become needless. One task cannot wait for both, so it waits and looks."""
        wire = self._open_wire
        with deadline(self._host, "write", self._deadlines.write_seconds):
            while True:
                with trio.move_on_after(LOOK_SECONDS):
                    await wire.wait_room()
                    return None
                if (head := self._hear_nowait(exchange)) is not None:
                    return head

    def _hear_nowait(self, exchange: HeadExchange) -> ResponseHead | None:
        data = self._open_wire.receive_nowait()
        if data == b"":
            raise BrokenPipeError("the provider has ended")
        return exchange.feed(data) if data else None

    async def _receive_head(self, exchange: HeadExchange) -> ResponseHead:
        while True:
            try:
                data = await self._open_wire.receive_some()
            except (OSError, trio.ClosedResourceError) as error:
                raise self._ended_early(exchange.has_heard) from error
            if not data:
                raise self._ended_early(exchange.has_heard)
            if (head := exchange.feed(data)) is not None:
                return head

    def _ended_early(self, heard: bool) -> Exception:
        return UpstreamBroken(f"{self._host} broke off within the head of its answer") if heard else ClosedUnanswered()

    async def _receive(self) -> bytes:
        """One read, always waited for: whatever comes until it is this task's turn is then in the same batch."""
        wire = self._open_wire
        self._was_interrupted = False
        started = trio.current_time()
        try:
            if self.is_watched:
                self._waiting_since = started - self._waited_seconds
                data = await wire.receive_later()
            else:
                with deadline(self._host, "idle", self._deadlines.idle_seconds, self._waited_seconds):
                    data = await wire.receive_later()
        except (OSError, trio.ClosedResourceError) as error:
            if self._was_interrupted:
                raise _timed_out(self._host, "idle", self._deadlines.idle_seconds) from error
            raise UpstreamBroken(f"{self._host} broke the connection within its answer") from error
        finally:  # a read may be cut off, to send a comment, and repeated: the silence goes on
            self._waiting_since = inf
            self._waited_seconds += trio.current_time() - started
        self._waited_seconds = 0.0
        return data

    def _unframe(self, body: Body, data: bytes) -> bytes:
        try:
            if data:
                return body.feed(data)
            body.feed_end()
        except FramingBroken as error:
            raise UpstreamBroken(f"{self._host} did not finish its answer: {error}") from error
        return b""


@contextmanager
def deadline(host: str, phase: Phase, seconds: float, waited_seconds: float = 0) -> Iterator[None]:
    """Raises UpstreamTimedOut for what takes longer, with what it has waited before."""
    with trio.move_on_after(max(0, seconds - waited_seconds)) as scope:
        yield
    if scope.cancelled_caught:
        raise _timed_out(host, phase, seconds)


def _timed_out(host: str, phase: Phase, seconds: float) -> UpstreamTimedOut:
    return UpstreamTimedOut(f"{host} was silent for {seconds:g} seconds ({phase})", phase)
