"""The app served over a real socket in the test's own process, so that tests can add routes and look inside."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config as HypercornConfig
from quart_trio import QuartTrio

from proxy.provider import load_providers
from server.asgi import Answers, list_sockets, open_services
from server.auth.tokens import issue_token
from server.config import read_config
from server.services import Services
from server.sockets import SocketHandler
from storage.accounts import Accounts, User
from tests.end_to_end.cloche import NO_LIMITS, SECRET, SIGN_IN


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Served:
    app: QuartTrio
    services: Services
    port: int

    async def make_user(self, email: str = "ann@example.com", role: str = "user") -> User:
        return await Accounts(self.services.database).make_user(email, role)

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """On a connection of its own."""
        head = build_head(method, path, {"Content-Length": str(len(body)), **(headers or {})})
        return await self.send(head + body)

    async def send(self, data: bytes) -> Answer:
        """Until the server ends the connection."""
        with trio.fail_after(10):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(data)
                return read_answer(b"".join([piece async for piece in stream]))


@asynccontextmanager
async def open_served(stores: Mapping[str, str], journal_folder: Path, **settings: str) -> AsyncIterator[Served]:
    """`stores` are the settings that say where they are. Without limits unless settings say so."""
    async with _open_served(stores, journal_folder, settings, list_sockets) as served:
        yield served


@asynccontextmanager
async def open_served_sockets(
    stores: Mapping[str, str], journal_folder: Path, sockets: Mapping[str, SocketHandler], **settings: str
) -> AsyncIterator[Served]:
    """The same, and `sockets` says who serves which path, instead of who does so in truth."""
    async with _open_served(stores, journal_folder, settings, lambda _: sockets) as served:
        yield served


@asynccontextmanager
async def _open_served(
    stores: Mapping[str, str],
    journal_folder: Path,
    settings: Mapping[str, str],
    find_sockets: Callable[[Services], Mapping[str, SocketHandler]],
) -> AsyncIterator[Served]:
    environment = {"JWT_SECRET": SECRET, "JOURNAL_FOLDER": str(journal_folder), **SIGN_IN, **NO_LIMITS}
    config = read_config({**environment, **stores, **settings}, load_providers())
    async with open_services(config) as (services, _), trio.open_nursery() as nursery:
        answers = Answers(services, find_sockets(services))
        options = HypercornConfig()
        options.bind = ["127.0.0.1:0"]
        options.errorlog = None
        (bind,) = await nursery.start(partial(hypercorn.trio.serve, answers, options))
        yield Served(answers.app, services, int(bind.rpartition(":")[2]))
        nursery.cancel_scope.cancel()


def token_headers(user: User, **changes: Any) -> dict[str, str]:
    """Of a token that is bound to no device."""
    options: dict[str, Any] = {"user_id": user.id, "email": user.email, "role": user.role, "device_id": None}
    return {"Authorization": f"Bearer {issue_token(SECRET, **(options | {'now': time.time(), 'days': 1} | changes))}"}


def build_head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: cloche", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)
