"""WebSockets: whole messages in, prebuilt frames out, and an end that says why.

Beside what ASGI has (https://asgi.readthedocs.io/en/latest/specs/www.html#websocket), the scope's extension
`cloche.websocket` announces: the events `websocket.ping`, which has been answered, and `websocket.pong` with its
payload in `bytes`; the key `frames` of `websocket.send`, whole frames that go out as they are, and then ClientGone if
there is nobody to take them; the key `hears_out` of `websocket.close`, by which what the client says until its own
close is still received; and `hear_stopping`, which takes what is to be called when the server begins to stop.
"""

from collections.abc import Callable
from time import time
from typing import Any, cast
from urllib.parse import unquote

import trio
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WSStream
from hypercorn.trio.task_group import _handle
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, WebsocketAcceptEvent
from hypercorn.utils import UnexpectedMessageError, valid_server_name

from server.hypercorn_fixes.connection import Context
from server.hypercorn_fixes.frame_reader import (
    NO_CODE,
    CloseFrame,
    FrameInvalid,
    FrameReader,
    Item,
    PingFrame,
    PongFrame,
)
from server.hypercorn_fixes.limits import Limits
from server.hypercorn_fixes.socket_mailbox import SocketMailbox
from server.websocket_frames import build_binary, build_close, build_pong, build_text

EXTENSION = "cloche.websocket"
ABNORMAL, INTERNAL_ERROR, RESTARTING = 1006, 1011, 1012


