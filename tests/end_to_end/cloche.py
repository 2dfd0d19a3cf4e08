"""Cloche as operators run it: hypercorn in a process of its own, with the real stores, and customers who call it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any
from uuid import UUID, uuid4

import psycopg
import trio

from server.auth.tokens import issue_token
from storage.accounts import Accounts
from storage.credits import Credits
from storage.postgres import open_database
from tests.preloaded import Process, start_preloader
from tests.storage.accounting import check_accounts

PROJECT = Path(__file__).resolve().parent.parent.parent
SECRET = "only-for-tests-0123456789abcdef-0123456789"
STANDARD_OUTPUT = 1
READY_SECONDS = 30
STOP_SECONDS = 20

SIGN_IN = {
    "SERVER_URL": "http://127.0.0.1:8080",
    "API_KEY_HASH_SECRET": "only-for-tests-keys-0123456789abcdef",
    "AUDIT_HMAC_SECRET": "only-for-tests-audit-0123456789abcdef",
    "AUTH0_ISSUER_URL": "http://127.0.0.1:9",
    "AUTH0_API_AUDIENCE": "https://api.example.com",
    "AUTH0_NATIVE_CLIENT_ID": "app-desktop,app-mobile",
}
"""What production needs beside its stores; nobody can sign in by it, for nothing listens there."""

NO_LIMITS = {
    **{
        f"RATE_LIMIT_{name}": "1000000"
        for name in (
            *("MAX_REQUESTS", "SIGN_INS", "POLLS", "POLLS_PER_ADDRESS", "SOCKETS", "WEBHOOKS"),
            *("READS", "WRITES", "LLM_REQUESTS"),
        )
    },
    "RATE_LIMIT_LLM_TOKENS": "1000000000",
    "ACCOUNT_CREATION_RATE_LIMIT_MAX_REQUESTS": "1000000",
}
"""Out of the way of everything. A test of limits sets its own."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with a token and, perhaps, money."""

    user_id: UUID
    headers: Mapping[str, str] = field(repr=False)

    @property
    def token(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")

    @property
    def device_headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name != "Authorization"}


