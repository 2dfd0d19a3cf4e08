"""A client on a bare socket, which can leave at any moment and in any manner."""

import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.end_to_end.cloche import Cloche, Customer

SHIPPED = "/api/llm/chat/completions"
OPENAI = "/v1/chat/completions"
MODEL = "openai/gpt-4.1-mini"


def build_chat(text: str = "Hello", **members: Any) -> dict[str, Any]:
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    return {"model": MODEL, "stream": True, "max_tokens": 1000, "messages": [message], **members}


def build_request(path: str, headers: Mapping[str, str], body: bytes, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: cloche", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Caller:
    """One connection. `text` is everything received, with its framing."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.text = b""

    async def send(self, path: str, customer: Customer, body: Mapping[str, Any]) -> None:
        await self.stream.send_all(build_request(path, customer.headers, json.dumps(body).encode()))

    async def read_until(self, mark: bytes, times: int = 1) -> None:
        """Raises AssertionError at the end of the connection, or after ten seconds."""
        with trio.move_on_after(10):
            while self.text.count(mark) < times and (data := await self.stream.receive_some(65536)):
                self.text += data
        assert self.text.count(mark) >= times, f"{mark!r} did not come {times} times: {self.text[-2000:]!r}"

    async def read_all(self) -> bytes:
        with trio.fail_after(20):
            while data := await self.stream.receive_some(65536):
                self.text += data
        return self.text

    def leave(self) -> None:
        """FIN."""
        self.stream.socket.close()

    def reset(self) -> None:
        """RST."""
        self.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


@asynccontextmanager
async def open_caller(cloche: Cloche) -> AsyncIterator[Caller]:
    stream = await trio.open_tcp_stream("127.0.0.1", cloche.port)
    async with stream:
        yield Caller(stream)


def read_events(text: bytes) -> list[tuple[str, Any]]:
    """The events of a streamed answer, its chunk framing undone: name and data, parsed where it is JSON."""
    head, _, body = text.partition(b"\r\n\r\n")
    assert b"chunked" in head, head
    return parse_events(join_chunks(body))


def join_chunks(body: bytes) -> bytes:
    joined = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        joined += rest[:length]
        body = rest[length + 2 :]
        if length == 0:
            break
    return joined


def parse_events(body: bytes) -> list[tuple[str, Any]]:
    events = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            data = fields["data"]
            events.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events


def join_text(events: list[tuple[str, Any]]) -> str:
    chunks = [data for name, data in events if name == "" and data != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
