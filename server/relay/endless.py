"""Loops of the relay, which serve everybody: what went wrong for one ends neither the loop nor the server."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio

AGAIN_SECONDS = 0.25

Loop = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)


def make_endless(loops: Iterable[Loop]) -> tuple[Loop, ...]:
    """Each begins anew when it breaks off: it must be safe to do so."""
    return tuple(partial(_go_on, loop) for loop in loops)


async def _go_on(loop: Loop) -> None:
    while True:
        try:
            await loop()
        except Exception:  # the edge of the task
            logger.exception("a loop of the relay broke off, and begins anew")
        await trio.sleep(AGAIN_SECONDS)
