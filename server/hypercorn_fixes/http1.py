"""HTTP/1.1: how one request ends and the next begins on the same connection."""


from collections.abc import Callable
from typing import Any, cast

import h11
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ASGISendEvent, H11SendableEvent
from hypercorn.utils import suppress_body

from server.hypercorn_fixes.connection import Connection, Context
from server.hypercorn_fixes.events import AnsweredEarly, Pipelined
from server.hypercorn_fixes.limits import Limits
from server.hypercorn_fixes.websocket import SocketStream

STOPPING = "cloche.stopping"
"""An extension of the scope, for answers without an end: its `hear` takes what is called when the server stops."""
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Unpausable(h11.Connection):
    """Says that it needs data when it is paused.

    Upstream's only reader waits while h11 is PAUSED (hypercorn/protocol/h11.py _handle_events), which any byte after
    the request brings about; from then on nobody reads the socket, and nobody sees the client leave.
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        return h11.NEED_DATA if event is h11.PAUSED else event


class ChunkStream(HTTPStream):
    """One request whose chunks go straight to the socket.

    h11's state does not change on Data, and the events on the way to it cost as much as the kernel does.
    """

    def __init__(self, *upstream: Any) -> None:
        super().__init__(*upstream)
        protocol = getattr(self.send, "__self__", None)  # an HTTP/2 stream keeps the slow path
        self._http1 = protocol if isinstance(protocol, Http1) else None
        self._listeners: list[Callable[[], None]] = []

    async def handle(self, event: StreamEvent) -> None:
        await super().handle(event)
        if isinstance(event, Request) and not self.closed:  # the application has been started, and has not run yet
            self.scope["extensions"][STOPPING] = {"hear": self._hear_stopping}
        elif isinstance(event, StreamClosed):
            cast(Context, self.context).termination.listeners.difference_update(self._listeners)

    def _hear_stopping(self, listener: Callable[[], None]) -> None:
        termination = cast(Context, self.context).termination
        if termination.is_set():
            listener()
        elif not self.closed:
            termination.listeners.add(listener)
            self._listeners.append(listener)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if self._http1 is None or message is None or not self._http1.frames_chunks:
            return await super().app_send(message)
        if message["type"] != "http.response.body" or not message.get("more_body") or not message.get("body"):
            return await super().app_send(message)
        body = message["body"]
        return await self._http1.write(b"%x\r\n%b\r\n" % (len(body), body))


class Http1(H11Protocol):
    def __init__(self, limits: Limits, *upstream: Any) -> None:
        super().__init__(*upstream)
        self.limits = limits
        self.write = cast(Connection, upstream[-1].__self__).send_bytes
        self.connection = self._build_connection(b"")
        self._method = ""
        self._head_has_begun = False
        self._pipelined_bytes = 0
        self.frames_chunks = False

    def _build_connection(self, received: bytes) -> h11.Connection:
        """`received` without empty lines in front: RFC 9112, 2.2. h11 answers them with 400."""
        connection = Unpausable(h11.SERVER, self.config.h11_max_incomplete_size)
        received = received.lstrip(b"\r\n")
        if received:
            connection.receive_data(received)
        self._head_has_begun = received != b""
        return connection

    # Receiving

    async def handle(self, event: Event) -> None:
        if isinstance(event, Pipelined):
            await self._handle_events()
        elif isinstance(event, RawData) and event.data and isinstance(self.connection, h11.Connection):
            await self._take(event.data)
        elif isinstance(event, RawData) and isinstance(self.stream, SocketStream):
            await self.stream.take(event.data)
        else:
            await super().handle(event)

    async def _take(self, data: bytes) -> None:
        their_state = self.connection.their_state
        if their_state is h11.IDLE and not self._head_has_begun:
            data = data.lstrip(b"\r\n")
            self._head_has_begun = data != b""
        elif their_state is not h11.IDLE and their_state is not h11.SEND_BODY:  # the request is complete
            self._pipelined_bytes += len(data)
        if self._pipelined_bytes > self.limits.pipelined_bytes:
            await self.send(Closed())
        elif data:
            await super().handle(RawData(data))

    async def _create_stream(self, request: h11.Request) -> None:
        """Refuse CONNECT: upstream hands it to the application, https://github.com/pgjones/hypercorn/issues/277 ."""
        self._method = request.method.decode("ascii")
        if request.method == b"CONNECT":
            await self._refuse(405, [(b"allow", METHODS)])
        else:
            await super()._create_stream(request)

    # Sending

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and self._is_last_response(event.status_code):
            headers = [*event.headers, (b"connection", b"close")]
            await super().stream_send(Response(event.stream_id, headers, event.status_code))
        else:
            await super().stream_send(event)

    def _is_last_response(self, status_code: int) -> bool:
        """Say so in the response, or the client may send its next request into a connection that closes."""
        refuses_body = status_code >= 400 and self.connection.their_state is h11.SEND_BODY
        refuses_upgrade = isinstance(self.connection, H11WSConnection)
        return status_code >= 200 and (self.context.terminated.is_set() or refuses_body or refuses_upgrade)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        self.frames_chunks = isinstance(event, h11.Response) and self._is_chunked(event.status_code, data)
        await self.write(data)

    def _is_chunked(self, status_code: int, head: bytes) -> bool:
        """Ask the bytes: h11 alone decides how a response is framed."""
        return b"\r\ntransfer-encoding: chunked\r\n" in head.lower() and not suppress_body(self._method, status_code)

    async def _send_error_response(self, status_code: int) -> None:
        await self._refuse(status_code, [])

    async def _refuse(self, status_code: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer without the application, and stay until the client has had a chance to read it."""
        ending = [(b"content-length", b"0"), (b"connection", b"close"), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers + ending))
        await self._send_h11_event(h11.EndOfMessage())
        await self.send(AnsweredEarly())

    # Ending

    async def _maybe_recycle(self) -> None:
        """End the request, and close the connection or make it ready for the next.

        Upstream reports http.disconnect to the application from in here, which is inside the application's own last
        send: quart-trio cancels the request for it, and neither close nor keep-alive timer is ever reached. Here
        nothing is a checkpoint but the close, which is shielded and has a deadline.
        """
        await self._close_stream()
        if self._may_recycle():
            await self._start_next_cycle()
        elif self._client_may_be_sending():
            await self.send(AnsweredEarly())
        else:
            await self.send(Closed())

    def _may_recycle(self) -> bool:
        states = {self.connection.our_state, self.connection.their_state}
        return states == {h11.DONE} and not self.context.terminated.is_set()

    def _client_may_be_sending(self) -> bool:
        """Also after a WebSocket: closing at once could cost the client our close frame and its code."""
        if isinstance(self.connection, H11WSConnection):
            return True
        has_answered = self.connection.our_state in {h11.DONE, h11.MUST_CLOSE, h11.CLOSED}
        return has_answered and (self.connection.their_state in {h11.SEND_BODY, h11.ERROR} or self._pipelined_bytes > 0)

    async def _start_next_cycle(self) -> None:
        pipelined, _ = self.connection.trailing_data
        self._pipelined_bytes = 0
        if pipelined:
            self.connection = self._build_connection(pipelined)
        else:
            self.connection.start_next_cycle()
            self._head_has_begun = False
        await self.send(Updated(idle=True))
        if pipelined:
            await self.send(Pipelined())
