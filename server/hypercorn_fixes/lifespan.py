"""An application that cannot start, or whose lifespan dies, ends its server."""

from collections.abc import Callable
from typing import Any

import trio
from hypercorn.logging import Logger
from hypercorn.typing import AppWrapper, ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, Scope


class WatchedLifespan:
    """The application, and how its lifespan fared.

    Upstream goes on "without Lifespan support" when the lifespan raises, before startup as well as later
    (hypercorn/trio/lifespan.py handle_lifespan): a server without its pools and loops, which still answers.
    """

    def __init__(self, app: AppWrapper, log: Logger, stop: trio.Event, everything: trio.CancelScope) -> None:
        self.failure: str | None = None
        self._app, self._log = app, log
        self._stop, self._everything = stop, everything
        self._has_started = False
        self._is_stopping = False

    async def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        if scope["type"] != "lifespan":
            return await self._app(scope, receive, send, sync_spawn, call_soon)

        async def receive_and_note() -> ASGIReceiveEvent:
            event = await receive()
            self._is_stopping = event["type"] == "lifespan.shutdown"
            return event

        async def note_and_send(event: ASGISendEvent) -> None:
            self._note(event)
            await send(event)

        try:
            await self._app(scope, receive_and_note, note_and_send, sync_spawn, call_soon)
        except Exception:  # noqa: BLE001 # the edge of the lifespan's task
            await self._note_exception()
        return await self._settle(receive, send)

    def _note(self, event: ASGISendEvent) -> None:
        if event["type"] == "lifespan.startup.complete":
            self._has_started = True
        elif event["type"] in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            self.failure = str(event.get("message") or event["type"])

    async def _note_exception(self) -> None:
        """An announced failure is for the operator to read, and comes back from `send` as an exception too."""
        if self.failure is None:
            self.failure = "The application's lifespan failed: its traceback is above."
            await self._log.exception("Lifespan failed")

    async def _settle(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if self._is_stopping:
            return
        self.failure = self.failure or "The application's lifespan ended before the server did."
        if not self._has_started:
            self._everything.cancel()
            await trio.sleep_forever()
        self._stop.set()
        await receive()  # lifespan.shutdown, when the requests have ended
        await send({"type": "lifespan.shutdown.complete"})
