"""Up to where devices have seen their user's events: written down every few seconds, not for every one of them."""

import logging
from collections import defaultdict
from uuid import UUID

import trio

from storage.errors import RedisUnavailable
from storage.event_stream import EventStream

NOTE_SECONDS = 3.0

logger = logging.getLogger(__name__)


class Cursors:
    """One per process."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._seen: defaultdict[UUID, dict[UUID, int]] = defaultdict(dict)
        self._is_away = False

    def note(self, user_id: UUID, device_id: UUID, event_id: int) -> None:
        seen = self._seen[user_id]
        seen[device_id] = max(event_id, seen.get(device_id, 0))

    async def write(self, user_id: UUID) -> None:
        """What has been noted of this user. While Redis is away, or if cancelled, it waits for the next time."""
        seen, is_written = self._seen.pop(user_id, {}), False
        if not seen:
            return
        try:
            await self._stream.note_cursors(user_id, seen)
            is_written, self._is_away = True, False
        except RedisUnavailable as error:
            self._note_away(error)
        finally:
            for device_id, event_id in () if is_written else seen.items():
                self.note(user_id, device_id, event_id)

    async def keep_noting(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(NOTE_SECONDS)
            for user_id in tuple(self._seen):
                await self.write(user_id)
                if self._is_away:
                    break

    def _note_away(self, error: RedisUnavailable) -> None:
        if not self._is_away:
            logger.warning("it is not noted for now which events devices have seen", extra={"reason": str(error)})
        self._is_away = True
