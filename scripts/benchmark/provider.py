"""`python -m scripts.benchmark.provider`: the fake provider, a process of its own. Prints its port; ends with stdin.

Every call does what its prompt wishes. `GET /report` tells which calls have arrived and when each was abandoned, and
forgets them. `GET /flood` opens the gates: floods wait for it, so that all begin together.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable

from scripts.benchmark.answers import END, FLOOD, START, STREAM_HEAD, TEXT, WHOLE, WHOLE_STREAM, json_answer
from scripts.benchmark.reactor import READABLE, WRITABLE, Reactor
from scripts.benchmark.wishes import Wish, read_wish

BACKLOG = 2048
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STREAMED = re.compile(rb'"stream": ?true')


class Report:
    """Calls by number: those that arrived, and the nanosecond of CLOCK_MONOTONIC at which each was seen abandoned."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.closed: dict[int, int] = {}
        self.gates: list[Callable[[], None]] = []

    def answer(self, request: bytes) -> bytes:
        """What is no call asks for the report, or for the floods to begin."""
        if request.startswith(b"GET /report "):
            return self.take()
        gates, self.gates = self.gates, []
        for open_gate in gates:
            open_gate()
        return b"{}"

    def take(self) -> bytes:
        text = json.dumps({"arrived": self.arrived, "closed": self.closed})
        self.arrived, self.closed = [], {}
        return text.encode()


class Conversation:
    """One connection, call after call."""

    __slots__ = ("_flood_rest", "_is_open", "_next_at", "_reactor", "_report", "_request", "_socket", "_wish")

    def __init__(self, reactor: Reactor, report: Report, connected: socket.socket) -> None:
        self._reactor = reactor
        self._report = report
        self._socket = connected
        self._request = b""
        self._wish: Wish | None = None
        self._next_at = 0.0
        self._flood_rest = b""
        self._is_open = True
        reactor.watch(connected.fileno(), READABLE, self.on_ready)

    def on_ready(self, events: int) -> None:
        if events & ~WRITABLE:
            self._receive()
        if events & WRITABLE and self._is_open:
            self._flood()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._request += data
        body = _complete_body(self._request)
        if body is not None:
            request, self._request = self._request, b""
            self._answer(request, body)

    def _answer(self, request: bytes, body: bytes) -> None:
        wish = read_wish(body)
        if wish is None:
            self._send(json_answer(self._report.answer(request)))
            return
        self._report.arrived.append(wish.number)
        if wish.kind == "whole":
            self._send(WHOLE_STREAM if STREAMED.search(body) else WHOLE)
            return
        self._wish = wish
        self._send(STREAM_HEAD + START + TEXT)
        self._go_on(wish)

    def _go_on(self, wish: Wish) -> None:
        if wish.kind == "flood":
            self._report.gates.append(self._open_gate)
        elif wish.kind == "paced":
            self._next_at = time.monotonic()
            self._wait(wish, wish.events - 1)

    def _open_gate(self) -> None:
        if self._is_open:
            self._reactor.watch_for(self._socket.fileno(), READABLE | WRITABLE)

    def _wait(self, wish: Wish, left: int) -> None:
        self._next_at += wish.interval_microseconds / 1e6
        self._reactor.call_at(self._next_at, lambda: self._pace(wish, left))

    def _pace(self, wish: Wish, left: int) -> None:
        if self._wish is not wish:
            return
        if left > 0:
            self._send(TEXT)
            self._wait(wish, left - 1)
        else:
            self._wish = None
            self._send(END)

    def _flood(self) -> None:
        """One block a round, so that all streams get their turn; what was not taken of the last one goes first."""
        data = self._flood_rest or FLOOD
        try:
            self._flood_rest = data[self._socket.send(data) :]
        except BlockingIOError:
            self._flood_rest = data
        except OSError:
            self._close()

    def _send(self, data: bytes) -> None:
        """What does not fit is lost: it was too much for the measurement anyhow, and the caller counts what comes."""
        try:
            self._socket.send(data)
        except BlockingIOError:
            return
        except OSError:
            self._close()

    def _close(self) -> None:
        if not self._is_open:
            return
        if self._wish is not None:
            self._report.closed[self._wish.number] = time.monotonic_ns()
        self._wish, self._is_open = None, False
        self._reactor.forget(self._socket.fileno())
        self._socket.close()


def _complete_body(request: bytes) -> bytes | None:
    head, end, body = request.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return body if end and len(body) >= (int(length[1]) if length else 0) else None


def accept_all(reactor: Reactor, report: Report, listening: socket.socket) -> Callable[[int], None]:
    """What to do when somebody calls."""

    def accept(_events: int) -> None:
        try:
            connected, _ = listening.accept()
        except OSError:
            return
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Conversation(reactor, report, connected)

    return accept


def main() -> None:
    reactor, report = Reactor(), Report()
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        listening.setblocking(False)
        reactor.watch(listening.fileno(), READABLE, accept_all(reactor, report, listening))
        parent_is_gone: list[bool] = []
        reactor.watch(0, READABLE, lambda _: parent_is_gone.append(os.read(0, 1) == b""))
        print(listening.getsockname()[1], flush=True)
        reactor.run(lambda: any(parent_is_gone))


if __name__ == "__main__":
    main()
