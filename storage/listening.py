"""A connection that listens: PostgreSQL tells at once what has changed, whoever changed it.

https://www.postgresql.org/docs/current/sql-listen.html: what was told while nobody listened is lost. So each new
connection means that anything may have changed. A pooler that lends a connection for one transaction passes nothing on:
whoever needs to know looks every so often by itself.
"""

import logging
import random
from dataclasses import dataclass, field

import psycopg
import trio
from psycopg.sql import SQL, Identifier

from storage.postgres import read_conninfo
from storage.psycopg_trio import TrioConnection

BURST_SECONDS = 0.05
"""What is told within so long of the first is told together."""
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 0.5
"""Short, so that also a change right after an outage is seen within a second."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Listener:
    """Listens on one channel, on a connection of its own, which is made anew whenever it is lost."""

    database_url: str = field(repr=False)
    channel: str
    _connection: TrioConnection | None = field(default=None, init=False, repr=False)
    _told: set[str] = field(default_factory=set, init=False, repr=False)
    _failures: int = field(default=0, init=False, repr=False)
    """Since a connection listened."""
    _next_try: float = field(default=float("-inf"), init=False, repr=False)

    async def wait_told(self) -> frozenset[str] | None:
        """The payloads that have come, one or more; None for a new connection, which cannot know what was told before.

        Cancelling it loses none. An outage is logged, once, and outwaited. Raises DatabaseUnavailable if the URL is
        none.
        """
        while True:
            if self._connection is not None:
                try:
                    return await self._gather(self._connection)
                except psycopg.Error as error:
                    self.close_nowait()
                    self._note_lost(error)
            elif await self._try_to_connect():
                return None

    def close_nowait(self) -> None:
        if self._connection is not None:
            self._connection.close_nowait()
            self._connection = None

    async def _gather(self, connection: TrioConnection) -> frozenset[str]:
        if not self._told:
            self._told.update(await connection.wait_notified())
        with trio.move_on_after(BURST_SECONDS):
            while True:
                self._told.update(await connection.wait_notified())
        told = frozenset(self._told)
        self._told.clear()
        return told

    async def _try_to_connect(self) -> bool:
        await trio.sleep_until(self._next_try)
        self._next_try = trio.current_time() + self._find_pause()
        with trio.move_on_after(CONNECT_SECONDS) as scope:
            try:
                self._connection = await self._connect()
            except psycopg.Error as error:
                self._note_lost(error)
                return False
        if scope.cancelled_caught:
            self._note_lost(TimeoutError(f"no answer within {CONNECT_SECONDS:g} seconds"))
            return False
        self._note_listening()
        return True

    async def _connect(self) -> TrioConnection:
        connection = await TrioConnection.connect(read_conninfo(self.database_url))
        listens = False
        try:
            await connection.send(SQL("LISTEN {}").format(Identifier(self.channel)).as_bytes(connection))
            listens = True
        finally:
            if not listens:
                connection.close_nowait()
        return connection

    def _find_pause(self) -> float:
        """Between two tries: twice as long each time, and not the same for all who lost the same server."""
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311 - not for secrets

    def _note_lost(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            extra = {"channel": self.channel, "reason": str(error)}
            logger.warning("nothing listens to PostgreSQL for now: changes are seen later", extra=extra)

    def _note_listening(self) -> None:
        if self._failures:
            logger.info("listening to PostgreSQL again", extra={"channel": self.channel})
        self._failures = 0
