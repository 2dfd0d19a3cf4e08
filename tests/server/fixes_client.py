"""A served tests/server/fixes_app.py, and clients that speak to it in bytes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import h11
import trio

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 8
CONFIG = """
worker_class = "trio"
graceful_timeout = {grace}
keep_alive_timeout = 1.5
keep_alive_max_requests = 1000000
websocket_max_message_size = 33554432
bind = ["fd://{fd}"]
"""


@dataclass(frozen=True, slots=True)
class Served:
    address: tuple[str, int]
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    rest: bytes  # what came after it


@contextmanager
def serve(folder: Path, *options: str, workers: int = 0, grace: float = 5, **environment: str) -> Iterator[Served]:
    """Hypercorn as operators start it. Whatever is left of it is killed at the end."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config, log = folder / "hypercorn.toml", folder / "log"
    config.write_text(CONFIG.format(grace=grace, fd=listening.fileno()))
    command = [sys.executable, "-m", "hypercorn", "-c", str(config), "-w", str(workers), *options]
    with listening, log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 # our own interpreter
            [*command, "tests.server.fixes_app:app"],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=said,
            stderr=said,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
        address = listening.getsockname()
    try:
        yield Served(address, process, log)
    finally:
        _kill_session(process)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def wait_exit(served: Served, within_seconds: float) -> int:
    """The exit status; TooSlowError if it does not end."""
    with trio.fail_after(within_seconds):
        return await trio.to_thread.run_sync(served.process.wait, abandon_on_cancel=True)


async def connect(served: Served) -> trio.SocketStream:
    return await trio.open_tcp_stream(*served.address)


def build_request(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: test", *headers, "", ""]).encode()


async def ask(served: Served, path: str, within_seconds: float = 5) -> str:
    """The body of one response, on a connection of its own."""
    with trio.fail_after(within_seconds):
        async with await connect(served) as stream:
            await stream.send_all(build_request(path, "connection: close"))
            return (await read_answer(stream)).body.decode()


async def read_answer(stream: trio.abc.Stream, received: bytes = b"", *, method: str = "GET") -> Answer:
    """One response, parsed strictly. Raises h11.RemoteProtocolError if the connection ends before it does."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
    client.send(h11.EndOfMessage())
    if received:
        client.receive_data(received)
    with trio.fail_after(PATIENCE_SECONDS):
        return await _read_events(stream, client)


async def _read_events(stream: trio.abc.Stream, client: h11.Connection) -> Answer:
    body = b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, headers, body, client.trailing_data[0])


async def read_rest(stream: trio.SocketStream) -> bytes:
    """Everything until the server closes."""
    with trio.fail_after(PATIENCE_SECONDS):
        return b"".join([bytes(data) async for data in stream])


async def is_closed(stream: trio.SocketStream, within_seconds: float) -> bool:
    """Whether the server closes, whatever it still says."""
    with trio.move_on_after(within_seconds):
        try:
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            return True
        return True
    return False


def reset(stream: trio.SocketStream) -> None:
    """Leave as a killed client leaves: RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()


class Http2Client:
    """One HTTP/2 connection with prior knowledge, or over a stream that negotiated it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration())
        self.protocol.initiate_connection()
        self._events: list[h2.events.Event] = []

    async def flush(self) -> None:
        await self.stream.send_all(self.protocol.data_to_send())

    async def open_windows(self) -> None:
        """Take whatever comes, so that only the socket holds the server back."""
        self.protocol.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
        self.protocol.increment_flow_control_window(2**30)
        await self.flush()

    async def start(self, path: bytes, *, method: str = "GET", ends: bool = True) -> int:
        """Send a request head, and say which stream it is."""
        stream_id = self.protocol.get_next_available_stream_id()
        headers = [(b":method", method.encode()), (b":scheme", b"http"), (b":authority", b"test"), (b":path", path)]
        self.protocol.send_headers(stream_id, headers, end_stream=ends)
        await self.flush()
        return stream_id

    async def next_event(self) -> h2.events.Event:
        while not self._events:
            data = await self.stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection")
            self._events = self.protocol.receive_data(data)
        return self._events.pop(0)

    async def read_answer(self, stream_id: int) -> tuple[str, bytes]:
        """Status and body, granting every window; what happens to other streams is lost. A reset is status "reset"."""
        status, body = "", b""
        while True:
            with trio.fail_after(PATIENCE_SECONDS):
                event = await self.next_event()
            if isinstance(event, h2.events.DataReceived):
                self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            await self.flush()
            if getattr(event, "stream_id", None) != stream_id:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                status = dict(event.headers)[b":status"].decode()
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return status, body
            elif isinstance(event, h2.events.StreamReset):
                return "reset", body
