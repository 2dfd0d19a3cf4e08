"""One WebSocket as its handler sees it, on a connection of the test's own making."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from server.hypercorn_fixes.websocket import EXTENSION, ClientGone
from server.websocket import Ping, Pong, SocketClosed, WebSocket

Event = Mapping[str, Any]


class Line:
    """What the web server is to a handler."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.sent: list[Event] = []
        self.listeners: list[Callable[[], None]] = []
        self.gone: int | None = None

    async def receive(self) -> Any:
        return self.events.pop(0)

    async def send(self, event: Any) -> None:
        if self.gone is not None:
            raise ClientGone(self.gone)
        self.sent.append(event)

    def open(self, query: bytes = b"") -> WebSocket:
        scope = {
            "type": "websocket",
            "path": "/ws/somewhere",
            "query_string": query,
            "headers": [(b"x-device-id", b"D1")],
            "extensions": {EXTENSION: {"hear_stopping": self.listeners.append}},
        }
        return WebSocket(cast(Any, scope), self.receive, self.send)


def test_it_knows_what_its_client_asked_for() -> None:
    websocket = Line().open(b"types=a%2Cb&lastEventId=7&types=c&empty=")
    assert websocket.path == "/ws/somewhere"
    assert websocket.headers.get("X-Device-ID") == "D1"
    assert websocket.query == {"types": "c", "lastEventId": "7", "empty": ""}


async def test_it_is_accepted_once_with_the_headers_that_are_given() -> None:
    line = Line()
    websocket = line.open()
    await websocket.accept([("X-Request-ID", "mine")])
    await websocket.accept()
    assert line.sent == [{"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-request-id", b"mine")]}]


async def test_it_is_denied_by_an_answer_with_its_length() -> None:
    line = Line()
    await line.open().deny(401, [("Content-Type", "text/plain")], b"no")
    start, body = line.sent
    assert (start["status"], start["headers"]) == (401, [(b"content-type", b"text/plain"), (b"content-length", b"2")])
    assert (body["body"], body["more_body"]) == (b"no", False)


async def test_messages_and_signs_of_life_are_received_in_order() -> None:
    line = Line(
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "", "bytes": None},
        {"type": "websocket.receive", "text": None, "bytes": b""},
        {"type": "websocket.ping"},
        {"type": "websocket.pong", "bytes": b"token"},
        {"type": "websocket.disconnect", "code": 1001},
    )
    websocket = line.open()
    assert [await websocket.receive() for _ in range(4)] == ["", b"", Ping(), Pong(b"token")]
    with pytest.raises(SocketClosed) as caught:
        await websocket.receive()
    assert caught.value.code == 1001


async def test_frames_go_out_as_they_are() -> None:
    line = Line()
    await line.open().send(b"\x81\x00")
    assert line.sent == [{"type": "websocket.send", "frames": b"\x81\x00"}]


async def test_who_sends_to_a_client_that_is_gone_hears_of_it() -> None:
    line = Line()
    line.gone = 1006
    with pytest.raises(SocketClosed) as caught:
        await line.open().send(b"\x81\x00")
    assert caught.value.code == 1006


async def test_a_close_says_why() -> None:
    line = Line()
    await line.open().close(4001, "replaced")
    assert line.sent == [{"type": "websocket.close", "code": 4001, "reason": "replaced", "hears_out": False}]


def test_a_stop_is_listened_to() -> None:
    line = Line()
    line.open().hear_stopping(line.events.clear)
    assert line.listeners == [line.events.clear]
