"""What a request's task receives: bounded, and closed from both ends without waiting."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope


class Mailbox:
    """The messages for one request; the disconnect is always accepted, and is the last one."""

    def __init__(self, size: int) -> None:
        self._sender, self._receiver = trio.open_memory_channel[ASGIReceiveEvent](size)
        self._last: ASGIReceiveEvent = {"type": "http.disconnect"}

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Wait if there is no room, unless this is the disconnect. What nobody will read any more is dropped.

        Not a checkpoint while there is room: a request that has come as a whole is parsed as a whole before its task
        runs, so that an early answer does not look like one to an upload that goes on.
        """
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            self._last = message
            self._sender.close()  # also wakes the reader of the connection if it waits for room
            return
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            try:
                self._sender.send_nowait(message)
            except trio.WouldBlock:
                await self._sender.send(message)

    async def receive(self) -> ASGIReceiveEvent:
        """What came first; after the disconnect, the disconnect again."""
        try:
            return await self._receiver.receive()
        except trio.EndOfChannel:
            return self._last

    def close(self) -> None:
        """The request's task has ended: whoever waits for room may go."""
        self._receiver.close()


class AppTasks(TaskGroup):
    """The tasks of one connection.

    Upstream's queue is never closed (hypercorn/trio/task_group.py spawn_app). A connection whose reader waits for
    room in it when the application has answered early waits for ever, and so does every graceful stop. Upstream
    also delivers http.disconnect by waiting for room, from inside the request's own last send.
    """

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        mailbox = Mailbox(config.max_app_queue_size)
        self.spawn(_run_app, mailbox, app, config, scope, send)
        return mailbox.put


async def _run_app(
    mailbox: Mailbox,
    app: AppWrapper,
    config: Config,
    scope: Scope,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
) -> None:
    try:
        await _handle(app, config, scope, mailbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
    finally:
        mailbox.close()