class ClientGone(OSError):
    """`code` is the client's close code, 1006 if it left without a word."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the client of a WebSocket is gone: {code}")
        self.code = code


class SocketStream(WSStream):
    """One WebSocket. Its client's bytes are read by the task of the connection, its frames written by who sends.

    Upstream negotiates permessage-deflate, lets wsproto's RemoteProtocolError end the connection without a close frame,
    measures text in characters after it has buffered all of a frame, parses what comes before the handshake's answer
    with a parser that is not there yet, and answers pings from the only reader, behind whatever is being written.
    """

    def __init__(self, limits: Limits, *upstream: Any) -> None:
        super().__init__(*upstream)
        self.limits = limits
        protocol = getattr(self.send, "__self__", None)
        self._write_http1 = getattr(protocol, "write", None)  # an HTTP/2 stream has windows, and keeps its own way
        self._mailbox = SocketMailbox()
        self._reader = FrameReader(self.config.websocket_max_message_size)
        self._is_decided = trio.Event()  # accepted, or refused, or over
        self._has_closed = False  # the handler has
        self._has_said_close = False
        self._hears_out = False  # what the client says until it has answered our close
        self._close_is_written = trio.Event()
        self._has_heard_close = trio.Event()
        self._gone: int | None = None  # the code with which the client has ended it
        self._writers = 0
        self._unanswered: bytes | None = None  # the payload of the client's newest ping
        self._listeners: list[Callable[[], None]] = []

    # Receiving

    async def handle(self, event: Event) -> None:
        if self.closed:
            return
        if isinstance(event, Request):
            await self._begin(event)
        elif isinstance(event, (Body, Data)):
            await self.take(event.data)
        elif isinstance(event, StreamClosed):
            self._end(ABNORMAL)
        elif isinstance(event, EndBody):  # of HTTP/2: the client has left without a close frame
            self._note_gone(ABNORMAL)

    async def _begin(self, request: Request) -> None:
        self.start_time = time()
        self.handshake = Handshake(request.headers, request.http_version)
        self.handshake.extensions = None
        path, _, query = request.raw_path.partition(b"?")
        self.scope = {
            "type": "websocket",
            "asgi": {"spec_version": "2.3", "version": "3.0"},
            "scheme": self.scheme,
            "http_version": request.http_version,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": self.config.root_path,
            "headers": request.headers,
            "client": self.client,
            "server": self.server,
            "state": request.state.copy(),  # type: ignore[typeddict-item] # as upstream has it
            "subprotocols": self.handshake.subprotocols or [],
            "extensions": {"websocket.http.response": {}, EXTENSION: {"hear_stopping": self._hear_stopping}},
        }
        if request.http_version < "1.1" or not valid_server_name(self.config, request):
            await self._refuse(400 if request.http_version < "1.1" else 404)
            return
        await self._mailbox.put({"type": "websocket.connect"}, 0)
        self.task_group.spawn(self._run_app)

    async def _refuse(self, status_code: int) -> None:
        """It is no handshake; to whoever handles it the client is gone."""
        await self._send_error_response(status_code)
        self._end(ABNORMAL)
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _run_app(self) -> None:
        try:
            await _handle(
                self.app,
                self.config,
                self.scope,
                self._mailbox.receive,
                self.app_send,
                trio.to_thread.run_sync,
                trio.from_thread.run,
            )
        finally:
            self._mailbox.close()

    async def take(self, data: bytes) -> None:
        """Bytes of the client. Those that come before the handshake is answered wait, and the connection with them."""
        if not self._is_decided.is_set():
            await self._is_decided.wait()
        if self.state is not ASGIWebsocketState.CONNECTED:
            return
        try:
            for item in self._reader.read(data):
                if self.closed or self._gone is not None:
                    return
                await self._note(item)
        except FrameInvalid as fault:
            await self._leave(fault.code, build_close(fault.code, str(fault)))

    async def _note(self, item: Item) -> None:
        if isinstance(item, CloseFrame):
            await self._leave(item.code, build_close(None if item.code == NO_CODE else item.code))
        elif self._has_said_close and not self._hears_out:
            return  # nobody takes it any more
        elif isinstance(item, PingFrame):
            await self._answer_ping(item.payload)
            await self._put({"type": "websocket.ping"}, 0)
        elif isinstance(item, PongFrame):
            await self._put({"type": "websocket.pong", "bytes": item.payload}, len(item.payload))
        elif isinstance(item, str):
            await self._put({"type": "websocket.receive", "text": item, "bytes": None}, len(item))
        else:
            await self._put({"type": "websocket.receive", "text": None, "bytes": item}, len(item))

    async def _put(self, event: Any, payload_bytes: int) -> None:
        await self._mailbox.put(cast(ASGIReceiveEvent, event), payload_bytes)

    async def _answer_ping(self, payload: bytes) -> None:
        """Behind somebody who waits for the client to take something, the reader must not wait too: a client that is
        slow to read would look silent. Whoever writes answers then, the newest of the pings: RFC 6455, 5.5.3.
        """
        self._unanswered = payload
        if not self._writers:
            await self._write(b"")

    async def _leave(self, code: int, close: bytes) -> None:
        """The client has said that it leaves, or is sent away for what it said: echo, or tell it why, and end."""
        self._note_gone(code)
        if not self._has_said_close:
            await self._write_last(close)
            if self._write_http1 is not None:  # HTTP/2 would wait for a window here, which this task has to read of
                await self.send(StreamClosed(stream_id=self.stream_id))

    def _note_gone(self, code: int) -> None:
        """The handler hears of it when it has received what came before."""
        if self._gone is None:
            self._gone = code
            self._mailbox.put_last({"type": "websocket.disconnect", "code": code})
            self._has_heard_close.set()

    def _end(self, code: int) -> None:
        """The connection is over, or not ours any more."""
        self.closed = True
        self._reader.end()  # half a message would stay as long as the collector leaves the rest of the connection
        self._note_gone(code)
        self._is_decided.set()
        self._close_is_written.set()
        termination = cast(Context, self.context).termination
        for listener in self._listeners:
            termination.listeners.discard(listener)
        self._listeners.clear()

    def _hear_stopping(self, listener: Callable[[], None]) -> None:
        termination = cast(Context, self.context).termination
        if termination.is_set():
            listener()
        elif not self.closed:
            termination.listeners.add(listener)
            self._listeners.append(listener)

    # Sending

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if message is None:
            await self._finish()
        elif message["type"] == "websocket.send":
            await self._send_frames(cast(dict[str, Any], message))
        elif message["type"] == "websocket.close" and self.state is not ASGIWebsocketState.HANDSHAKE:
            self._has_closed = True
            self._hears_out = bool(message.get("hears_out"))
            await self._close(message.get("code", 1000), message.get("reason") or "")
        elif not self.closed:
            await super().app_send(message)
            if self.state not in {ASGIWebsocketState.HANDSHAKE, ASGIWebsocketState.RESPONSE}:
                self._is_decided.set()

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        if not self.handshake.is_valid():
            await self._refuse(400)
            return
        self.state = ASGIWebsocketState.CONNECTED
        status, headers, _ = self.handshake.accept(message.get("subprotocol"), message.get("headers", []))
        await self.send(Response(stream_id=self.stream_id, status_code=status, headers=headers))
        await self.config.log.access(self.scope, {"status": status, "headers": []}, time() - self.start_time)

    async def _send_frames(self, message: dict[str, Any]) -> None:
        """After a close of ours it goes nowhere, without an error."""
        frames = message.get("frames")
        if self._gone is None and not self._has_said_close:
            if self.state is not ASGIWebsocketState.CONNECTED:
                raise UnexpectedMessageError(self.state, "websocket.send")
            await self._write(build_message(message) if frames is None else frames)
        if frames is not None and self._gone is not None and not self._has_closed:
            raise ClientGone(self._gone)

    async def _close(self, code: int, reason: str) -> None:
        """Nothing is received any more, unless the client is heard out."""
        if not self._hears_out:
            self._mailbox.close()
            self._mailbox.put_last({"type": "websocket.disconnect", "code": code})
        if self._gone is None and not self._has_said_close:
            await self._write_last(build_close(code, reason))

    async def _finish(self) -> None:
        """The handler has ended. Who has not closed has failed: the client comes again, which 1000 could keep it from.
        """
        if self.closed:
            return
        self._hears_out = False
        if self.state is ASGIWebsocketState.CONNECTED:
            await self._close(RESTARTING if self.context.terminated.is_set() else INTERNAL_ERROR, "")
            await self._close_is_written.wait()  # the reader may be about to echo the client's
            await self._wait_echo()
            await self.send(EndData(stream_id=self.stream_id))
        elif self.state is ASGIWebsocketState.HANDSHAKE:
            await self._send_error_response(500)
        self._is_decided.set()
        if not self.closed:
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _wait_echo(self) -> None:
        """Over TLS there is no half-closed connection: who still sends would lose our close frame."""
        stopping = self.context.terminated.is_set()
        seconds = self.limits.linger_stopping_seconds if stopping else self.limits.echo_seconds
        with trio.move_on_after(seconds):
            await self._has_heard_close.wait()

    async def _write(self, frames: bytes) -> None:
        self._writers += 1
        try:
            if frames:
                await self._write_bytes(frames)
            while self._unanswered is not None and not self._has_said_close and not self.closed:
                payload, self._unanswered = self._unanswered, None
                await self._write_bytes(build_pong(payload))
        finally:
            self._writers -= 1

    async def _write_last(self, close: bytes) -> None:
        """Behind what is being written."""
        self._has_said_close = True
        try:
            await self._write_bytes(close)
        finally:
            self._close_is_written.set()

    async def _write_bytes(self, frames: bytes) -> None:
        if self._write_http1 is not None:
            await self._write_http1(frames)
        else:
            await self.send(Data(stream_id=self.stream_id, data=frames))


def build_message(message: dict[str, Any]) -> bytes:
    """As ASGI has it: either key may be missing, or None."""
    data = message.get("bytes")
    return build_text(message["text"].encode()) if data is None else build_binary(bytes(data))
