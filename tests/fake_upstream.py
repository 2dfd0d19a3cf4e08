"""A fake LLM provider: a real HTTP/1.1 server on 127.0.0.1 that plays scripts of bytes and pauses.

A script is a list of steps, played for each request:

    async with open_fake_upstream(openai_stream(["Hel", "lo"], usage=(7, 2))) as upstream:
        ...                                    # talk to upstream.url
        assert upstream.requests[0].json["model"] == "gpt-4o-mini"

    [*upto_chunks(openai_stream(["Hel", "lo"]), 2), WaitForClose()]      # says "Hel" and no more

With a callable `respond` each request decides. It watches for the client's end at all times, also while it pauses
or is blocked in a send.
"""

import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import h11
import trio
import trustme


@dataclass(frozen=True, slots=True)
class Send:
    """Sends the bytes as they are; with `split_bytes` in pieces of that size, each a write of its own."""

    data: bytes
    split_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Sends one chunk of a chunked body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    event: trio.Event


@dataclass(frozen=True, slots=True)
class WaitForClose:
    """Says no more, until the client closes."""


@dataclass(frozen=True, slots=True)
class Close:
    """Closes in good order; over TLS with its farewell, or `abruptly` without."""

    abruptly: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Closes with an RST."""


Step = Send | SendChunk | Pause | WaitFor | WaitForClose | Close | Reset
Manner = Literal["answers", "only_listens", "reads_nothing"]

END_OF_CHUNKS = Send(b"0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it came. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(eq=False, slots=True)
class RecordedConnection:
    """What one connection has seen so far. Times are trio.current_time()."""

    opened_at: float
    requests: list[RecordedRequest] = field(default_factory=list)
    closed_by_client: trio.Event = field(default_factory=trio.Event)
    closed_at: float | None = None
    """When the client's end was noticed."""
    sent_bytes: int = 0
    sent_chunks: int = 0
    """Steps of SendChunk that were sent completely."""
    is_open: bool = True


