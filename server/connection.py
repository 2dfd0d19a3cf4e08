"""How one HTTP request lives and ends; and what a request and a WebSocket (sockets.py) have in common at the edge.

Quart-Trio runs the handler and the sending of its answer in one task, which it cancels when the client has gone. All
that the request opened lives on one exit stack of that task: it unwinds when the last byte is sent, or at once when the
client leaves, whether the handler was waiting, or a body generator was, or had never started.

Around it stands what holds for every request, whatever becomes of it: its circumstances, the headers of its answer, and
its line in the log.
"""

import logging
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Quart, current_app, request
from quart.wrappers import Response
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.wrappers import Response as WerkzeugResponse

from server.circumstances import Circumstances, set_circumstances
from server.edge import (
    Arrival,
    Header,
    Rules,
    answers_preflight,
    build_headers,
    build_preflight,
    find_path,
    read_arrival,
)
from server.request_body import Request, RequestBody

MAX_LOGGED_PATH = 200
LEFT = "left"
"""The status, in the log, of a request whose answer did not go out to its end."""
BROKEN = "broken"
"""The same, by our own fault."""

_RESOURCES = "cloche.open_resources"
_EDGE = "cloche.edge"

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Edge:
    """What the connections of one app share. `requests` are those that this process answers right now."""

    rules: Rules
    logs_access: bool
    requests: int = 0
    began: float = field(default_factory=time.monotonic)


class Connection(TrioASGIHTTPConnection):
    """One request. There is no response timeout here: the socket has a write deadline, and a stream may be long."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._edge = find_edge(app)
        self._arrival = arrive(self._edge, scope)
        self._status: int | str = LEFT

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        began = begin(self._edge, self._arrival)
        try:
            if answers_preflight(self.scope["method"], self.scope["headers"]):
                await self._answer_preflight(send)
            else:
                await super().__call__(receive, send)
        except Exception:  # the edge of the task: what breaks an answer that has begun becomes no error of the table
            self._status = BROKEN
            logger.exception("an answer broke in our own code", extra={"path": self.scope["path"][:MAX_LOGGED_PATH]})
        finally:
            end(self._edge, self.scope["method"], self.scope["path"], self._status, began)

    async def handle_messages(  # type: ignore[override] # as Quart-Trio itself has it
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        """Take in the body as it finds room, and hear the client leave. What is never read hides that until the
        answer begins.
        """
        body = cast(RequestBody, request.body)
        while (message := await receive())["type"] == "http.request":
            body.append(message["body"])
            if not message["more_body"]:
                body.set_complete()
            await body.wait_room()
        nursery.cancel_scope.cancel()

    async def handle_request(  # type: ignore[override] # as Quart-Trio itself has it
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        async with AsyncExitStack() as stack:
            cast(dict[str, object], self.scope)[_RESOURCES] = stack
            response = await self.app.handle_request(request)
            cast(RequestBody, request.body).discard()
            await self._send_response(send, response)
        nursery.cancel_scope.cancel()

    async def _send_response(self, send: ASGISendCallable, response: Response | WerkzeugResponse) -> None:
        response.headers.extend(build_headers(self._arrival, response.headers.keys()))
        if response.status_code == 204:  # has no length: https://www.rfc-editor.org/rfc/rfc9110#section-8.6
            response.set_data(b"")  # where Quart has no body it takes asyncio's loop for granted, and the answer breaks
            for name in ("Content-Length", "Content-Type"):
                response.headers.pop(name, None)
        await super()._send_response(send, response)
        self._status = response.status_code

    async def _answer_preflight(self, send: ASGISendCallable) -> None:
        """Nobody is asked who calls, and nothing is counted: a preflight has no credentials."""
        headers = encode_headers(build_preflight(self._arrival, self.scope["headers"]))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._status = 204


def use_edge(app: Quart, edge: Edge) -> None:
    """Let every request of the app come in by it."""
    app.extensions[_EDGE] = edge
    app.asgi_http_class = Connection
    app.request_class = Request


def edge() -> Edge:
    """Of the app that answers the request at hand."""
    return find_edge(current_app)


def find_edge(app: Quart) -> Edge:
    return cast(Edge, app.extensions[_EDGE])


async def keep_open(resource: AbstractAsyncContextManager[T]) -> T:
    """Enter a resource that is left when the request has ended, however it ends."""
    stack = cast(AsyncExitStack, cast(dict[str, object], request.scope)[_RESOURCES])
    return await stack.enter_async_context(resource)


def arrive(edge: Edge, scope: Any) -> Arrival:
    """Nothing behind this line sees another name of the path, or what a proxy in front has hidden."""
    client = scope.get("client")
    arrival = read_arrival(edge.rules, client[0] if client else None, scope["scheme"], scope["headers"])
    scope["path"] = find_path(scope["path"])
    if arrival.is_https and scope["type"] == "http":
        scope["scheme"] = "https"
    return arrival


def begin(edge: Edge, arrival: Arrival) -> float:
    """A request is on its way: known to whatever runs for it, and counted. Returns when, for `end`."""
    edge.requests += 1
    set_circumstances(Circumstances(arrival.request_id, arrival.address, arrival.user_agent))
    return time.perf_counter()


def end(edge: Edge, method: str, path: str, status: int | str, began: float) -> None:
    """However it ended."""
    edge.requests -= 1
    if edge.logs_access:
        _log_access(method, path, status, began)


def _log_access(method: str, path: str, status: int | str, began: float) -> None:
    """Without the query, which carries codes and names of logins."""
    duration_ms = round((time.perf_counter() - began) * 1000, 2)
    logger.info(
        "a request has ended",
        extra={"method": method, "path": path[:MAX_LOGGED_PATH], "status": status, "duration_ms": duration_ms},
    )


def encode_headers(headers: list[Header]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin1")) for name, value in headers]
