"""What Redis is told of terminals, in the background: the newest state of each, as soon as Redis takes it."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from uuid import UUID

import trio

from server.relay.terminal_desktop import Producer
from server.relay.terminal_route import Route
from storage.errors import StorageError
from storage.terminal_routes import TerminalRecord, TerminalRoutes

RETRY_SECONDS = 2.0
WRITERS = 8
"""So many records are on their way at once: what is written down is not to lag behind what is."""

Key = tuple[UUID, UUID, str]

logger = logging.getLogger(__name__)


class TerminalRecords:
    """One per process. `hear_foreign` is called with a desktop whose terminals turn out to be another process's."""

    def __init__(self, table: TerminalRoutes, instance: str, hear_foreign: Callable[[Producer], None]) -> None:
        self._table = table
        self._instance = instance
        self._hear_foreign = hear_foreign
        self._unwritten: dict[Key, tuple[Producer, TerminalRecord | None]] = {}
        self._filled = trio.Event()
        self._writing: set[Key] = set()
        self._written = trio.Event()
        self._is_redis_away = False

    @property
    def is_behind(self) -> bool:
        return bool(self._unwritten)

    def note_change(self, producer: Producer, route: Route) -> None:
        self._note(producer, route, self._build(producer, route, is_whole=False))

    def note_whole(self, producer: Producer, route: Route) -> None:
        self._note(producer, route, self._build(producer, route, is_whole=True))

    def note_end(self, producer: Producer, route: Route, *, has_lost: bool) -> None:
        """It stays written down if bytes were lost, or if its device still waits."""
        is_kept = has_lost or route.is_live
        self._note(producer, route, self._build(producer, route, is_whole=not has_lost) if is_kept else None)

    async def claim(self, user_id: UUID, producer_id: UUID) -> Sequence[TerminalRecord]:
        """The desktop is here: what is written down of its terminals is this process's, and none is whole; what says
        otherwise is not on its way any more. Raises RedisUnavailable.
        """
        place = (user_id, producer_id)
        for key, (producer, record) in self._unwritten.items():
            if key[:2] == place and record is not None and record.is_whole:
                self._unwritten[key] = (producer, replace(record, is_whole=False))
        while any(key[:2] == place for key in self._writing):
            await self._written.wait()
        return await self._table.claim(user_id, producer_id, self._instance)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return (self._keep_writing,) * WRITERS

    async def _keep_writing(self) -> None:
        while True:
            key = next((key for key in self._unwritten if key not in self._writing), None)
            if key is None:
                await self._filled.wait()
                continue
            try:
                await self._write_one(key)
            except StorageError as error:
                self._note_outage(error)
                await trio.sleep(RETRY_SECONDS)

    def _build(self, producer: Producer, route: Route, *, is_whole: bool) -> TerminalRecord | None:
        consumer = route.consumer
        if consumer is None:
            return None
        who = (consumer.device_id, consumer.connection_id, consumer.instance, consumer.binding)
        return TerminalRecord(
            producer.device_id, route.session_id, self._instance, *who, epoch=route.epoch, is_whole=is_whole
        )

    def _note(self, producer: Producer, route: Route, record: TerminalRecord | None) -> None:
        self._unwritten[producer.user_id, producer.device_id, route.session_id] = (producer, record)
        self._filled.set()
        self._filled = trio.Event()

    async def _write_one(self, key: Key) -> None:
        producer, record = self._unwritten[key]
        self._writing.add(key)
        try:
            await self._write(key, producer, record)
        finally:
            self._writing.discard(key)
            self._written.set()
            self._written = trio.Event()
        self._is_redis_away = False
        if self._unwritten.get(key) == (producer, record):
            del self._unwritten[key]

    async def _write(self, key: Key, producer: Producer, record: TerminalRecord | None) -> None:
        user_id, producer_id, session_id = key
        if record is None:
            await self._table.drop(user_id, producer_id, session_id, self._instance)
        elif not await self._table.save(user_id, record):
            if producer.member is None:
                self._hear_foreign(producer)
            else:  # the desktop is here: it is the other one that does not know
                await self._table.claim(user_id, producer_id, self._instance)
                await self._table.save(user_id, record)

    def _note_outage(self, error: StorageError) -> None:
        if not self._is_redis_away:
            logger.warning("where terminals are is not written down for now", exc_info=error)
        self._is_redis_away = True