class FakeUpstream:
    """What the clients of one fake provider did. Use open_fake_upstream()."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections: list[RecordedConnection] = []
        self.connected = trio.Event()
        """The first connection has come."""
        self.requested = trio.Event()
        """The first request has come completely."""

    @property
    def requests(self) -> list[RecordedRequest]:
        return [request for connection in self.connections for request in connection.requests]

    @property
    def open_connections(self) -> int:
        return sum(connection.is_open for connection in self.connections)


Respond = Callable[[RecordedRequest], Iterable[Step]]


@asynccontextmanager
async def open_fake_upstream(
    script: Respond | Iterable[Step] = (), *, tls: ssl.SSLContext | None = None, manner: Manner = "answers"
) -> AsyncIterator[FakeUpstream]:
    """A provider on 127.0.0.1, until the block is left. An iterable script is played again for every request.

    `only_listens` reads and never says a word, not even TLS's; `reads_nothing` leaves what comes in the kernel.
    """
    respond = script if callable(script) else _repeat(tuple(script))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    port = listeners[0].socket.getsockname()[1]
    upstream = FakeUpstream(f"{'https' if tls else 'http'}://127.0.0.1:{port}")

    async def serve(stream: trio.SocketStream) -> None:
        with _recorded(upstream) as connection:
            if manner == "reads_nothing":
                await _wait_for_reset(stream, connection)
            elif manner == "only_listens":
                await _listen(stream, connection)
            else:
                await _answer(stream, tls, connection, upstream, respond)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield upstream
        nursery.cancel_scope.cancel()


def build_tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server at 127.0.0.1 or localhost and for a client that trusts it. Slow: make them once."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def _repeat(script: tuple[Step, ...]) -> Respond:
    return lambda _request: script


@contextmanager
def _recorded(upstream: FakeUpstream) -> Iterator[RecordedConnection]:
    connection = RecordedConnection(trio.current_time())
    upstream.connections.append(connection)
    upstream.connected.set()
    try:
        yield connection
    finally:
        connection.is_open = False


def _note_close(connection: RecordedConnection) -> None:
    if connection.closed_at is None:
        connection.closed_at = trio.current_time()
    connection.closed_by_client.set()


async def _listen(stream: trio.SocketStream, connection: RecordedConnection) -> None:
    try:
        async for _ in stream:
            pass
    except trio.BrokenResourceError:
        pass
    _note_close(connection)
    await stream.aclose()


async def _wait_for_reset(stream: trio.SocketStream, connection: RecordedConnection) -> None:
    """A FIN would stay behind what nobody reads, and readiness would report the bytes: ask the kernel for the state."""
    established = b"\x01"
    tcp_info = (trio.socket.IPPROTO_TCP, trio.socket.TCP_INFO, 1)
    while stream.socket.getsockopt(*tcp_info) == established:
        await trio.sleep(0.001)
    _note_close(connection)
    await stream.aclose()


async def _answer(
    tcp: trio.SocketStream,
    tls: ssl.SSLContext | None,
    connection: RecordedConnection,
    upstream: FakeUpstream,
    respond: Respond,
) -> None:
    stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_side=True)
    player = _Player(stream, connection)
    requests_in, requests_out = trio.open_memory_channel[RecordedRequest](100)  # a client may pipeline a few
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.play_all, requests_out, respond, nursery.cancel_scope)
        async for request in _read_requests(stream):
            connection.requests.append(request)
            upstream.requested.set()
            await requests_in.send(request)
        _note_close(connection)
        nursery.cancel_scope.cancel()
    await _end(tcp, stream, player.ending)


async def _end(tcp: trio.SocketStream, stream: trio.abc.Stream, ending: Close | Reset | None) -> None:
    if isinstance(ending, Reset):
        tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    if ending == Close():
        await stream.aclose()
    else:
        await trio.aclose_forcefully(stream)


async def _read_requests(stream: trio.abc.Stream) -> AsyncIterator[RecordedRequest]:
    """Ends when the client does, however it does."""
    rest = b""
    while True:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        if rest:  # to h11 nothing means the end
            parser.receive_data(rest)
        request = await _read_request(parser, stream)
        if request is None:
            return
        yield request
        rest, _ = parser.trailing_data


async def _read_request(parser: h11.Connection, stream: trio.abc.Stream) -> RecordedRequest | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            try:
                data = await stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            parser.receive_data(bytes(data))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            return RecordedRequest(head.method.decode(), head.target.decode(), headers, bytes(body))


class _Player:
    """Plays the scripts of one connection, one after the other. `ending` is the step that closed it, if one did."""

    def __init__(self, stream: trio.abc.Stream, connection: RecordedConnection) -> None:
        self._stream = stream
        self._connection = connection
        self.ending: Close | Reset | None = None

    async def play_all(
        self, requests: trio.MemoryReceiveChannel[RecordedRequest], respond: Respond, scope: trio.CancelScope
    ) -> None:
        async for request in requests:
            try:
                await self._play(respond(request))
            except trio.BrokenResourceError:
                _note_close(self._connection)
                scope.cancel()
            if self.ending is not None:
                scope.cancel()
                return

    async def _play(self, script: Iterable[Step]) -> None:
        for step in script:
            match step:
                case Send(data, split_bytes):
                    await self._send(data, split_bytes or len(data) or 1)
                case SendChunk(data):
                    await self._send(b"%x\r\n%b\r\n" % (len(data), data), len(data) + 32)
                    self._connection.sent_chunks += 1
                case Pause(seconds):
                    await trio.sleep(seconds)
                case WaitFor(event):
                    await event.wait()
                case WaitForClose():
                    await trio.sleep_forever()
                case Close() | Reset():
                    self.ending = step
                    return

    async def _send(self, data: bytes, piece_bytes: int) -> None:
        for start in range(0, len(data), piece_bytes):
            piece = data[start : start + piece_bytes]
            await self._stream.send_all(piece)
            self._connection.sent_bytes += len(piece)


def upto_chunks(script: Iterable[Step], count: int) -> list[Step]:
    """The beginning of a script, up to and with its `count`-th chunk."""
    steps: list[Step] = []
    for step in script:
        steps.append(step)
        count -= isinstance(step, SendChunk)
        if count == 0:
            break
    return steps


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> list[Step]:
    """A whole answer with a content-length."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    return [Send(_head(status, fields) + body)]


def stream_head(status: int = 200) -> Send:
    """The head of an event stream in chunks."""
    return Send(_head(status, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}))


def sse_chunk(value: object) -> SendChunk:
    """One event with a JSON value, in a chunk of its own."""
    return SendChunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
