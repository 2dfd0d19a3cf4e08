"""A server that speaks HTTP/2 over real TLS, does what a test tells it on each connection, and notes the rest."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, PingReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from server.push.apns_connection import Peer
from tests.push_stand_in.keys import build_client_tls, build_server_tls

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Manner:
    """How the next connections behave. `answers` is what every request gets at once; None: the test answers."""

    max_streams: int = 100
    window: int = 65_535
    says_settings: bool = True
    reads: bool = True
    answers_pings: bool = True
    answers: str | None = None
    is_away: bool = False
    """Whether connections are reset before a word is said."""


@dataclass(frozen=True, slots=True)
class Request:
    stream_id: int
    headers: dict[str, str]
    body: bytes


class PeerConnection:
    def __init__(self, tcp: trio.SocketStream, tls: trio.SSLStream[trio.SocketStream], manner: Manner) -> None:
        self.requests: list[Request] = []
        self.resets: list[int] = []
        self.pings = 0
        self.goodbyes = 0
        self.changed = trio.Event()
        self.ended = trio.Event()
        self._tcp = tcp
        self._tls = tls
        self._manner = manner
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: manner.max_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: manner.window,
        }
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        self._heads: dict[int, RequestReceived] = {}
        self._bodies: dict[int, bytes] = {}
        self._lock = trio.Lock()

    async def serve(self) -> None:
        try:
            await self._tls.do_handshake()
            if self._manner.says_settings:
                self._h2.initiate_connection()
                if self._manner.window > 65_535:
                    self._h2.increment_flow_control_window(self._manner.window)
                await self.flush()
            if not self._manner.reads:
                await trio.sleep_forever()
            while data := await self._tls.receive_some(65_536):
                for event in self._h2.receive_data(bytes(data)):
                    self._take(event)
                await self.flush()
                self._tell()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever of the two ended it
        finally:
            self.ended.set()
            self._tell()
            await trio.aclose_forcefully(self._tls)

    async def wait_requests(self, count: int) -> list[Request]:
        """The first so many that have come as a whole."""
        while len(self.requests) < count:
            await self.wait_change()
        return self.requests[:count]

    async def wait_change(self) -> None:
        self.changed = trio.Event()
        await self.changed.wait()

    async def answer(self, request: Request, status: str = "200", body: bytes = b"") -> None:
        self._answer(request.stream_id, status, body)
        await self.flush()

    async def reset(self, request: Request, code: int) -> None:
        self._h2.reset_stream(request.stream_id, code)
        await self.flush()

    async def allow(self, max_streams: int) -> None:
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: max_streams})
        await self.flush()

    async def go_away(self, last: Request | None, body: bytes = b"") -> None:
        last_id = 0 if last is None else last.stream_id
        frame = GoAwayFrame(0, last_stream_id=last_id, additional_data=body)
        await self.send(frame.serialize())

    async def send(self, data: bytes) -> None:
        async with self._lock:
            await self._tls.send_all(data)

    async def flush(self) -> None:
        if data := self._h2.data_to_send():
            await self.send(data)

    def cut(self) -> None:
        """With an RST, at once."""
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._tcp.socket.close()

    def _answer(self, stream_id: int, status: str, body: bytes = b"") -> None:
        self._h2.send_headers(stream_id, [(":status", status)], end_stream=not body)
        if body:
            self._h2.send_data(stream_id, body, end_stream=True)

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._heads[event.stream_id] = event
                self._bodies[event.stream_id] = b""
            case DataReceived():
                self._bodies[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self._take_request(event.stream_id)
            case StreamReset():
                self.resets.append(event.stream_id)
            case PingReceived():
                self.pings += 1
                if not self._manner.answers_pings:
                    self._h2.clear_outbound_data_buffer()
            case ConnectionTerminated():
                self.goodbyes += 1

    def _take_request(self, stream_id: int) -> None:
        headers = {str(name): str(value) for name, value in self._heads[stream_id].headers}
        self.requests.append(Request(stream_id, headers, self._bodies[stream_id]))
        if self._manner.answers is not None:
            with suppress(ProtocolError):  # who asked may have left meanwhile
                self._answer(stream_id, self._manner.answers)

    def _tell(self) -> None:
        self.changed.set()


@dataclass(slots=True)
class Http2Peer:
    """`manner` may be changed between connections."""

    manner: Manner
    port: int = 0
    connections: list[PeerConnection] = field(default_factory=list)
    arrived: trio.Event = field(default_factory=trio.Event)

    @property
    def address(self) -> Peer:
        return Peer("127.0.0.1", self.port, f"127.0.0.1:{self.port}", build_client_tls("h2"))

    @property
    def requests(self) -> list[Request]:
        return [request for connection in self.connections for request in connection.requests]

    async def wait_connection(self, number: int = 1) -> PeerConnection:
        """The first one is number one."""
        while len(self.connections) < number:
            self.arrived = trio.Event()
            await self.arrived.wait()
        return self.connections[number - 1]

    async def serve(self, context: ssl.SSLContext, tcp: trio.SocketStream) -> None:
        tls = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        connection = PeerConnection(tcp, tls, self.manner)
        self.connections.append(connection)
        self.arrived.set()
        if self.manner.is_away:
            connection.cut()
        await connection.serve()


@asynccontextmanager
async def open_http2_peer(manner: Manner | None = None, protocol: str = "h2") -> AsyncIterator[Http2Peer]:
    """At 127.0.0.1, until the block is left."""
    peer = Http2Peer(manner or Manner())
    context = build_server_tls(protocol)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:

        async def serve(tcp: trio.SocketStream) -> None:
            await peer.serve(context, tcp)

        await nursery.start(trio.serve_listeners, serve, listeners)
        yield peer
        nursery.cancel_scope.cancel()
