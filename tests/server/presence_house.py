"""A process's presence, and a connection whose device lives, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import trio

from server.presence import Ending, HeldLink, Presence
from server.presence_pulse import Rhythm
from storage.device_events import DeviceEvents
from storage.errors import DatabaseUnavailable
from storage.notifications import NewNotification
from storage.presence import Link, PresenceTable
from storage.presence_history import PresenceHistory
from storage.redis import Redis

ANN = uuid4()
DESK = uuid4()
QUICK = Rhythm(refresh_seconds=0.02, silence_seconds=60, poll_seconds=0.01, retry_seconds=0.02)


@dataclass(slots=True)
class Marked:
    """Stands where PostgreSQL would be told."""

    devices: list[tuple[UUID, UUID]] = field(default_factory=list)
    is_away: bool = False

    async def mark_offline(self, devices: list[tuple[UUID, UUID]], silent_seconds: float) -> set[tuple[UUID, UUID]]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        self.devices += devices
        return set(devices)


@dataclass(slots=True)
class House:
    """A process: its presence, and what it told of."""

    redis: Redis
    table: PresenceTable
    history: Marked = field(default_factory=Marked)
    pushed: list[tuple[UUID, NewNotification]] = field(default_factory=list)
    is_push_away: bool = False
    presence: Presence = field(init=False)

    def __post_init__(self) -> None:
        history: PresenceHistory = self.history  # type: ignore[assignment] # it stands for PostgreSQL
        self.presence = Presence(self.table, DeviceEvents(self.redis), history, self.notify)

    async def notify(self, user_id: UUID, notification: NewNotification) -> None:
        if self.is_push_away:
            raise DatabaseUnavailable("away")
        self.pushed.append((user_id, notification))


def build_link(*, is_visible: bool = True) -> Link:
    return Link(DESK, uuid4(), "here:1", "desktop", "Studio", is_visible)


async def keep_living(held: HeldLink) -> None:
    """A device that says something all the time."""
    while True:
        held.pulse.note_life()
        await trio.sleep(0.005)


@asynccontextmanager
async def open_alive(
    house: House, link: Link, rhythm: Rhythm = QUICK
) -> AsyncIterator[tuple[HeldLink, trio.MemoryReceiveChannel[Ending]]]:
    """A connection whose device lives; what its heartbeat ends with."""
    send, receive = trio.open_memory_channel[Ending](1)

    async def keep(held: HeldLink) -> None:
        send.send_nowait(await house.presence.keep_alive(held))

    async with house.presence.open_link(ANN, link, rhythm) as held, trio.open_nursery() as nursery:
        nursery.start_soon(keep_living, held)
        nursery.start_soon(keep, held)
        yield held, receive
        nursery.cancel_scope.cancel()


async def wait_for_link(house: House, connection_id: UUID) -> Link:
    with trio.fail_after(10):
        while True:
            link = (await house.presence.list_links(ANN)).get(DESK)
            if link is not None and link.connection_id == connection_id:
                return link
            await trio.sleep(0.01)
