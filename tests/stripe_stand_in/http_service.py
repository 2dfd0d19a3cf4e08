"""A small HTTP/1.1 server for a test's own nursery: whole requests in, whole answers out, connections kept alive."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from tests.stripe_stand_in.forms import read_form

RECEIVE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """`form` is the query of a GET, else the body. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, Any]:
        return read_form(self.query if self.method in {"GET", "DELETE"} else self.body.decode())


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class HungUp(Exception):
    """The connection is to be closed without an answer."""


Answer = Callable[[Request], Awaitable[Reply]]


def build_reply(status: int, value: object, **headers: str) -> Reply:
    return Reply(status, msgspec.json.encode(value), headers)


async def serve(answer: Answer, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    """On 127.0.0.1, until cancelled; tells its URL when it listens."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    await trio.serve_listeners(partial(_serve_connection, answer=answer), listeners)


async def _serve_connection(stream: trio.SocketStream, answer: Answer) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        while (request := await _read_request(stream, connection)) is not None:
            reply = await answer(request)
            await _send_reply(stream, connection, reply)
            if connection.our_state is h11.MUST_CLOSE:
                break
            connection.start_next_cycle()
    except (trio.BrokenResourceError, HungUp, h11.RemoteProtocolError):
        pass  # the client has left, or is not to be answered
    finally:
        await trio.aclose_forcefully(stream)


async def _read_request(stream: trio.SocketStream, connection: h11.Connection) -> Request | None:
    """None at the end of the connection."""
    head, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _build_request(head, body)
        else:
            return None


def _build_request(head: h11.Request, body: bytes) -> Request:
    target = urlsplit(head.target.decode())
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Request(head.method.decode(), target.path, target.query, headers, body)


async def _send_reply(stream: trio.SocketStream, connection: h11.Connection, reply: Reply) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(reply.body)), **reply.headers}
    head = h11.Response(status_code=reply.status, headers=list(headers.items()))
    data = [connection.send(event) or b"" for event in (head, h11.Data(data=reply.body), h11.EndOfMessage())]
    await stream.send_all(b"".join(data))
