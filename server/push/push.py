"""Notifications on their way to phones: stored, then delivered by whichever process has a turn. In one record."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import trio

from server.push.apns import open_apns
from server.push.delivery import WORKERS, Deliverer
from server.push.fcm import open_fcm
from server.push.outcomes import Sender
from server.push.settings import PushSettings
from storage.deliveries import Deliveries
from storage.errors import StorageError
from storage.notifications import NewNotification, Notifications, Stored
from storage.postgres import Database
from storage.push_tokens import PushPlatform, PushTokens

PURGE_SECONDS = 3600.0

Loop = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Push:
    """A platform that is none of `platforms` is off: nothing is sent to its devices."""

    settings: PushSettings
    notifications: Notifications
    tokens: PushTokens
    deliveries: Deliveries
    deliverers: Mapping[PushPlatform, Deliverer]
    loops: tuple[Loop, ...]
    """Each runs as long as the process."""

    @property
    def platforms(self) -> frozenset[PushPlatform]:
        return frozenset(self.deliverers)

    async def notify(self, user_id: UUID, notification: NewNotification) -> Stored:
        """When this returns it is stored, and nothing will keep it from being delivered in its time. Raises
        StorageError; then it is not known whether it was stored. Safe to repeat with an idempotency key.
        """
        stored = await self.notifications.store(user_id, notification, self.platforms)
        if stored.deliveries:
            for deliverer in self.deliverers.values():
                deliverer.wake()
        return stored


@dataclass(frozen=True, slots=True)
class PushUpkeep:
    """What time does to notifications: those that are old go, and what was not delivered in its time has expired."""

    notifications: Notifications
    deliveries: Deliveries

    async def keep_up(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.run_once()
            except StorageError as error:
                logger.warning("notifications were not purged, and will be in the next round: %s", error)
            await trio.sleep(PURGE_SECONDS)

    async def run_once(self) -> None:
        """Everything that is due. Safe to repeat, and to run on every process at once."""
        while await self.deliveries.expire():
            pass
        while await self.notifications.purge():
            pass


@asynccontextmanager
async def open_push(settings: PushSettings, database: Database) -> AsyncIterator[Push]:
    """Open what talks to Apple and Google, as far as it is configured, and close it at the end. Nobody is asked before
    there is something to send.
    """
    senders: dict[PushPlatform, Sender] = {}
    loops: list[Loop] = []
    async with AsyncExitStack() as stack:
        if settings.apns is not None:
            senders["ios"] = apns = await stack.enter_async_context(open_apns(settings.apns, settings.ca_file))
            loops += apns.loops
        if settings.fcm is not None:
            senders["android"] = fcm = await stack.enter_async_context(open_fcm(settings.fcm, settings.ca_file))
            loops += fcm.loops
        for line, about in describe_services(settings):
            logger.info(line, extra=about)
        yield build_push(settings, database, senders, loops)


def build_push(
    settings: PushSettings, database: Database, senders: Mapping[PushPlatform, Sender], loops: list[Loop]
) -> Push:
    """`loops` are those that the senders need."""
    notifications, deliveries = Notifications(database), Deliveries(database)
    deliverers = {
        platform: Deliverer(platform, sender, deliveries, settings.lease_seconds)
        for platform, sender in senders.items()
    }
    working = [deliverer.keep_delivering for deliverer in deliverers.values() for _ in range(WORKERS)]
    return Push(
        settings=settings,
        notifications=notifications,
        tokens=PushTokens(database),
        deliveries=deliveries,
        deliverers=deliverers,
        loops=(*loops, *working, PushUpkeep(notifications, deliveries).keep_up),
    )


def describe_services(settings: PushSettings) -> Iterator[tuple[str, dict[str, object]]]:
    """A line for each service: whether it is on, and what would turn it on."""
    if settings.apns is None:
        needed = "APNS_TEAM_ID, APNS_KEY_ID, APNS_PRIVATE_KEY, APNS_BUNDLE_ID"
        yield "pushes to iOS are off", {"turned_on_by": needed}
    else:
        about: dict[str, object] = {"environment": settings.apns.environment, "topic": settings.apns.bundle_id}
        yield "pushes to iOS are on", about
    if settings.fcm is None:
        yield "pushes to Android are off", {"turned_on_by": "FCM_SERVICE_ACCOUNT"}
    else:
        yield "pushes to Android are on", {"project": settings.fcm.project_id}
