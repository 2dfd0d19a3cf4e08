"""Sockets that have ended and are not over yet: a device has some seconds to be back before anybody hears that it left.

Its connection is long closed by then, and its task gone; what is left is the link, which is given back here.
"""

import logging
from contextlib import AsyncExitStack

import trio

logger = logging.getLogger(__name__)


class Departures:
    """One per process."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self.waiting = 0
        """So many links are in their grace."""

    async def take(self, stack: AsyncExitStack) -> None:
        """What is to be closed, which may take some seconds. Waits for it only where the loop does not run any more."""
        self.waiting += 1
        if self._nursery is None:
            await self._close(stack)
        else:
            self._nursery.start_soon(self._close, stack)

    async def keep_leaving(self) -> None:
        """Never returns."""
        async with trio.open_nursery() as departures:
            self._nursery = departures
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _close(self, stack: AsyncExitStack) -> None:
        try:
            await stack.aclose()
        except Exception:  # the edge of the task
            logger.exception("a device's link was not given back")
        finally:
            self.waiting -= 1
