"""./scripts/run as a subprocess, for tests: what it prints, what it starts, what it leaves."""

import os
import queue
import secrets
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types

from scripts.environment import PROJECT
from storage.embedded import remove_servers

# Not the installation, which a fresh clone may still need: only what comes after it.
READY_TIMEOUT_SECONDS = 240.0
END_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """One ./scripts/run and the lines that it and its keeper have printed."""

    process: subprocess.Popen[str]
    folder: Path
    lines: "queue.SimpleQueue[str | None]"

    def wait_for_curl(self) -> str:
        """The command that it prints when it is ready; fails with everything printed if it ends without one."""
        return self.wait_for_line("curl ")

    def wait_for_line(self, start: str) -> str:
        seen = []
        while (line := self.lines.get(timeout=READY_TIMEOUT_SECONDS)) is not None:
            seen.append(line)
            if line.startswith(start):
                return line
        raise AssertionError("".join(seen))

    def wait_for_end(self) -> str:
        """Wait until the served process, its keeper and all else that could print are gone; returns what was left."""
        seen = []
        while (line := self.lines.get(timeout=END_TIMEOUT_SECONDS)) is not None:
            seen.append(line)
        self.process.wait(END_TIMEOUT_SECONDS)
        return "".join(seen)

    def processes(self) -> list[psutil.Process]:
        """The private servers and the keeper (they name the folder), and what carries the served process's settings."""
        return [process for process in psutil.process_iter() if _belongs(process, str(self.folder))]

    def keeper(self) -> psutil.Process:
        return next(process for process in self.processes() if "scripts.keeper" in process.cmdline())

    def kill_all(self) -> None:
        for process in self.processes():
            process.kill()


@contextmanager
def run(folder: Path, *arguments: str, **settings: str) -> Iterator[Run]:
    """Start ./scripts/run with a data folder of its own, in a session of its own; kill it at the end of the block."""
    environment = {"PATH": os.environ["PATH"], "CLOCHE_DATA": str(folder), **settings}
    argv = [str(PROJECT / "scripts" / "run"), *arguments]
    with subprocess.Popen(  # noqa: S603  # our own command
        argv,
        env=environment,
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
        reader.start()
        started = Run(process, folder, lines)
        try:
            yield started
        finally:
            process.kill()
            reader.join(END_TIMEOUT_SECONDS)
            if reader.is_alive():  # somebody still holds its output: a failed test must not leave them running
                started.kill_all()


@contextmanager
def new_folder() -> Iterator[Path]:
    """A data folder that does not exist yet, and does not any more after the block."""
    folder = Path(tempfile.gettempdir()) / f"cloche-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield folder
    finally:
        remove_servers(folder)


def run_command(line: str) -> str:
    """Run a printed command as a shell would, and return what it prints."""
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, timeout=30)  # noqa: S603 - the very line that was printed
    return done.stdout


def curl_url(line: str) -> str:
    """The base URL in a printed curl command."""
    address = next(word for word in shlex.split(line) if word.startswith("http"))
    return address.removesuffix("/v1/chat/completions")


def interrupt(started: Run) -> None:
    """What Ctrl-C in a terminal does: SIGINT for the whole foreground process group."""
    os.killpg(started.process.pid, signal.SIGINT)


def _read_lines(process: subprocess.Popen[str], lines: "queue.SimpleQueue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        is_named = any(folder in word for word in process.cmdline())
        is_served = process.environ().get("CLOCHE_DATA") == folder
        return process.status() != psutil.STATUS_ZOMBIE and (is_named or is_served)
    except (psutil.Error, OSError):
        return False