@dataclass(slots=True)
class Cloche:
    """A running server and what it keeps its accounts in."""

    port: int
    process: Process | subprocess.Popen[bytes]
    database_url: str
    owner_database_url: str
    log: Path = Path(os.devnull)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def make_customer(self, credits_usd: str = "10") -> Customer:
        async with open_database(self.database_url, size=1) as database:
            user = await Accounts(database).make_user(f"{uuid4()}@example.com")
            if Decimal(credits_usd):
                key = f"test:{uuid4()}"
                await Credits(database).grant(user.id, Decimal(credits_usd), idempotency_key=key, description="test")
        device = uuid4()
        token = issue_token(
            SECRET, user_id=user.id, email=user.email, role=user.role, device_id=device, now=time.time(), days=1
        )
        headers = {
            "Authorization": f"Bearer {token}",
            "X-Device-ID": str(device),
            "X-Token-Binding": str(device),
        }
        return Customer(user.id, headers)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the stores hold, seen by the superuser."""
        with psycopg.connect(self.owner_database_url) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    def balance(self, customer: Customer) -> tuple[Decimal | int, Decimal | int]:
        """Balance and held, in US dollars."""
        query = "SELECT balance_usd, held_usd FROM credit_balances WHERE user_id = %s"
        balance, held = self.query(query, customer.user_id)[0]
        return balance, held

    def find_logged(self, *words: str) -> list[dict[str, Any]]:
        """The lines of our own loggers that have all of these; hypercorn's are no JSON."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines if all(word in line for word in words)]

    async def wait_logged(self, *words: str, seconds: float = 10) -> dict[str, Any]:
        """The first such line, as soon as it is there."""
        with trio.fail_after(seconds):
            while not (lines := self.find_logged(*words)):
                await trio.sleep(0.01)
        return lines[0]

    async def wait_settled(self, seconds: float = 10) -> None:
        """Until no call holds money any more."""
        with trio.fail_after(seconds):
            while self.query("SELECT 1 FROM holds WHERE state = 'held' LIMIT 1"):
                await trio.sleep(0.01)

    def check_accounts(self) -> None:
        """Whatever has happened, the accounts add up, and what was charged is what usage costs."""
        check_accounts(self.query)

    def open_sockets(self) -> int:
        """The server's TCP sockets, to clients and providers; those to its stores are Unix sockets here."""
        with Path("/proc/net/tcp").open() as table:
            tcp = {f"socket:[{line.split()[9]}]" for line in table}
        names = [read_link(entry) for entry in Path(f"/proc/{self.process.pid}/fd").iterdir()]
        return sum(name in tcp for name in names)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a server keeps its accounts."""

    database_url: str
    owner_database_url: str
    redis_url: str
    journal_folder: Path


def build_environment(stores: Stores, upstream_url: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "ENVIRONMENT": "production",
        "DATABASE_URL": stores.database_url,
        "REDIS_URL": stores.redis_url,
        "JWT_SECRET": SECRET,
        "JOURNAL_FOLDER": str(stores.journal_folder),
        "OPENAI_BASE_URL": upstream_url,
        "OPENAI_API_KEY": "sk-upstream",
        "PROVIDER_RETRY_SECONDS": "0.001",
        **SIGN_IN,
        **NO_LIMITS,
        **settings,
    }


def build_words(port: int, *options: str) -> list[str]:
    return ["hypercorn", "-c", "hypercorn.toml", "-b", f"127.0.0.1:{port}", *options, "server.asgi:app"]


def start_hypercorn(
    environment: Mapping[str, str], port: int, *options: str, log: int | IO[bytes] = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """From nothing, as an operator's shell does."""
    command = [sys.executable, "-m", *build_words(port, *options)]
    return subprocess.Popen(command, cwd=PROJECT, env=dict(environment), stderr=log)  # noqa: S603 - our own server


def start_preloaded(environment: Mapping[str, str], port: int, log: IO[bytes]) -> Process:
    """The same without its second of importing. Workers are started from nothing either way."""
    return start_preloader().start(build_words(port), environment, STANDARD_OUTPUT, log.fileno())


@asynccontextmanager
async def open_cloche(
    stores: Stores,
    upstream_url: str = "http://127.0.0.1:9",
    *,
    options: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
    **more_settings: str,
) -> AsyncIterator[Cloche]:
    """A server that is ready, and knows where browsers find it; stopped at the end if it has not been before. Its log
    is shown when a test fails.
    """
    port = find_port()
    own = {"SERVER_URL": f"http://127.0.0.1:{port}", **(settings or {}), **more_settings}
    environment = build_environment(stores, upstream_url, own)
    with NamedTemporaryFile(suffix=".log") as log:  # a pipe would be full after a few hundred requests
        process = (
            start_hypercorn(environment, port, *options, log=log.file)
            if options
            else start_preloaded(environment, port, log.file)
        )
        try:
            await wait_ready(port, process)
            yield Cloche(port, process, stores.database_url, stores.owner_database_url, Path(log.name))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(stop, process)
            show(Path(log.name))


def show(log: Path) -> None:
    sys.stderr.write(log.read_text(errors="replace"))


def stop(process: Process | subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        sys.stderr.write("the server did not stop in time\n")


async def wait_ready(port: int, process: Process | subprocess.Popen[bytes]) -> None:
    with trio.fail_after(READY_SECONDS):
        while process.poll() is None:
            if await fetch_status(port, "/health") == 200:
                return
            await trio.sleep(0.02)
    raise AssertionError("the server ended before it was ready")


async def fetch_status(port: int, path: str) -> int | None:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return None
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = await stream.receive_some(4096)
    return int(head.split()[1]) if head else None


def read_link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # closed while we looked
        return ""


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
