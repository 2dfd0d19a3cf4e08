"""Notifications of those who watch, told as soon as they are stored."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import trio

from server.relay.event_frames import NewEvent
from server.relay.server_events import build_notification_created
from storage.errors import StorageError
from storage.notifications import Notifications
from storage.watched import WatchedUsers

TELL_SECONDS = 2.0
"""The longest that a request waits for it: what it has stored is listed in any case."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotificationWatch:
    watched: WatchedUsers
    notifications: Notifications
    publish: Callable[[UUID, NewEvent], Awaitable[object]]

    async def tell(self, user_id: UUID, notification_id: UUID) -> None:
        """One that has just been stored. Where nobody watches, one question to Redis; where nobody can be told, a line
        in the log.
        """
        try:
            with trio.fail_after(TELL_SECONDS):
                if await self.watched.find([user_id]):
                    await self._tell(user_id, notification_id)
        except (StorageError, trio.TooSlowError) as error:
            logger.warning("a notification was not told to who watches", extra={"reason": str(error)})

    async def _tell(self, user_id: UUID, notification_id: UUID) -> None:
        notification = await self.notifications.find(user_id, notification_id)
        if notification is not None:
            await self.publish(user_id, build_notification_created(notification))
