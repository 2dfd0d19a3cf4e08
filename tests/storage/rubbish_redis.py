"""A server that greets as Redis does, and answers whatever it is told to, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

CUT = b"<cut>"
GREETING = b"%3\r\n$5\r\nproto\r\n:3\r\n$7\r\nversion\r\n$3\r\n6.0\r\n$2\r\nid\r\n:1\r\n"


@dataclass(slots=True)
class RubbishRedis:
    """`answers` are given one after the other, to one command each; then, and to what greets, what is right. After one
    that ends with `CUT` the connection is closed.
    """

    port: int = 0
    answers: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                async for asked in stream:
                    answer = self._find_answer(bytes(asked))
                    await stream.send_all(answer.removesuffix(CUT))
                    if answer.endswith(CUT):
                        return
            except trio.BrokenResourceError:
                return

    def _find_answer(self, asked: bytes) -> bytes:
        if b"HELLO" in asked:
            return GREETING
        return self.answers.pop(0) if self.answers else b"+PONG\r\n"


@asynccontextmanager
async def open_rubbish_redis() -> AsyncIterator[RubbishRedis]:
    server = RubbishRedis()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()
