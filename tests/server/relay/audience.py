"""Watchers without a connection, for tests: what they have been told; and what stands around them."""

import json
import math
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import trio
from werkzeug.datastructures import Headers

from server.auth.callers import Caller
from server.relay.event_frames import NewEvent
from server.relay.event_lines import WatchWish, read_texts
from server.relay.outbox import Outbox
from server.relay.watchers import Watcher
from server.websocket import Ping, Pong, SocketClosed
from storage.errors import RedisUnavailable

ANN = UUID("5b0e0000-0000-4000-8000-00000000000a")
BOB = UUID("5b0e0000-0000-4000-8000-00000000000b")


def build_caller(user_id: UUID = ANN) -> Caller:
    return Caller(user_id, "ann@example.com", "user", None, None, frozenset({"read"}), key_id=uuid4())


def build_watcher(user_id: UUID = ANN, *types: str, last_event_id: int | None = None) -> Watcher:
    """Which hears already."""
    watcher = Watcher(build_caller(user_id), WatchWish(frozenset(types), last_event_id))
    watcher.hears.set()
    return watcher


async def take_told(watcher: Watcher) -> list[Any]:
    """Whatever waits for it, as it would be written to it."""
    told: list[Any] = []
    while watcher.outbox.waiting_bytes:
        frames = await watcher.outbox.take()
        assert frames is not None
        watcher.outbox.note_written(len(frames))
        told.extend(json.loads(text) for text in read_texts(frames))
    return told


async def take_events(watcher: Watcher) -> list[tuple[str, Any]]:
    """Types and payloads."""
    return [(one["payload"]["eventType"], one["payload"]["payload"]) for one in await take_told(watcher)]


@dataclass(eq=False, slots=True)
class Socket:
    """A WebSocket as its handler sees it; the test is its client. Fits server.websocket.WebSocket."""

    query: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    frames: bytes = b""
    closed: tuple[int, str] | None = None
    is_stuck: bool = False
    pace_seconds: float = 0
    """How long it takes to read what it is sent at once."""
    stopping: list[Callable[[], None]] = field(default_factory=list)
    says: trio.MemorySendChannel[str | bytes | Ping | Pong] = field(init=False)
    _hears: trio.MemoryReceiveChannel[str | bytes | Ping | Pong] = field(init=False)

    def __post_init__(self) -> None:
        self.says, self._hears = trio.open_memory_channel[str | bytes | Ping | Pong](math.inf)

    async def receive(self) -> str | bytes | Ping | Pong:
        try:
            return await self._hears.receive()
        except trio.EndOfChannel:
            raise SocketClosed(1001) from None

    async def send(self, frames: bytes) -> None:
        if self.is_stuck:
            await trio.sleep_forever()
        await trio.sleep(self.pace_seconds)
        self.frames += frames

    async def close(self, code: int, reason: str = "") -> None:
        self.closed = self.closed or (code, reason)

    @property
    def close_code(self) -> int | None:
        return None if self.closed is None else self.closed[0]

    def hear_stopping(self, listener: Callable[[], None]) -> None:
        self.stopping.append(listener)

    def read(self) -> list[Any]:
        """What has come since."""
        texts = [json.loads(text) for text in read_texts(self.frames)]
        self.frames = b""
        return texts


@dataclass(slots=True)
class Told:
    """Where events would be followed: what is to be replayed, and who follows. Fits server.relay.events.Events."""

    kept: list[bytes] = field(default_factory=list)
    following: list[Outbox] = field(default_factory=list)
    published: list[NewEvent] = field(default_factory=list)
    error: Exception | None = None
    gate: trio.Event | None = None
    kept_channels: list[UUID] = field(default_factory=list)

    @asynccontextmanager
    async def keep(self, user_id: UUID) -> AsyncIterator[None]:
        self.kept_channels.append(user_id)
        yield

    async def publish(self, _user_id: UUID, event: NewEvent) -> int:
        self.published.append(event)
        return len(self.published)

    @asynccontextmanager
    async def watch(
        self, _user_id: UUID, outbox: Outbox, last_event_id: int | None, wants: Callable[[str], bool]
    ) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        for text in self.kept if last_event_id is not None else ():
            await outbox.wait_room()
            outbox.put_text(text)
        self.following.append(outbox)
        try:
            yield
        finally:
            self.following.remove(outbox)


class Watched:
    """Where Redis would be told who is watched."""

    def __init__(self) -> None:
        self.users: set[UUID] = set()
        self.is_away = False

    async def renew(self, users: Collection[UUID]) -> None:
        if self.is_away:
            raise RedisUnavailable("away")
        self.users |= set(users)

    async def find(self, users: Collection[UUID]) -> set[UUID]:
        if self.is_away:
            raise RedisUnavailable("away")
        return self.users & set(users)
