"""A server for devices, of trio-websocket's own: a test says what it says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

CREDENTIALS = {"sessionId": "s" * 32, "resumeToken": "t" * 48, "expiresAt": "2026-02-04T04:05:06.000000Z"}
Serve = Callable[["Side"], Awaitable[None]]


class Side:
    """The server's side of one connection. `heard` is what it was told over all connections."""

    def __init__(self, connection: WebSocketConnection, heard: list[Any]) -> None:
        self.connection = connection
        self.heard = heard

    async def hear(self) -> Any:
        message = await self.connection.get_message()
        self.heard.append(message if isinstance(message, bytes) else msgspec.json.decode(message))
        return self.heard[-1]

    async def hear_next(self, kind: str) -> Any:
        while not isinstance(message := await self.hear(), dict) or message["type"] != kind:
            pass
        return message

    async def hear_bytes(self) -> bytes:
        while not isinstance(message := await self.hear(), bytes):
            pass
        return message

    async def say(self, kind: str, **members: object) -> None:
        await self.connection.send_message(msgspec.json.encode({"type": kind, **members}).decode())

    async def event(self, event_id: int, event_type: str = "session-updated") -> None:
        await self.say("event", payload={"eventType": event_type, "payload": {}}, eventId=event_id)

    async def hear_away(self) -> None:
        while True:
            await self.hear()


@asynccontextmanager
async def open_stand_in(serve: Serve) -> AsyncIterator[tuple[str, list[Any]]]:
    """Its URL, and what it hears."""
    heard: list[Any] = []

    async def answer(request: WebSocketRequest) -> None:
        if request.headers and (b"authorization", b"Bearer wrong") in request.headers:
            await request.reject(401, body=b"{}")
            return
        side = Side(await request.accept(), heard)
        try:
            await serve(side)
        except ConnectionClosed:
            return

    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda task_status: serve_websocket(
            answer, "127.0.0.1", 0, ssl_context=None, task_status=task_status, max_message_size=1 << 26,
        ))
        yield f"http://127.0.0.1:{server.port}", heard
        nursery.cancel_scope.cancel()
