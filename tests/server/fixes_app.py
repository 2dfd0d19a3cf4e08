"""What tests/server/test_hypercorn_fixes.py serves: endings that can be asked for, and asked about.

The environment says how: FIXES=0 leaves the server as upstream made it, WRITE_DEADLINE is in seconds, and LIFESPAN
is how the lifespan goes wrong. A path is /<what>/<name>; GET /ending/<name> waits until that request has ended.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from quart import Response, request
from quart_trio import QuartTrio

from server.hypercorn_fixes import install
from tests.server.fixes_sockets import serve_socket

if os.environ.get("FIXES", "1") == "1":
    install(write_deadline_seconds=float(os.environ.get("WRITE_DEADLINE", "2")), head_deadline_seconds=0.5)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

quart = QuartTrio(__name__)
quart.config["MAX_CONTENT_LENGTH"] = 10_000_000


class Endings:
    """How each named request began and ended, for whoever asks."""

    def __init__(self) -> None:
        self._begun: dict[str, trio.Event] = {}
        self._ended: dict[str, trio.Event] = {}
        self._words: dict[str, str] = {}

    def begin(self, name: str) -> None:
        self._begun.setdefault(name, trio.Event()).set()

    def end(self, name: str, word: str) -> None:
        self._words[name] = word
        self._ended.setdefault(name, trio.Event()).set()

    async def wait_begun(self, name: str) -> str:
        await self._begun.setdefault(name, trio.Event()).wait()
        return "begun"

    async def wait_ended(self, name: str) -> str:
        await self._ended.setdefault(name, trio.Event()).wait()
        return self._words[name]


endings = Endings()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Lifespan, plain ASGI under /asgi, and Quart for the rest."""
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send, os.environ.get("LIFESPAN", ""))
    elif scope["type"] == "websocket":
        await serve_socket(scope, receive, send, endings.end)
    elif scope["path"].startswith("/asgi/"):
        await PLAIN[scope["path"].removeprefix("/asgi/")](receive, send)
    else:
        await quart(scope, receive, send)  # type: ignore[arg-type] # Quart names every kind of scope


async def run_lifespan(receive: Receive, send: Send, fault: str) -> None:
    await receive()
    if fault == "failed":
        await send({"type": "lifespan.startup.failed", "message": "The database is missing.\nStart it."})
    if fault == "raises":
        raise RuntimeError("a fault of the program")
    await send({"type": "lifespan.startup.complete"})
    if fault == "dies":
        await endings.wait_begun("dying")
        raise RuntimeError("a loop has died")
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@contextmanager
def noting(name: str) -> Iterator[None]:
    """Note whether the block came to its end."""
    endings.begin(name)
    word = "left"
    try:
        yield
        word = "finished"
    finally:
        endings.end(name, word)


@quart.route("/hello/<name>")
def hello(name: str) -> str:
    return f"hello {name}"


@quart.get("/sleep/<name>")
async def sleep(name: str) -> str:
    with noting(name):
        await trio.Event().wait()
    return ""


@quart.get("/stream/<name>/<int:count>/<int:pause_ms>/<int:size_bytes>")
def stream(name: str, count: int, pause_ms: int, size_bytes: int) -> Response:
    response = Response(generate(name, count, pause_ms / 1000, b"x" * size_bytes), content_type="text/event-stream")
    response.timeout = None
    return response


async def generate(name: str, count: int, pause_seconds: float, piece: bytes) -> AsyncIterator[bytes]:
    endings.begin(name)
    word = "left"
    try:
        for _ in range(count):
            yield piece
            if pause_seconds:
                await trio.sleep(pause_seconds)
        word = "finished"
    finally:
        endings.end(name, word)


@quart.post("/read/<name>")
async def read(name: str) -> str:
    with noting(name):
        return str(len(await request.get_data(as_text=False)))


@quart.get("/begun/<name>")
async def begun(name: str) -> str:
    return await endings.wait_begun(name)


@quart.get("/ending/<name>")
async def ending(name: str) -> str:
    return await endings.wait_ended(name)


async def refuse_plainly(receive: Receive, send: Send) -> None:
    """Answers without ever reading the body."""
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"too large"})


async def receive_twice(receive: Receive, send: Send) -> None:
    """What the application receives around a client that leaves."""
    with noting("receive_twice"):
        await receive()
        first, second = (await receive())["type"], (await receive())["type"]
    endings.end("received", f"{first} {second}")


async def break_off(receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half of it", "more_body": True})
    raise RuntimeError("a fault of the program")


async def numbers(receive: Receive, send: Send) -> None:
    """Seven megabytes, no two numbers alike."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for start in range(0, 1024 * 1024, 4096):
        piece = b"".join(b"%07d" % number for number in range(start, start + 4096))
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def declared(receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20")]})
    await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
    await send({"type": "http.response.body", "body": b"x" * 10, "more_body": False})


async def empty(receive: Receive, send: Send) -> None:
    """A body where there can be none."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": False})


PLAIN: dict[str, Callable[[Receive, Send], Awaitable[None]]] = {
    "break_off": break_off,
    "declared": declared,
    "empty": empty,
    "numbers": numbers,
    "refuse": refuse_plainly,
    "receive_twice": receive_twice,
}
