"""The links of a user's devices, on whichever process, as this one knows them; and which desktop is the primary one.

Remembered until a message on the user's channel says that a link has changed; read anew then. Links of processes that
are gone do not count, and are ended, for nobody else does. While Redis is away, only this process's own members are
known.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

import trio

from server.presence import Presence
from server.relay.bridge import Bridge
from server.relay.channels import Channels
from server.relay.hub import Hub
from server.relay.member import Member
from storage.errors import RedisUnavailable
from storage.presence import Link

KNOWN_SECONDS = 30.0
"""What is remembered holds for so long, if nobody says otherwise: should a message ever be lost."""
AWAY_SECONDS = 1.0
"""While Redis is away it is asked so often."""
RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """Of one user. `links` as they were read, until `until`. `reading` is set when who reads them now has done so."""

    links: Mapping[UUID, Link] | None = None
    until: float = 0.0
    reading: trio.Event | None = None


class Roster:
    """One per process. To be made before whoever else hears of `links`, which is to find them read anew."""

    def __init__(
        self,
        presence: Presence,
        hub: Hub,
        bridge: Bridge,
        channels: Channels,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._presence = presence
        self._hub = hub
        self._bridge = bridge
        self._clock = clock
        self._known: dict[UUID, _Known] = {}
        self._away_until = -float("inf")
        self._gone: set[str] = set()
        """Processes whose links are yet to be ended."""
        self._bell = trio.Event()
        channels.hear("links", self._hear_links)
        channels.hear_lost(self._hear_lost)
        hub.hear_leaving(self._note_leaving)
        bridge.hear_gone(self._note_gone)
        bridge.hear_written_off(self._note_written_off)

    async def list(self, user_id: UUID) -> Mapping[UUID, Link]:
        """Those that live, by device. Not a checkpoint while they are remembered."""
        known = await self._find(user_id)
        if known is None:
            return {member.device_id: self._build_link(member) for member in self._hub.list(user_id)}
        links = {device_id: link for device_id, link in known.items() if self._bridge.is_alive(link.instance)}
        for member in self._hub.list(user_id):
            if member.device_id not in links:
                self._add_unlisted(links, member)
        return links

    async def find(self, user_id: UUID, device_id: UUID) -> Link | None:
        return (await self.list(user_id)).get(device_id)

    async def find_primary(self, user_id: UUID) -> Link | None:
        """The desktop that registered anew last, of those that are visible. It stays so through its grace: a link lives
        for some seconds after its connection.
        """
        links = (await self.list(user_id)).values()
        desktops = [link for link in links if link.client_type == "desktop" and link.is_visible]
        return max(desktops, key=lambda link: (link.fresh_at, link.device_id), default=None)

    def note_changed(self, user_id: UUID) -> None:
        """What is remembered of this user holds no more."""
        self._known.pop(user_id, None)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        """Ends links of processes that are gone."""
        return (self._keep_abandoning,)

    async def _find(self, user_id: UUID) -> Mapping[UUID, Link] | None:
        """As they were read; None while Redis is away."""
        while not self._is_away:
            known = self._known.setdefault(user_id, _Known())
            if known.links is not None and self._clock() < known.until:
                return known.links
            if known.reading is None:
                return await self._read(user_id, known)
            await known.reading.wait()
        return None

    @property
    def _is_away(self) -> bool:
        return self._bridge.is_away or self._clock() < self._away_until

    async def _read(self, user_id: UUID, known: _Known) -> Mapping[UUID, Link] | None:
        """Whoever asks meanwhile waits, unless links change: then it reads for itself."""
        known.reading = trio.Event()
        try:
            known.links = await self._presence.read_links(user_id)
            known.until = self._clock() + KNOWN_SECONDS
            return known.links
        except RedisUnavailable:
            self._away_until = self._clock() + AWAY_SECONDS
            return None
        finally:
            known.reading.set()
            known.reading = None
            self._forget_strangers(user_id, known)

    def _forget_strangers(self, user_id: UUID, known: _Known) -> None:
        """Nobody tells us of changes to the links of those who have no socket here."""
        if self._known.get(user_id) is known and (known.links is None or not self._hub.list(user_id)):
            del self._known[user_id]

    def _add_unlisted(self, links: dict[UUID, Link], member: Member) -> None:
        """It has a socket here, and Redis knows of no link: that was never entered, is lost, or was dropped."""
        if member.held.has_entered:
            member.held.refresh_soon()
        else:
            links[member.device_id] = self._build_link(member)

    def _build_link(self, member: Member) -> Link:
        return replace(member.held.link, instance=self._bridge.instance, fresh_at=member.fresh_at)

    async def _hear_links(self, user_id: UUID, _: bytes) -> None:
        self.note_changed(user_id)

    async def _hear_lost(self, user_id: UUID) -> None:
        self.note_changed(user_id)

    def _note_leaving(self, member: Member) -> None:
        if not self._hub.list(member.user_id):
            self.note_changed(member.user_id)

    def _note_written_off(self) -> None:
        """Others have ended our links, or Redis has forgotten them."""
        for member in self._hub.members.values():
            member.held.refresh_soon()

    def _note_gone(self, instance: str) -> None:
        self._gone.add(instance)
        self._bell.set()

    async def _keep_abandoning(self) -> None:
        while True:
            await self._bell.wait()
            try:
                await self._abandon(frozenset(self._gone))
            except RedisUnavailable:
                await trio.sleep(RETRY_SECONDS)
                continue
            if not self._gone:
                self._bell = trio.Event()

    async def _abandon(self, instances: frozenset[str]) -> None:
        """Of users that have a socket here; links of others end by their time. Raises RedisUnavailable."""
        for user_id in {member.user_id for member in self._hub.members.values()}:
            links = await self._find(user_id)
            if links is None:
                raise RedisUnavailable("it is not known whose links are to be ended")
            for link in links.values():
                if link.instance in instances and not self._bridge.is_alive(link.instance):
                    await self._presence.abandon(user_id, link)
        self._gone -= instances
