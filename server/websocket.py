"""One WebSocket as its handler sees it, over ASGI with what server/hypercorn_fixes/websocket.py adds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from werkzeug.datastructures import Headers

from server.hypercorn_fixes.websocket import EXTENSION, ClientGone


@dataclass(frozen=True, slots=True)
class Ping:
    """The client asks; it has been answered already."""


@dataclass(frozen=True, slots=True)
class Pong:
    payload: bytes


class SocketClosed(Exception):
    """The client has closed, or is gone. `code` is its close code, 1005 if it gave none, 1006 without a close; 1002,
    1007 or 1009 if it was sent away for what it sent.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the client has closed: {code}")
        self.code = code


_PING = Ping()


class WebSocket:
    """One task receives at a time; any may send. `headers` are the client's; of a name that its query has several
    times, `query` has the last.
    """

    path: str
    headers: Headers
    query: Mapping[str, str]

    def __init__(self, scope: WebsocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.path = scope["path"]
        self.headers = Headers((name.decode("latin1"), value.decode("latin1")) for name, value in scope["headers"])
        self.query = dict(parse_qsl(scope["query_string"].decode("latin1"), keep_blank_values=True))
        self._hear_stopping: Callable[[Callable[[], None]], None] = scope["extensions"][EXTENSION]["hear_stopping"]
        self._is_accepted = False
        self._receive = receive
        self._send = cast(Callable[[Mapping[str, Any]], Any], send)

    async def accept(self, headers: Iterable[tuple[str, str]] = ()) -> None:
        """The handshake's answer, 101, with these headers besides its own: before anything below. Safe to repeat."""
        if self._is_accepted:
            return
        self._is_accepted = True
        await self._send({"type": "websocket.accept", "subprotocol": None, "headers": _encode(headers)})

    async def deny(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Any other answer, instead of `accept`."""
        length = ("Content-Length", str(len(body)))
        start = {"type": "websocket.http.response.start", "status": status, "headers": _encode([*headers, length])}
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def receive(self) -> "str | bytes | Ping | Pong":
        """Whole messages: text, or bytes. Raises SocketClosed."""
        while True:
            event = cast(Mapping[str, Any], await self._receive())
            kind = event["type"]
            if kind == "websocket.receive":
                text: str | None = event["text"]
                return cast(bytes, event["bytes"]) if text is None else text
            if kind == "websocket.ping":
                return _PING
            if kind == "websocket.pong":
                return Pong(event["bytes"])
            if kind == "websocket.disconnect":
                raise SocketClosed(event["code"])

    async def send(self, frames: bytes) -> None:
        """Whole frames, of server.websocket_frames. Raises SocketClosed, also if the client has taken nothing for the
        server's write deadline. Nothing happens after `close`. Whoever is cancelled in the middle of a frame ends the
        connection, for half a frame can be followed by nothing. No checkpoint as long as the kernel takes it, but now
        and then.
        """
        try:
            await self._send({"type": "websocket.send", "frames": frames})
        except ClientGone as gone:
            raise SocketClosed(gone.code) from gone

    async def close(self, code: int, reason: str = "", *, hears_out: bool = False) -> None:
        """Says so, after what is being sent; nothing is received any more, or with `hears_out` what the client says
        until it has answered: what was under way when it heard of the end. The client is given a moment to answer when
        the handler has ended. Safe to repeat, and after the client has closed. Never raises; waits no longer than the
        write deadline.
        """
        await self._send({"type": "websocket.close", "code": code, "reason": reason, "hears_out": hears_out})

    def hear_stopping(self, listener: Callable[[], None]) -> None:
        """Called when the server begins to stop, or at once if it already does."""
        self._hear_stopping(listener)


def _encode(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin1")) for name, value in headers]
