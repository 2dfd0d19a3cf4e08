"""Whether Redis is away, as this process has noticed: told in the log once, and not asked again at every request."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from storage.errors import RedisUnavailable

PAUSE_SECONDS = 1.0
"""After a failure nobody waits for Redis for this long; then one request tries it, and no other waits for that."""
PROBE_SECONDS = 1.0
"""The longest that the one which tries waits: not the whole deadline again, for what it asks is likely to be away."""
AWAY = "Redis is away"

logger = logging.getLogger(__name__)


class Outage:
    """Wrap what asks Redis in `watch()`: it fails at once while Redis is known to be away. Blocks are not nested."""

    def __init__(self) -> None:
        self.is_on = False
        self._try_at = 0.0
        self._outages = 0
        """So far."""

    @contextmanager
    def watch(self, *, is_read: bool = False) -> Iterator[None]:
        """Raises RedisUnavailable, from the block or instead of it. A block that only reads is not the one that tries:
        a Redis that is full, or has become a replica, would answer it, and takes no draw.
        """
        if self.is_on:
            if is_read:
                raise RedisUnavailable(AWAY)
            with self._probe():
                yield
            return
        outages = self._outages
        try:
            yield
        except RedisUnavailable as error:
            if outages == self._outages:  # else it asked before an outage that has been noticed, or is over
                self._begin(str(error))
            raise

    def has_told(self, error: Exception) -> bool:
        """The error is of the outage that goes on: it need not be told again for each request."""
        return self.is_on and isinstance(error, RedisUnavailable)

    @contextmanager
    def _probe(self) -> Iterator[None]:
        """Only this ends an outage: what was asked before it, and is answered late, says nothing of now."""
        if trio.current_time() < self._try_at:
            raise RedisUnavailable(AWAY)
        self._try_at = math.inf
        try:
            with trio.move_on_after(PROBE_SECONDS) as scope:
                yield
                self._end()
            if scope.cancelled_caught:
                raise RedisUnavailable("Redis is still away")
        finally:
            self._try_at = trio.current_time() + PAUSE_SECONDS

    def _begin(self, reason: str) -> None:
        self.is_on = True
        self._outages += 1
        self._try_at = trio.current_time() + PAUSE_SECONDS
        logger.error(
            "Redis is away: reading goes on within a bound for each process, money and sign-in are closed",
            extra={"reason": reason},
        )

    def _end(self) -> None:
        self.is_on = False
        logger.warning("Redis is back: everything is open again")
