"""Which devices are connected, as routes and sockets know it, and how a socket holds its device's link.

While Redis is away sockets stay, nobody is told to be offline, and lists show nobody connected. A link that was lost
meanwhile is entered again by whoever holds it.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import trio

from server.presence_pulse import Pulse, Rhythm
from server.times import show_exact_time
from storage.device_events import DeviceEvents
from storage.errors import RedisUnavailable, StorageError
from storage.notifications import NewNotification
from storage.presence import Entered, Link, PresenceTable, Standing
from storage.presence_history import PresenceHistory
from storage.redis import COMMAND_SECONDS

Ending = Literal["silent", "replaced", "dropped"]
Notify = Callable[[UUID, NewNotification], Awaitable[object]]

GRACE_SECONDS = 4.0
"""So long a device whose connection has ended may take to be back before anybody is told."""
ABANDONED_SECONDS = 10.0
"""A device whose process is gone, and which was heard of since then, over HTTP, is there."""
LEAVE_SECONDS = 5.0
AWAY_ANSWER_SECONDS = 0.2
"""The longest that a request waits for a Redis that is known to be away. It is asked nevertheless: it may be back."""

BACK_AFTER_SECONDS = 60
"""A desktop that was away for longer is back, and phones are told by a silent push,"""
ANNOUNCE_EVERY_SECONDS = 600
"""once within this time, in which it also has to arrive."""
ANNOUNCE_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class HeldLink:
    """A device's link as its connection holds it. `replaced` is the link of another connection that ended with it, and
    `away_seconds` how long the device had none; both are unknown as long as the link has not been entered. A device
    that will not be back has no use for `grace_seconds`: its connection's owner sets them to 0.
    """

    user_id: UUID
    link: Link
    pulse: Pulse
    grace_seconds: float
    standing: Standing = "kept"
    replaced: Link | None = None
    away_seconds: float | None = None
    has_entered: bool = False
    is_back: bool = False
    """A desktop that phones are yet to be told of."""
    woken: trio.Event = field(default_factory=trio.Event, repr=False)

    def refresh_soon(self) -> None:
        """Its link may be lost, and is not to wait for its turn to be entered again. Needs `keep_alive` to run."""
        self.pulse.note_doubt()
        self.woken.set()


class Presence:
    """One per process."""

    def __init__(
        self,
        table: PresenceTable,
        events: DeviceEvents,
        history: PresenceHistory,
        notify: Notify,
        is_alive: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """`is_alive` says whether a process is there: links of one that is not do not count."""
        self._is_alive = is_alive
        self._table = table
        self._events = events
        self._history = history
        self._notify = notify
        self._is_redis_away = False

    async def list_links(self, user_id: UUID) -> Mapping[UUID, Link]:
        """The links that live, by device. Empty while Redis is away."""
        try:
            links = await self.read_links(user_id)
        except RedisUnavailable:
            return {}
        return {device_id: link for device_id, link in links.items() if self._is_alive(link.instance)}

    async def read_links(self, user_id: UUID) -> Mapping[UUID, Link]:
        """Also those of processes that are gone. Raises RedisUnavailable."""
        try:
            with trio.fail_after(self._answer_seconds):
                links = await self._table.list(user_id)
        except (RedisUnavailable, trio.TooSlowError) as error:
            self._note_outage(error)
            raise RedisUnavailable("it is not known who is connected") from error
        self._is_redis_away = False
        return links

    async def abandon(self, user_id: UUID, link: Link) -> None:
        """Its process is gone. Peers hear once that it is disconnected, whoever says so. Raises RedisUnavailable."""
        if await self._table.abandon(user_id, link.device_id, link.connection_id):
            try:
                await self._history.mark_offline([(user_id, link.device_id)], ABANDONED_SECONDS)
            except StorageError:  # the sweep finds the silent device
                logger.warning("a device whose process is gone was not marked as offline", exc_info=True)

    async def drop(self, user_id: UUID, device_id: UUID) -> bool:
        """A device that was unlinked has no link any more, until it connects anew; its connection is not closed. False
        if there was none, or if Redis is away: then one that lives goes on, until it is dropped again.
        """
        try:
            return await self._table.drop(user_id, device_id)
        except RedisUnavailable as error:
            self._note_outage(error)
            return False

    async def tell(self, user_id: UUID, event_type: str, payload: Mapping[str, object]) -> None:
        """To all devices of the user that are connected now. While Redis is away nobody hears of it."""
        try:
            with trio.fail_after(self._answer_seconds):
                await self._events.publish(user_id, event_type, payload)
        except (RedisUnavailable, trio.TooSlowError) as error:
            self._note_outage(error)

    @asynccontextmanager
    async def open_link(self, user_id: UUID, link: Link, rhythm: Rhythm | None = None) -> AsyncIterator[HeldLink]:
        """The device is linked for as long as the block lasts, with `keep_alive` running in a task of its own, and for
        some seconds more, in which it may connect anew without anybody hearing of it. Another connection of it is
        replaced; what that one does at its end changes nothing. While Redis is away the link is not entered, and
        `keep_alive` enters it later. A device may be unlinked before its link is entered: only in the block is it
        certain whether it is registered.
        """
        held = HeldLink(user_id, link, Pulse(rhythm or Rhythm()), GRACE_SECONDS)
        try:
            await self._enter_or_wait(held)
            yield held
        finally:
            with trio.move_on_after(held.grace_seconds + LEAVE_SECONDS, shield=True):
                await self._leave(held)

    async def keep_alive(self, held: HeldLink) -> Ending:
        """Refresh the link while its device shows life; returns when its connection is to end, and why.

        `dropped`: the device was unlinked; whether its connection ends then is its owner's to decide.
        """
        while True:
            if held.is_back:
                await self._announce(held)
            match held.pulse.next_step():
                case "silent":
                    return "silent"
                case "wait":
                    held.woken = trio.Event()
                    with trio.move_on_after(held.pulse.seconds_to_wait()):
                        await held.woken.wait()
                case "refresh":
                    standing = await self._refresh(held)
                    if standing == "replaced" or standing == "dropped":  # noqa: PLR1714 - mypy narrows by `==` alone
                        return standing

    async def set_visible(self, held: HeldLink, *, is_visible: bool) -> None:
        """Whether the device may be reached: one that is not visible is offline to its peers. Raises RedisUnavailable;
        a link that is lost meanwhile comes back as it was asked for.
        """
        link = held.link = replace(held.link, is_visible=is_visible)
        await self._table.set_visible(held.user_id, link.device_id, link.connection_id, is_visible=is_visible)

    @property
    def _answer_seconds(self) -> float:
        return AWAY_ANSWER_SECONDS if self._is_redis_away else COMMAND_SECONDS

    async def _enter_or_wait(self, held: HeldLink) -> None:
        try:
            await self._enter(held)
        except RedisUnavailable as error:
            held.pulse.note_failure()
            self._note_outage(error)

    async def _enter(self, held: HeldLink) -> None:
        _note_entered(held, await self._table.enter(held.user_id, held.link))
        self._is_redis_away = False

    async def _refresh(self, held: HeldLink) -> Standing:
        """`kept` also while Redis is away: a device that lives keeps its connection."""
        asked_at = held.pulse.now()
        try:
            held.standing = await self._show_life(held)
        except RedisUnavailable as error:
            held.pulse.note_failure()
            self._note_outage(error)
            return "kept"
        self._is_redis_away = False
        held.pulse.note_refresh(asked_at)
        return held.standing

    async def _show_life(self, held: HeldLink) -> Standing:
        if held.has_entered:
            standing = await self._table.touch(held.user_id, held.link)
            if standing != "lost":
                return standing
        entered = await self._table.resume(held.user_id, held.link, held.pulse.open_seconds)
        if not held.has_entered and entered.standing == "kept":
            _note_entered(held, entered)
        if held.link.is_visible != entered.link.is_visible:  # asked for meanwhile, and perhaps too early for the link
            await self.set_visible(held, is_visible=held.link.is_visible)
        return entered.standing

    async def _leave(self, held: HeldLink) -> None:
        """What fails here is made good by time: the link expires, and the sweep finds the silent device. One that has
        registered in the grace, and is about to connect, is not marked.
        """
        if held.standing != "kept":
            return
        user_id, device_id = held.user_id, held.link.device_id
        await trio.sleep(held.grace_seconds)
        try:
            if await self._table.leave(user_id, device_id, held.link.connection_id):
                await self._history.mark_offline([(user_id, device_id)], held.grace_seconds)
        except RedisUnavailable as error:
            self._note_outage(error)
        except StorageError:
            logger.warning("a device that has left was not marked as offline", exc_info=True)

    async def _announce(self, held: HeldLink) -> None:
        """At most once, whatever becomes of it: a push that wakes phones for nothing is worse than none."""
        held.is_back = False
        user_id, device_id = held.user_id, held.link.device_id
        try:
            with trio.fail_after(ANNOUNCE_SECONDS):
                if await self._table.claim_announcement(user_id, device_id, ANNOUNCE_EVERY_SECONDS):
                    await self._notify(user_id, build_announcement(datetime.now(UTC)))
        except (StorageError, trio.TooSlowError):
            logger.warning("phones were not told that a desktop is back", exc_info=True)

    def _note_outage(self, error: Exception) -> None:
        if not self._is_redis_away:
            logger.warning("presence is not known for now: nobody is shown as connected", exc_info=error)
        self._is_redis_away = True


def _note_entered(held: HeldLink, entered: Entered) -> None:
    """The rest of the link may have been changed while it was entered."""
    held.link = replace(held.link, connected_at=entered.link.connected_at)
    held.replaced, held.away_seconds = entered.replaced, entered.away_seconds
    held.has_entered = True
    held.is_back = is_back(entered.link, entered.away_seconds)


def is_back(link: Link, away_seconds: float | None) -> bool:
    """A desktop that can be reached again. One that was never there has not come back."""
    was_away = away_seconds is not None and away_seconds > BACK_AFTER_SECONDS
    return was_away and link.is_visible and link.client_type == "desktop"


def build_announcement(at: datetime) -> NewNotification:
    return NewNotification(
        kind="desktop_online",
        job_id=None,
        title="",
        body="",
        custom_data={"type": "desktop_online", "timestamp": show_exact_time(at)},
        is_silent=True,
        deliver_within_seconds=ANNOUNCE_EVERY_SECONDS,
    )
