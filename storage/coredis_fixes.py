"""Defects of coredis 6.9's connection pool that lose its slots, mended. Tests show each on the pool as it is.

A slot is a place for a connection; when all are lost, every command waits until its deadline, for ever. Clients that
leave while we connect to Redis, and a Redis that restarts, lose them one by one.
"""

from typing import Any, TypeVar

from anyio import Event, fail_after
from coredis._concurrency import Queue
from coredis.connection import BaseConnection
from coredis.pool import ConnectionPool

T = TypeVar("T")


class Pool(ConnectionPool[Any]):
    """coredis's pool, whose slots survive cancellation and connections that break."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._available_connections = Slots(self.max_connections)

    async def get_connection(self, **_: Any) -> BaseConnection:
        """Upstream takes a slot, then connects: cancelled in between, it never gives the slot back."""
        with fail_after(self.timeout):
            connection = await self._available_connections.get()
            if connection is None or not connection.reusable:
                connection = await self._replace(connection)
            self.statistics.connection_leased(connection)
            return connection

    def release(self, connection: BaseConnection) -> None:
        """Upstream forgets the slot of a connection that broke while it was lent."""
        super().release(connection)
        if not connection.usable:
            self._available_connections.append_nowait(None)

    async def _replace(self, broken: BaseConnection | None) -> BaseConnection:
        is_made = False
        try:
            if broken is not None:
                broken.invalidate()
            connection: BaseConnection = await self._construct_connection()
            wrap_connection = self._ConnectionPool__wrap_connection  # type: ignore[attr-defined] # upstream's own
            if error := await self.task_group.start(wrap_connection, connection):
                raise error
            is_made = True
        finally:
            if not is_made:
                self._available_connections.append_nowait(None)
        self.statistics.connection_created(connection)
        self._online_connections.add(connection)
        return connection


class Slots(Queue[T]):
    """coredis's stack of slots. Upstream leaves a cancelled waiter's event behind, and then wakes it, not the next."""

    async def get(self) -> T | None:
        while self.empty():
            turn = Event()
            self._getters.append(turn)
            try:
                await turn.wait()
            finally:
                self._leave(turn)
        return self.get_nowait()

    def _leave(self, turn: Event) -> None:
        """One that was woken, and perhaps cancelled meanwhile, wakes the next if there is still something to get."""
        if turn in self._getters:
            self._getters.remove(turn)
        elif not self.empty() and self._getters:
            self._getters.popleft().set()
