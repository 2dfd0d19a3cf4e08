"""What a device tells of itself on its socket, written down in PostgreSQL behind its back: one at a time, the newest of
each kind, so that a device that tells much, or a database that is slow, keeps nobody waiting.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from storage.errors import StorageError

NOTE_SECONDS = 10.0
"""Also the end of its socket waits for it: what a device says last, as that it is not to be reached, counts."""

Note = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)


class DeviceNotes:
    """Of one socket; its task runs in the nursery that it is given, while there is something to write."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._waiting: dict[str, Note] = {}
        self._is_writing = False

    def put(self, kind: str, note: Note) -> None:
        """Takes the place of one of this kind that still waits. Safe to repeat must be what it does."""
        self._waiting[kind] = note
        if not self._is_writing:
            self._is_writing = True
            self._nursery.start_soon(self._write)

    async def _write(self) -> None:
        try:
            while self._waiting:
                kind = next(iter(self._waiting))
                await self._write_one(kind, self._waiting.pop(kind))
        finally:
            self._is_writing = False

    async def _write_one(self, kind: str, note: Note) -> None:
        try:
            with trio.fail_after(NOTE_SECONDS, shield=True):
                await note()
        except (StorageError, trio.TooSlowError) as error:
            logger.warning("what a device told of itself was not noted", extra={"kind": kind, "reason": str(error)})
        except Exception:  # the edge of the task
            logger.exception("what a device told of itself was not noted, by our own fault", extra={"kind": kind})
