"""The load generator: calls on bare sockets, whose events are counted and never parsed."""

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scripts.benchmark.answers import FIRST_TOKEN
from scripts.benchmark.reactor import READABLE, Reactor
from scripts.benchmark.wishes import Wish

READ_BYTES = 256 * 1024
LAST_CHUNK = b"\r\n0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
QUESTION = "Tell me in a few sentences how the tides come about, and why there are two of them a day."


class BenchFailed(Exception):
    """A measurement would be worthless; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send calls: the served application with all its callers, or the provider itself."""

    name: str
    port: int
    model: str
    callers: tuple[Mapping[str, str], ...] = field(repr=False)

    def build_request(self, wish: Wish, *, stream: bool = True) -> bytes:
        """In OpenAI's dialect; the callers take turns."""
        message = {"role": "user", "content": f"{QUESTION} {wish.as_text()}"}
        wanted = {"model": self.model, "stream": stream, "max_tokens": 1000, "messages": [message]}
        body = json.dumps(wanted).encode()
        headers = self.callers[wish.number % len(self.callers)]
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: bench", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


class Call:
    """One connection and the call on it. Moments are of time.monotonic(), 0.0 for what has not happened."""

    __slots__ = (
        "_on_end", "_reactor", "_socket", "_tail", "_whole_bytes", "events", "first_at", "is_open", "received_bytes",
        "started_at",
    )  # fmt: skip

    def __init__(self, reactor: Reactor, target: Target, request: bytes, on_end: Callable[["Call"], None]) -> None:
        """Connects and asks. `on_end` is called when the answer is complete, the connection being open still."""
        self._reactor = reactor
        self._on_end = on_end
        self.events = 0
        self.is_open = True
        self.started_at = time.monotonic()
        self._socket = socket.create_connection(("127.0.0.1", target.port))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reactor.watch(self._socket.fileno(), READABLE, self._receive)
        self._ask(request)

    def ask_again(self, request: bytes) -> None:
        """Another call on the same connection, after the end of the former one."""
        self.started_at = time.monotonic()
        self._ask(request)

    def close(self, *, reset: bool = False) -> None:
        """Leave, by FIN or by RST. Safe to repeat."""
        if not self.is_open:
            return
        self.is_open = False
        self._reactor.forget(self._socket.fileno())
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._socket.close()

    def _ask(self, request: bytes) -> None:
        self.first_at = 0.0
        self.received_bytes = 0
        self._whole_bytes = 0
        self._tail = b""
        self._socket.send(request)

    def _receive(self, _events: int) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise BenchFailed(f"an answer broke off after {self.received_bytes} bytes: {self._tail!r}")
        if not self.received_bytes:
            self._read_head(data)
        self.received_bytes += len(data)
        self.events += (self._tail[-1:] + data).count(b"\n\n")
        if not self.first_at and FIRST_TOKEN in self._tail + data:
            self.first_at = time.monotonic()
        self._tail = (self._tail + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        if self.received_bytes == self._whole_bytes or (not self._whole_bytes and self._tail == LAST_CHUNK):
            self._on_end(self)

    def _read_head(self, data: bytes) -> None:
        """Heads are small and come as one piece."""
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end or not head.startswith(b"HTTP/1.1 200"):
            raise BenchFailed(f"a call was refused: {data[:600]!r}")
        length = LENGTH.search(head)
        self._whole_bytes = len(head) + len(end) + int(length[1]) if length else 0


def close_all(calls: list[Call]) -> None:
    for call in calls:
        call.close()
