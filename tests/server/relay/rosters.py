"""Rosters of processes over a real Redis, for tests; what else a process has is only as much as they need."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import trio

from server.relay.bridge import Bridge
from server.relay.channels import Channels, open_channels
from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.roster import Roster
from storage.errors import RedisUnavailable
from storage.presence import Link, PresenceTable
from storage.redis import open_redis
from tests.server.presence_house import ANN, House
from tests.server.relay.members import build_member, hold


@dataclass(eq=False, slots=True)
class Neighbours:
    """Stands where the bridge is asked who lives. The test says who does."""

    instance: str
    is_away: bool = False
    dead: set[str] = field(default_factory=set)
    gone: list[Callable[[str], None]] = field(default_factory=list)
    written_off: list[Callable[[], None]] = field(default_factory=list)

    def is_alive(self, instance: str) -> bool:
        return instance not in self.dead

    def hear_gone(self, listener: Callable[[str], None]) -> None:
        self.gone.append(listener)

    def hear_written_off(self, listener: Callable[[], None]) -> None:
        self.written_off.append(listener)

    def kill(self, instance: str) -> None:
        self.dead.add(instance)
        for listener in self.gone:
            listener(instance)


@dataclass(eq=False, slots=True)
class Home:
    """One process. `reads` are how often it has asked Redis for links."""

    house: House
    hub: Hub
    neighbours: Neighbours
    channels: Channels
    roster: Roster
    stack: ExitStack
    reads: int = 0
    fails: bool = False

    @property
    def table(self) -> PresenceTable:
        return self.house.table

    async def enter(self, link: Link, user_id: UUID = ANN) -> Member:
        """A device that is connected here."""
        member = build_member(hold(user_id, link))
        await self.table.enter(user_id, link)
        self.admit(member)
        return member

    def admit(self, member: Member) -> None:
        self.stack.enter_context(self.hub.admit(member))

    async def list(self, user_id: UUID = ANN) -> set[UUID]:
        return set(await self.roster.list(user_id))


@asynccontextmanager
async def open_home(redis_url: str, instance: str = "here") -> AsyncIterator[Home]:
    async with open_redis(redis_url) as redis, open_channels(redis_url) as channels, trio.open_nursery() as nursery:
        house, hub, neighbours = House(redis, PresenceTable(redis)), Hub(), Neighbours(instance)
        bridge: Bridge = neighbours  # type: ignore[assignment] # it has what a roster asks of it
        roster = Roster(house.presence, hub, bridge, channels)
        home = Home(house, hub, neighbours, channels, roster, ExitStack())
        _count_reads(home)
        for loop in (*channels.loops, *roster.loops):
            nursery.start_soon(loop)
        async with channels.keep(ANN):
            with home.stack:
                yield home
        nursery.cancel_scope.cancel()


def _count_reads(home: Home) -> None:
    read_links = home.house.presence.read_links

    async def read(user_id: UUID) -> Mapping[UUID, Link]:
        home.reads += 1
        if home.fails:
            raise RedisUnavailable("away")
        return await read_links(user_id)

    home.house.presence.read_links = read  # type: ignore[method-assign] # to count
