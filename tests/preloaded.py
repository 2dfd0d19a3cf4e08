"""Processes of our own code that need not import it first: what `python -m module` would be, a second of CPU sooner."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


class Process:
    """What of subprocess.Popen tests need: a process that somebody else has started for us."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self.pid = int.from_bytes(self._read(), "little")
        self.returncode: int | None = None

    def _read(self) -> bytes:
        data = self._told.recv(4)
        if not data:
            self._told.close()
            raise ChildProcessError("the preloader has ended, and can tell no more of what it had started")
        return data

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Seconds. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                data = self._read()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            self.returncode = int.from_bytes(data, "little", signed=True)
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To nobody if it has ended: another process may have its id by now."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Preloader:
    """The process that forks for us. It ends with us, and so does all that it has started."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.preloader", str(theirs.fileno())]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self.close)

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], output: int, errors: int, *, is_strict: bool = False
    ) -> Process:
        """`python -m` and these words, in the project's folder; what it prints goes to these two file descriptors.
        `is_strict` is `-W error`.
        """
        request = {"words": list(words), "environment": dict(environment), "is_strict": is_strict}
        told, teller = socket.socketpair()
        with teller:
            socket.send_fds(self._requests, [json.dumps(request).encode()], [output, errors, teller.fileno()])
        return Process(told)

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


@cache
def start_preloader() -> Preloader:
    """The only one of this process, started when it is needed first."""
    return Preloader()
