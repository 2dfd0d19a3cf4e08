"""What ./scripts/run does once everything is installed: servers, migrations, settings, then hypercorn in our place.

Hypercorn takes over this process, so that signals and exit status are its own. What has to happen beside it, the
announcement, and after it, stopping the private servers, is left to `scripts.keeper`.
"""

import argparse
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from scripts.environment import PROJECT, data_folder, read_settings, write_settings
from scripts.keeper import reachable_url
from storage.embedded import start_servers
from storage.embedded_home import make_data_folder
from storage.errors import StorageError
from storage.migrate import migrate
from storage.seed import seed

NEEDED_IN_PRODUCTION = ("DATABASE_URL", "REDIS_URL", "JWT_SECRET", "API_KEY_HASH_SECRET", "AUDIT_HMAC_SECRET")
SECRETS = ("JWT_SECRET", "API_KEY_HASH_SECRET", "AUDIT_HMAC_SECRET", "REFRESH_TOKEN_ENCRYPTION_KEY")
"""Invented where nobody has set them; 32 bytes each, as the last one must have."""


class CannotServe(Exception):
    """./scripts/run cannot go on; the message is meant for whoever typed it."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `workers` None leaves it to hypercorn.toml."""

    host: str
    port: int
    workers: int | None


def main() -> None:
    """Serve until told to stop; a reason not to is one line on stderr and exit status 1."""
    try:
        serve(read_options(sys.argv[1:]))
    except (CannotServe, StorageError, psycopg.Error) as error:
        sys.exit(f"scripts/run: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def serve(options: Options) -> None:
    """Prepare everything, then become hypercorn: does not return."""
    refuse_half_a_production()
    port = find_port(options.host, options.port)
    is_private = not (os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"))
    folder = data_folder()
    make_data_folder(folder)
    if is_private:
        hold_data_folder(folder)
    keeper = start_keeper(folder, is_private)
    settings = make_settings(folder, is_private, reachable_url(options.host, port))
    os.environ.update({name: value for name, value in settings.items() if not os.environ.get(name)})
    prepare_database()
    become_hypercorn(options, port, keeper)


def read_options(words: list[str]) -> Options:
    """Read the command line; explains itself and exits when it makes no sense."""
    parser = argparse.ArgumentParser(prog="scripts/run", description="Serve Cloche on this machine.")
    parser.add_argument("--port", type=int, default=8080, help="0 chooses a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--workers", type=int, default=None, help="processes; hypercorn.toml decides if not given")
    return Options(**vars(parser.parse_args(words)))


def refuse_half_a_production() -> None:
    """Private servers and invented secrets are for development."""
    missing = [name for name in NEEDED_IN_PRODUCTION if not os.environ.get(name)]
    if is_production() and missing:
        raise CannotServe(f"ENVIRONMENT is production, but not set: {', '.join(missing)}")


def is_production() -> bool:
    return os.environ.get("ENVIRONMENT", "").strip().lower() == "production"


def find_port(host: str, port: int) -> int:
    """The port itself if it can be bound, a free one for 0. Known before anything has been started."""
    if port not in range(65536):  # getaddrinfo would take it modulo 65536
        raise CannotServe(f"there is no port {port}; choose another with --port")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise CannotServe(f"cannot listen on {host}:{port} ({error}); choose another with --port") from error


def hold_data_folder(folder: Path) -> None:
    """Hold a lock that lives exactly as long as the served process: its descriptor passes to hypercorn."""
    lock = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"another ./scripts/run uses {folder}; stop it, or name another folder in CLOCHE_DATA"
        raise CannotServe(message) from error
    os.set_inheritable(lock, True)


def start_keeper(folder: Path, is_private: bool) -> int:
    """Start the keeper and return the pipe to it. It ends by itself when that pipe has no writer any more."""
    lock = wait_for_former_keeper(folder) if is_private else None
    its_end, our_end = os.pipe()
    argv = [sys.executable, "-m", "scripts.keeper", *([str(folder)] if is_private else [])]
    kept = () if lock is None else (lock,)
    subprocess.Popen(argv, cwd=PROJECT, stdin=its_end, pass_fds=kept, start_new_session=True)  # noqa: S603  # our own
    for descriptor in (its_end, *kept):
        os.close(descriptor)
    return our_end


def wait_for_former_keeper(folder: Path) -> int:
    """Take the lock that a keeper holds: the former one may still be stopping the servers that we are about to use."""
    lock = os.open(folder / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("scripts/run: waiting for the servers of the former run to stop", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def make_settings(folder: Path, is_private: bool, url: str) -> dict[str, str]:
    """Start the private servers if they are wanted, and write down what other commands need to know of us and them.

    Secrets are made once. In production nothing is made or written, and what was written is left as it is.
    """
    settings = {"SERVER_URL": os.environ.get("SERVER_URL") or url}
    if is_production():
        return settings
    former = read_settings(folder)
    settings |= {name: former.get(name) or secrets.token_hex(32) for name in SECRETS}
    settings["ENVIRONMENT"] = "development"
    if is_private:
        servers = start_servers(folder)
        settings["OWNER_DATABASE_URL"] = servers.owner_database_url
        settings["DATABASE_URL"] = servers.database_url
        settings["REDIS_URL"] = servers.redis_url
        settings["JOURNAL_FOLDER"] = str(folder / "journal")
    write_settings(folder, settings)
    return settings


def prepare_database() -> None:
    """Bring tables and catalogue up to date."""
    owner_database_url = os.environ.get("OWNER_DATABASE_URL") or os.environ["DATABASE_URL"]
    migrate(owner_database_url)
    seed(owner_database_url)


def become_hypercorn(options: Options, port: int, keeper: int) -> None:
    """Tell the keeper where we serve, then hand this process to hypercorn. The mark finds workers that outlive it."""
    mark = secrets.token_hex(16)
    order = {"host": options.host, "port": port, "pid": os.getpid(), "mark": mark}
    os.write(keeper, json.dumps(order).encode() + b"\n")
    os.set_inheritable(keeper, True)
    os.environ["CLOCHE_RUN_MARK"] = mark
    os.chdir(PROJECT)
    bind = f"[{options.host}]:{port}" if ":" in options.host else f"{options.host}:{port}"
    workers = [] if options.workers is None else ["-w", str(options.workers)]
    argv = [sys.executable, "-m", "hypercorn", "-c", "hypercorn.toml", "--bind", bind, *workers, "server.asgi:app"]
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # noqa: S606  # no shell is what we want


if __name__ == "__main__":
    main()
