"""The handshake of every WebSocket: who calls and what for, found out before it is accepted; else an answer like any
other says why not.

Origin is not looked at. A page on another site cannot act for anybody here: what is believed comes in headers, which no
page can set on a WebSocket, and no cookie counts. Some client libraries name an origin of their own making.
"""

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Mapping

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope

from server.app import encode_problem, explain
from server.auth.callers import Caller, Callers
from server.auth.tokens import Headers
from server.connection import BROKEN, LEFT, MAX_LOGGED_PATH, Edge, arrive, begin, end
from server.edge import Arrival, build_headers
from server.errors import NotFound, RequestInvalid, UpgradeRequired
from server.websocket import SocketClosed, WebSocket

SocketHandler = Callable[[WebSocket, Caller], Awaitable[None]]
"""The life of an accepted socket. SocketClosed is an end like any other; whatever else it raises, and an end without a
close, closes with 1011: the client comes again."""

VERSION = "13"
KEY_BYTES = 16

logger = logging.getLogger(__name__)


class Sockets:
    """ASGI for scopes of type `websocket`. `table` says who serves which path."""

    def __init__(self, edge: Edge, callers: Callers, table: Mapping[str, SocketHandler]) -> None:
        self._edge = edge
        self._callers = callers
        self._table = table

    async def __call__(self, scope: WebsocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        arrival = arrive(self._edge, scope)
        began = begin(self._edge, arrival)
        status: int | str = LEFT
        try:
            status = await self._serve(arrival, WebSocket(scope, receive, send))
        finally:
            end(self._edge, "GET", scope["path"], status, began)

    async def _serve(self, arrival: Arrival, websocket: WebSocket) -> int | str:
        """The status, as the log has it."""
        try:
            handler, caller = await self._admit(websocket)
        except Exception as error:  # noqa: BLE001 - the edge of the task: explain() logs what is no error of ours
            return await self._deny(arrival, websocket, error)
        await websocket.accept([("X-Request-ID", arrival.request_id)])
        try:
            await handler(websocket, caller)
        except SocketClosed:
            return 101
        except Exception:  # the edge of the task
            logger.exception("a WebSocket broke in our own code", extra={"path": websocket.path[:MAX_LOGGED_PATH]})
            return BROKEN
        return 101

    async def _admit(self, websocket: WebSocket) -> tuple[SocketHandler, Caller]:
        handler = self._table.get(websocket.path)
        if handler is None:
            raise NotFound("no WebSocket is served here")
        caller = await self._callers.find("GET", websocket.headers, self._callers.limits.budgets.sockets)
        check_handshake(websocket.headers)
        return handler, caller

    async def _deny(self, arrival: Arrival, websocket: WebSocket, error: Exception) -> int:
        problem = explain(error, websocket.path, self._callers.limits.outage)
        headers = [*problem.headers.items(), ("Content-Type", "application/json")]
        headers += build_headers(arrival, [name for name, _ in headers])
        await websocket.deny(problem.status, headers, encode_problem(problem, websocket.path))
        return problem.status


def check_handshake(headers: Headers) -> None:
    """The web server has found an upgrade to a WebSocket; this is what else there has to be. Raises UpgradeRequired for
    another version, RequestInvalid for another fault: https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1. Over HTTP/2
    there is no key (https://www.rfc-editor.org/rfc/rfc8441#section-5).
    """
    if headers.get("Sec-WebSocket-Version") != VERSION:
        raise UpgradeRequired(f"WebSocket version {VERSION} is needed")
    key = headers.get("Sec-WebSocket-Key")
    if headers.get("Upgrade") is not None and not is_key(key or ""):
        raise RequestInvalid("Sec-WebSocket-Key: 16 bytes in base64")


def is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
