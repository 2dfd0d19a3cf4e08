"""Clients that watch `/ws/events`, as a stream and as a WebSocket."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from scripts.device_link.link import Link, LinkEnded, open_link
from tests.end_to_end.caller import parse_events
from tests.end_to_end.cloche import Cloche, Customer

PATH = "/ws/events"
WAIT_SECONDS = 10
END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Heard:
    """One event: its type, its payload, its id if it has one. `frame` is all of it; `source` who says so."""

    type: str
    payload: Any
    id: int | None
    frame: Mapping[str, Any]


class Watch(Protocol):
    heard: list[Heard]

    async def read_until_ended(self) -> int | None:
        """The close code, where there is such a thing."""

    async def wait_for(self, event_type: str, times: int = 1) -> list[Heard]: ...


@dataclass(slots=True)
class StreamWatch:
    """Server-sent events, read off a bare socket; `parts` are what names and data there were."""

    stream: trio.SocketStream
    head: bytes = b""
    heartbeats: list[Any] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    _rest: bytes = b""

    async def start(self) -> None:
        with trio.fail_after(WAIT_SECONDS):
            while b"\r\n\r\n" not in self._rest:
                self._rest += await self._receive()
        self.head, _, self._rest = self._rest.partition(b"\r\n\r\n")

    async def wait_for(self, event_type: str, times: int = 1) -> list[Heard]:
        while len(found := pick(self.heard, event_type)) < times:
            with trio.fail_after(WAIT_SECONDS):
                await self._read()
        return found

    async def wait_heartbeat(self) -> Any:
        with trio.fail_after(WAIT_SECONDS):
            while not self.heartbeats:
                await self._read()
        return self.heartbeats[-1]

    async def read_until_ended(self) -> int | None:
        with trio.fail_after(WAIT_SECONDS):
            while not self._rest.startswith(END):
                await self._read()
        return None

    async def _receive(self) -> bytes:
        data = bytes(await self.stream.receive_some(65536))
        assert data, f"the stream broke off: {self._rest[-500:]!r}"
        return data

    async def _read(self) -> None:
        """One chunk has whole events."""
        while (chunk := self._take_chunk()) is None:
            if self._rest.startswith(END):
                return
            self._rest += await self._receive()
        for name, data in parse_events(chunk):
            if data["type"] == "heartbeat":
                self.heartbeats.append(data)
            else:
                heard = read_frame(data)
                assert name == heard.type
                assert (b"id: %d\n" % (heard.id or 0) in chunk) is (heard.id is not None)
                self.heard.append(heard)

    def _take_chunk(self) -> bytes | None:
        size, end, rest = self._rest.partition(b"\r\n")
        length = int(size, 16) if end and size != b"0" else None
        if length is None or len(rest) < length + 2:
            return None
        self._rest = rest[length + 2 :]
        return rest[:length]


@dataclass(slots=True)
class SocketWatch:
    link: Link
    heard: list[Heard] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    async def wait_for(self, event_type: str, times: int = 1) -> list[Heard]:
        with trio.fail_after(WAIT_SECONDS):
            while len(found := pick(self.heard, event_type)) < times:
                await self._read()
        return found

    async def ask(self, text: str) -> Any:
        await self.link.send_text(text)
        with trio.fail_after(WAIT_SECONDS):
            while not self.others:
                await self._read()
        return self.others.pop()

    async def read_until_ended(self) -> int | None:
        with trio.fail_after(WAIT_SECONDS):
            try:
                while True:
                    await self._read()
            except LinkEnded as ended:
                return ended.code

    async def _read(self) -> None:
        frame = await self.link.receive()
        assert isinstance(frame, dict)
        if frame["type"] == "event":
            self.heard.append(read_frame(frame))
        else:
            self.others.append(frame)


def read_frame(frame: Mapping[str, Any]) -> Heard:
    return Heard(frame["payload"]["eventType"], frame["payload"]["payload"], frame.get("eventId"), frame)


def pick(heard: list[Heard], event_type: str) -> list[Heard]:
    return [one for one in heard if one.type == event_type]


@asynccontextmanager
async def open_stream(
    cloche: Cloche, customer: Customer, query: str = "", headers: Mapping[str, str] | None = None
) -> AsyncIterator[StreamWatch]:
    """Its head has come, and its first heartbeat."""
    lines = [f"GET {PATH}{query} HTTP/1.1", "Host: cloche"]
    lines += [f"{name}: {value}" for name, value in {**customer.headers, **(headers or {})}.items()]
    async with await trio.open_tcp_stream("127.0.0.1", cloche.port) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        watch = StreamWatch(stream)
        await watch.start()
        if watch.head.startswith(b"HTTP/1.1 200"):
            await watch.wait_heartbeat()
        yield watch


@asynccontextmanager
async def open_socket(
    cloche: Cloche, customer: Customer, query: str = "", headers: Mapping[str, str] | None = None
) -> AsyncIterator[SocketWatch]:
    async with open_link(cloche.url, {**customer.headers, **(headers or {})}, PATH + query) as link:
        yield SocketWatch(link)


@asynccontextmanager
async def open_both(
    cloche: Cloche, customer: Customer, query: str = "", headers: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[StreamWatch, SocketWatch]]:
    """One of each."""
    async with (
        open_stream(cloche, customer, query, headers) as stream,
        open_socket(cloche, customer, query, headers) as socket,
    ):
        yield stream, socket
