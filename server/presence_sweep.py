"""Devices that are gone without a word: noticed, written down and told once, whichever process comes first."""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import trio

from storage.errors import StorageError
from storage.presence import PresenceTable
from storage.presence_history import FIRST, DeviceKey, PresenceHistory, SilentDevice

PERIOD_SECONDS = 30.0
PURGE_PERIOD_SECONDS = 3600.0
SILENCE_SECONDS = 120.0
"""A device without a link that has not been heard of for so long is offline."""
HEARD_SECONDS = 60.0
"""A device whose link has expired and which was heard of since then, over HTTP, is there. Less than a link holds."""
HISTORY_DAYS = 30
BATCH = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PresenceSweep:
    table: PresenceTable
    history: PresenceHistory
    heard_seconds: float = HEARD_SECONDS

    async def keep_sweeping(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(vary(PERIOD_SECONDS))
            await _try(self.sweep, "devices that are gone were not looked for")

    async def keep_purged(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(vary(PURGE_PERIOD_SECONDS))
            await _try(self.purge, "old presence history was not dropped")

    async def sweep(self) -> None:
        """Safe to repeat, and to run on every process at once. Raises StorageError: without Redis nobody is offline."""
        await self.expire_links()
        if await self.table.is_settled():
            await self.mark_silent()

    async def expire_links(self) -> None:
        """What has expired and could not be written down is found silent later."""
        is_all = False
        while not is_all:
            expired = await self.table.expire(BATCH)
            is_all = expired.is_all
            if expired.gone:
                keys = [(one.user_id, one.link.device_id) for one in expired.gone]
                await self.history.mark_offline(keys, self.heard_seconds)
                logger.info("links have expired", extra={"links": len(keys)})

    async def mark_silent(self) -> None:
        after = FIRST
        while silent := await self.history.find_silent(SILENCE_SECONDS, BATCH, after):
            await self._mark_silent(silent)
            after = silent[-1].key

    async def purge(self) -> None:
        while await self.history.purge(HISTORY_DAYS):
            pass

    async def _mark_silent(self, silent: Sequence[SilentDevice]) -> None:
        linked = await self._find_linked(silent)
        alone = [device for device in silent if device.key not in linked]
        marked = await self.history.mark_offline([device.key for device in alone], SILENCE_SECONDS) if alone else set()
        for device in alone:
            if device.key in marked:
                await self.table.tell_silent(device.user_id, device.device_id, device.last_heartbeat)

    async def _find_linked(self, silent: Sequence[SilentDevice]) -> set[DeviceKey]:
        """One question for each user."""
        linked: set[DeviceKey] = set()
        for user_id, _ in groupby(silent, key=lambda device: device.user_id):
            linked |= {(user_id, device_id) for device_id in await self.table.list(user_id)}
        return linked


async def _try(work: Callable[[], Awaitable[object]], problem: str) -> None:
    try:
        await work()
    except StorageError as error:
        logger.warning("%s; the next round tries again: %s", problem, error)


def vary(seconds: float) -> float:
    """Processes that were started together do not stay together."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
