"""Stays beside a served process: announces it when it answers, and clears up when it is gone, for whatever reason.

It runs in a session of its own and reads a pipe that only the served process can write to. The kernel closes that pipe
however the process ends, also by kill -9.
"""

import contextlib
import http.client
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types

from scripts.environment import PROJECT, read_environment
from storage.embedded import stop_servers

READY_TIMEOUT_SECONDS = 60.0
GRACE_SECONDS = 15.0
WORKER_GRACE_SECONDS = 5.0
SIGN_IN_ADVICE = "To sign in as the apps do, in a browser:\n\n.venv/bin/python -m scripts.sign_in"
QUESTION = {"model": "sandbox/echo", "stream": True, "messages": [{"role": "user", "content": "Hello, who are you?"}]}


@dataclass(frozen=True, slots=True)
class Served:
    """The process we stay beside. Its environment, and that of all its descendants, carries `mark`."""

    host: str
    port: int
    pid: int
    mark: str


def main() -> None:
    """Keep the process at the other end of stdin; the argument is the data folder of private servers, if any run."""
    served = None
    try:
        served = read_served(0)
        if served is not None:
            keep(served)
    finally:
        if served is not None:
            end_marked(served.mark)
        for folder in sys.argv[1:]:
            stop_servers(Path(folder))


def read_served(pipe: int) -> Served | None:
    """Wait for the one line that comes right before hypercorn starts; None if the process ended without."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(pipe, 4096)
        if not piece:
            return None
        line += piece
    return Served(**json.loads(line))


def keep(served: Served) -> None:
    """Announce, then wait for the end. A server that does not become ready is stopped."""
    if wait_until_ready(served, 0):
        say(announcement(served))
        wait_for_end(0, None)
    elif not wait_for_end(0, 0):
        say(f"scripts/run: the server was not ready within {READY_TIMEOUT_SECONDS:.0f} s and is stopped")
        stop_served(served)


def wait_until_ready(served: Served, pipe: int) -> bool:
    """Ask for /health until it answers 200. False if the process ends before, or time is up."""
    give_up = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < give_up:
        if is_healthy(served):
            return True
        if wait_for_end(pipe, 0.1):
            return False
    return False


def wait_for_end(pipe: int, timeout_seconds: float | None) -> bool:
    """Whether the pipe has lost its last writer within that time; None waits for as long as it takes."""
    readable, _, _ = select.select([pipe], [], [], timeout_seconds)
    return bool(readable)


def is_healthy(served: Served) -> bool:
    """One GET /health."""
    connection = http.client.HTTPConnection(reachable_host(served.host), served.port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def reachable_host(host: str) -> str:
    """A server that listens everywhere is asked on this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def reachable_url(host: str, port: int) -> str:
    """Where a server that listens there is found from this machine."""
    name = reachable_host(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def announcement(served: Served) -> str:
    """Where the server is, a first request to copy (a streamed chat for a user who was made for it), how to sign in."""
    url = reachable_url(served.host, served.port)
    headers = first_headers()
    if headers is None:
        return f"\nCloche is ready: {url}\n"
    first = f"A first request, streamed:\n\n{curl_command(url, headers)}"
    own_url = read_environment().get("SERVER_URL") or url
    return f"\nCloche is ready: {url}\n\n{first}\n\n{SIGN_IN_ADVICE} --url {shlex.quote(own_url)}\n"


def first_headers() -> dict[str, str] | None:
    """The headers of a user with some credits; None, after saying why, if none could be made."""
    argv = [sys.executable, "-m", "scripts.token", "--email", "you@example.com", "--credits", "10"]
    done = subprocess.run(argv, env=read_environment(), cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603  # our own
    try:
        return dict(json.loads(done.stdout)["headers"])
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        say(f"scripts/run: scripts.token made no token: {reason}")
        return None


def curl_command(url: str, headers: dict[str, str]) -> str:
    """One line for a shell."""
    named = {"Content-Type": "application/json"} | headers
    words = [word for name, value in named.items() for word in ("-H", f"{name}: {value}")]
    return shlex.join(["curl", "-N", f"{url}/v1/chat/completions", *words, "-d", json.dumps(QUESTION)])


def stop_served(served: Served) -> None:
    """Ask the served process to end, then make it. Only while it is our parent is that pid still its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if os.getppid() == served.pid:
            os.kill(served.pid, number)
        if wait_for_end(0, GRACE_SECONDS):
            return


def end_marked(mark: str) -> None:
    """End workers that outlived a killed hypercorn: they would go on serving, and hold the port."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        give_up = time.monotonic() + WORKER_GRACE_SECONDS
        for process in marked_processes(mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        while any(marked_processes(mark)) and time.monotonic() < give_up:
            time.sleep(0.02)  # noqa: TID251  # they are not our children, nothing tells of their end


def marked_processes(mark: str) -> Iterator[psutil.Process]:
    """All processes whose environment carries the mark; a zombie has none."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("CLOCHE_RUN_MARK") == mark:
                yield process


def say(words: str) -> None:
    """Print, if anybody still listens."""
    with contextlib.suppress(OSError):
        print(words, flush=True)


if __name__ == "__main__":
    main()
