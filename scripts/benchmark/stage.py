"""Everything that a measurement needs, running: stores, callers with money, the provider, the served application.

The server has a core for itself where there is more than one; all else, this process included, shares the others.
"""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg
import trio

from scripts.benchmark.calls import BenchFailed, Target
from scripts.environment import PROJECT
from server.auth.tokens import issue_token
from storage.accounts import Accounts, User
from storage.credits import Credits
from storage.embedded import EmbeddedServers, temporary_servers
from storage.migrate import migrate
from storage.postgres import open_database
from storage.seed import seed

READY_SECONDS = 30.0
STOP_SECONDS = 20.0
SETTLE_SECONDS = 20.0
PROVIDER_MODEL = "gpt-4.1-mini"
MODEL = f"openai/{PROVIDER_MODEL}"
CREDITS_USD = Decimal(100_000)
UNLIMITED = ("MAX_REQUESTS", "READS", "LLM_REQUESTS", "LLM_TOKENS", "SOCKETS")
"""Budgets."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who may run where."""

    server: frozenset[int]
    others: frozenset[int]

    def __str__(self) -> str:
        if self.server == self.others:
            return f"everything shares core {_list(self.server)}: all figures suffer"
        return (
            f"server on core {_list(self.server)}; provider, load generator, PostgreSQL and Redis"
            f" on core {_list(self.others)}"
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """What lives as long as the whole benchmark."""

    cores: Cores
    servers: EmbeddedServers
    folder: Path
    secret: str
    provider: Target
    callers: tuple[Mapping[str, str], ...]
    members: tuple[Mapping[str, str], ...]

    def count_held(self) -> int:
        """Calls that still hold money, after all have had the time to be settled."""
        give_up = time.monotonic() + SETTLE_SECONDS
        with psycopg.connect(self.servers.owner_database_url, autocommit=True) as connection:
            while True:
                row = connection.execute("SELECT count(*) FROM holds WHERE state = 'held'").fetchone()
                if row is None or row[0] == 0 or time.monotonic() > give_up:
                    return int(row[0]) if row else 0
                connection.execute("SELECT pg_sleep(0.05)")

    def count_settled(self) -> int:
        with psycopg.connect(self.servers.owner_database_url) as connection:
            row = connection.execute("SELECT count(*) FROM usage").fetchone()
            return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class Served:
    """The application in a process of its own, and what it uses."""

    target: Target
    process: psutil.Process

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def waited_percent(self) -> float:
        """Of the time in which it wanted its core, the part in which others had it (/proc/PID/schedstat)."""
        ran, waited, _ = Path(f"/proc/{self.process.pid}/schedstat").read_text().split()
        return 100 * int(waited) / max(1, int(ran) + int(waited))

    def memory_kib(self) -> float:
        """Resident."""
        return float(self.process.memory_info().rss) / 1024


def choose_cores() -> Cores:
    """The first core for the server, the others for the rest."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(allowed[:1]), frozenset(allowed[1:] or allowed))


@contextmanager
def open_stage(users: int, members: int) -> Iterator[Stage]:
    """Moves this process, and with it everything that it starts, away from the server's core."""
    cores = choose_cores()
    os.sched_setaffinity(0, cores.others)
    with temporary_servers() as servers, open_folder() as folder:
        migrate(servers.owner_database_url)
        seed(servers.owner_database_url)
        secret = secrets.token_hex(32)
        callers = trio.run(make_callers, servers.database_url, secret, users)
        bare = trio.run(make_members, servers.database_url, secret, members)
        with open_provider() as port:
            provider = Target("direct", port, PROVIDER_MODEL, ({"Authorization": "Bearer sk-bench"},))
            yield Stage(cores, servers, folder, secret, provider, callers, bare)


@contextmanager
def open_folder() -> Iterator[Path]:
    """For the log and the journal. What a killed benchmark left is deleted first."""
    for leftover in Path(tempfile.gettempdir()).glob("cloche-bench-*-*"):
        if leftover.stat().st_uid == os.geteuid() and not psutil.pid_exists(int(leftover.name.split("-")[2])):
            shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f"cloche-bench-{os.getpid()}-") as folder:
        yield Path(folder)


async def make_callers(database_url: str, secret: str, users: int) -> tuple[Mapping[str, str], ...]:
    """The headers of new users who can pay."""
    async with open_database(database_url, size=1) as database:
        return tuple([await _make_caller(Accounts(database), Credits(database), secret) for _ in range(users)])


