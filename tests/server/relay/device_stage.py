"""Relays of several processes in one, on real stores, and sockets without a network: the test is the client."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from uuid import UUID, uuid4

import trio
from werkzeug.datastructures import Headers

from server.auth.callers import Caller
from server.auth.tokens import AppToken
from server.presence import Presence
from server.relay.relay import Relay, open_relay
from server.relay.sign_in_check import SignInCheck
from server.websocket import Ping, Pong, SocketClosed, WebSocket
from storage.accounts import Accounts
from storage.api_keys import ApiKeys
from storage.device_events import DeviceEvents
from storage.devices import Devices
from storage.postgres import Database, open_database
from storage.presence import PresenceTable
from storage.presence_history import PresenceHistory
from storage.redis import Redis, open_redis
from storage.sessions import Sessions

TEXT, BINARY, PING = 1, 2, 9
WAIT_SECONDS = 10


@dataclass(eq=False)
class Socket:
    """A device's, as its handler sees it; `heard` is all that was written to it. Fits server.websocket.WebSocket."""

    headers: Headers
    heard: list[Any] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    closed: int | None = None
    stop: Callable[[], None] = lambda: None
    is_stuck: bool = False
    """It takes nothing."""
    is_gone: bool = False
    """It has closed, and what it said before is still to be heard."""
    over: trio.Event = field(default_factory=trio.Event)
    """Its handler has ended."""

    def __post_init__(self) -> None:
        self._say, self._hear = trio.open_memory_channel[str | bytes | Ping | Pong](math.inf)
        self._news = trio.Event()

    async def accept(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> str | bytes | Ping | Pong:
        try:
            return await self._hear.receive()
        except trio.EndOfChannel:
            raise SocketClosed(1006) from None

    async def send(self, frames: bytes) -> None:
        while self.is_stuck:
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        if self.is_gone:
            raise SocketClosed(1006)
        for opcode, payload in read_frames(frames):
            match opcode:
                case 1:
                    self.heard.append(json.loads(payload))
                case 2:
                    self.heard.append(payload)
                case _:
                    self.pings.append(payload)
        self._tell()

    async def close(self, code: int, reason: str = "", *, hears_out: bool = False) -> None:
        assert len(reason.encode()) <= 123
        assert hears_out == (code in {1012, 4001})
        self.closed = self.closed or code
        self._tell()

    def hear_stopping(self, listener: Callable[[], None]) -> None:
        self.stop = listener

    def say(self, kind: str, payload: object = None) -> None:
        self.say_raw(json.dumps({"type": kind} if payload is None else {"type": kind, "payload": payload}))

    def say_raw(self, message: str | bytes | Pong) -> None:
        self._say.send_nowait(message)

    def leave(self) -> None:
        self._say.close()

    def read_on(self) -> None:
        self.is_stuck = False
        self._tell()

    async def wait(self, is_meant: Callable[[Any], object], after: int = 0) -> Any:
        """The first message that is meant, of those after so many."""
        with trio.fail_after(WAIT_SECONDS):
            while True:
                for message in self.heard[after:]:
                    if is_meant(message):
                        return message
                await self._news.wait()

    async def wait_type(self, *types: str, after: int = 0) -> Any:
        return await self.wait(lambda message: isinstance(message, dict) and message["type"] in types, after)

    async def wait_event(self, event_type: str, after: int = 0) -> Any:
        return await self.wait(partial(is_event, event_type), after)

    async def wait_closed(self) -> int:
        with trio.fail_after(WAIT_SECONDS):
            while self.closed is None:
                await self._news.wait()
        return self.closed

    async def ask(self, kind: str, payload: object = None) -> Any:
        """The next message that comes and is no event."""
        after = len(self.heard)
        self.say(kind, payload)
        return await self.wait(lambda message: isinstance(message, dict) and message["type"] != "event", after)

    async def settle(self) -> None:
        """What was said has been carried out."""
        after = len(self.heard)
        self.say("ping")
        await self.wait_type("pong", after=after)

    def list_events(self, event_type: str = "") -> list[Any]:
        return [one for one in self.heard if is_event(event_type, one)]

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def is_event(event_type: str, message: Any) -> bool:
    """Of that type, or of any."""
    is_any = isinstance(message, dict) and message["type"] == "event"
    return is_any and event_type in {"", message["payload"]["eventType"]}


def read_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """As a server writes them: whole, and not masked."""
    at = 0
    while at < len(data):
        opcode, length, at = data[at] & 15, data[at + 1], at + 2
        width = {126: 2, 127: 8}.get(length, 0)
        length = int.from_bytes(data[at : at + width], "big") if width else length
        yield opcode, data[at + width : at + width + length]
        at += width + length


@dataclass(frozen=True)
class Stage:
    """`relays` are of a process each; `user_id` is whose all devices are."""

    database: Database
    redis: Redis
    relays: Sequence[Relay]
    nursery: trio.Nursery
    user_id: UUID
    sessions: Sessions
    api_keys: ApiKeys
    devices: Devices

    def connect(
        self, client_type: str = "mobile", *, at: int = 0, caller: Caller | None = None, header_id: UUID | None = None
    ) -> Socket:
        """A socket that has not registered."""
        headers = Headers([("X-Client-Type", client_type)] if client_type else [])
        if header_id is not None:
            headers.add("X-Device-ID", str(header_id))
        socket = Socket(headers)
        self.nursery.start_soon(self._serve, self.relays[at], socket, caller or self.build_caller())
        return socket

    async def register(
        self, client_type: str = "mobile", *, at: int = 0, device_id: UUID | None = None, **members: object
    ) -> Socket:
        socket = self.connect(client_type, at=at)
        answer = await register(socket, device_id or uuid4(), **members)
        assert answer["type"] in {"registered", "resumed"}, answer
        return socket

    def build_caller(self, user_id: UUID | None = None) -> Caller:
        """Signed in by a token of its own."""
        owner = user_id or self.user_id
        token = AppToken(owner, uuid4(), math.inf, None, None, frozenset({"read"}), uuid4(), auth_time=2**40 / 1000)
        return Caller(owner, "ann@example.com", "user", None, None, token.scopes, token)

    async def _serve(self, relay: Relay, socket: Socket, caller: Caller) -> None:
        try:
            await relay.serve(cast(WebSocket, socket), caller)
        finally:
            socket.over.set()


async def register(socket: Socket, device_id: UUID, **members: object) -> Any:
    """The answer."""
    after = len(socket.heard)
    socket.say("register", {"deviceId": str(device_id), "deviceName": "Pocket", **members})
    return await socket.wait_type("registered", "resumed", "error", after=after)


@asynccontextmanager
async def open_stage(database_url: str, redis_url: str, count: int = 1) -> AsyncIterator[Stage]:
    async with (
        open_database(database_url, size=4) as database,
        open_redis(redis_url) as redis,
        AsyncExitStack() as stack,
    ):
        user = await Accounts(database).make_user(f"{uuid4()}@example.com")
        sessions, api_keys, devices = Sessions(redis, Accounts(database)), ApiKeys(redis, database), Devices(database)
        check = SignInCheck(sessions, api_keys)
        build = partial(Presence, PresenceTable(redis), DeviceEvents(redis), PresenceHistory(database), notify)
        relays = [
            await stack.enter_async_context(open_relay(redis_url, redis, build, devices, check)) for _ in range(count)
        ]
        async with trio.open_nursery() as nursery:
            for relay in relays:
                for loop in relay.loops:
                    nursery.start_soon(loop)
            yield Stage(database, redis, relays, nursery, user.id, sessions, api_keys, devices)
            nursery.cancel_scope.cancel()


async def notify(*_: object) -> None:
    await trio.lowlevel.checkpoint()
