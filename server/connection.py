"""How one HTTP request lives and ends.

Quart-Trio runs the handler and the sending of its answer in one task, which it cancels when the client has gone. All
that the request opened lives on one exit stack of that task: it unwinds when the last byte is sent, or at once when the
client leaves, whether the handler was waiting, or a body generator was, or had never started.
"""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar, cast

import trio
from hypercorn.typing import ASGISendCallable
from quart import request
from quart.wrappers import Request
from quart_trio.asgi import TrioASGIHTTPConnection

_KEY = "cloche.open_resources"

T = TypeVar("T")


class Connection(TrioASGIHTTPConnection):
    """One request. There is no response timeout here: the socket has a write deadline, and a stream may be long."""

    async def handle_request(  # type: ignore[override] # as Quart-Trio itself has it
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        async with AsyncExitStack() as stack:
            cast(dict[str, object], self.scope)[_KEY] = stack
            response = await self.app.handle_request(request)
            await self._send_response(send, response)
        nursery.cancel_scope.cancel()


async def keep_open(resource: AbstractAsyncContextManager[T]) -> T:
    """Enter a resource that is left when the request has ended, however it ends."""
    stack = cast(AsyncExitStack, cast(dict[str, object], request.scope)[_KEY])
    return await stack.enter_async_context(resource)