async def make_members(database_url: str, secret: str, users: int) -> tuple[Mapping[str, str], ...]:
    """The headers of new users whose token is bound to no device: they may bring several."""
    async with open_database(database_url, size=1) as database:
        made = [await Accounts(database).make_user(f"{uuid4()}@example.com") for _ in range(users)]
    return tuple({"Authorization": f"Bearer {_issue(secret, user, None)}"} for user in made)


async def _make_caller(accounts: Accounts, credits_: Credits, secret: str) -> Mapping[str, str]:
    user = await accounts.make_user(f"{uuid4()}@example.com")
    device = uuid4()
    await accounts.make_device(user.id, device)
    await credits_.grant(user.id, CREDITS_USD, idempotency_key=f"bench:{uuid4()}", description="benchmark")
    token = _issue(secret, user, device)
    return {"Authorization": f"Bearer {token}", "X-Device-ID": str(device), "X-Token-Binding": str(device)}


def _issue(secret: str, user: User, device_id: UUID | None) -> str:
    return issue_token(
        secret, user_id=user.id, email=user.email, role=user.role, device_id=device_id, now=time.time(), days=1
    )


@contextmanager
def open_provider() -> Iterator[int]:
    """The fake provider's port. It ends when its stdin does, so also when we are killed."""
    argv = [sys.executable, "-m", "scripts.benchmark.provider"]
    process = subprocess.Popen(  # noqa: S603  # our own
        argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    with _ended(process):
        if process.stdout is None:
            raise BenchFailed("the provider has no output")
        yield int(process.stdout.readline())


@contextmanager
def open_served(stage: Stage, name: str = "server") -> Iterator[Served]:
    """The application, as operators serve it, with one worker. Raises BenchFailed if it logs an error."""
    port = _find_port()
    log = stage.folder / f"{name}.log"
    pinned = [sys.executable, "-m", "scripts.benchmark.pinned", str(os.getpid()), _list(stage.cores.server)]
    hypercorn = [sys.executable, "-m", "hypercorn", "-c", "hypercorn.toml", "-w", "0", "-b", f"127.0.0.1:{port}"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # our own
            [*pinned, *hypercorn, "server.asgi:app"],
            cwd=PROJECT,
            env=_build_environment(stage),
            stdout=output,
            stderr=output,
            process_group=0,  # a Ctrl-C is for us, who then end it
        )
    with _ended(process):
        _wait_ready(port, process, log)
        yield Served(Target("cloche", port, MODEL, stage.callers), psutil.Process(process.pid))
    _check_log(log)


def _build_environment(stage: Stage) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        "ENVIRONMENT": "production",
        "DATABASE_URL": stage.servers.database_url,
        "REDIS_URL": stage.servers.redis_url,
        "JWT_SECRET": stage.secret,
        "JOURNAL_FOLDER": str(stage.folder / "journal"),
        "OPENAI_BASE_URL": f"http://127.0.0.1:{stage.provider.port}/v1",
        "OPENAI_API_KEY": "sk-bench",
        "SERVER_URL": "http://127.0.0.1:9",
        "API_KEY_HASH_SECRET": stage.secret,
        "AUDIT_HMAC_SECRET": stage.secret,
        "AUTH0_ISSUER_URL": "http://127.0.0.1:9",
        "AUTH0_API_AUDIENCE": "nobody signs in here",
        "AUTH0_NATIVE_CLIENT_ID": "nobody",
        **{f"RATE_LIMIT_{name}": "1000000000" for name in UNLIMITED},
    }


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ended at the end of the block, if it has not by itself."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while not _is_healthy(port):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
        if process.returncode is not None or time.monotonic() > give_up:
            raise BenchFailed(f"the server did not become ready: {log.read_text(errors='replace')[-2000:]}")


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def take_report(provider: Target) -> tuple[set[int], dict[int, int]]:
    """The calls that have reached the provider since the last report, and when it saw each abandoned one end."""
    report = _ask_provider(provider, "/report")
    return set(report["arrived"]), {int(number): moment for number, moment in report["closed"].items()}


def start_floods(provider: Target) -> None:
    """Open the gates for all floods that wait."""
    _ask_provider(provider, "/flood")


def _ask_provider(provider: Target, path: str) -> dict[str, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", provider.port, timeout=5)) as connection:
        connection.request("GET", path)
        return dict(json.loads(connection.getresponse().read()))


def _check_log(log: Path) -> None:
    """A figure of a server that fails is none."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if is_error(line)]
    if errors:
        raise BenchFailed("the server logged errors:\n" + "\n".join(lines[-40:]))


def is_error(line: str) -> bool:
    """In hypercorn's way of writing, in ours, or in nobody's."""
    return " ERROR " in line or '"level":"ERROR"' in line or line.startswith("Traceback")


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _list(cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cores)))
