"""A desktop and a phone that has bound one of its terminals: what most tests of terminals begin with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from tests.server.relay.terminal_devices import PING, Desktop, Phone
from tests.server.relay.terminal_town import DESK, PHONE, House, Town, bind, open_town

KIB = 1024
MIB = 1024 * 1024
LOCAL, REMOTE = ("one", "one"), ("one", "two")


@dataclass
class Scene:
    """`spare` is a process without devices. `snapshots` are those after the first bind."""

    town: Town
    desk_house: House
    phone_house: House
    spare: House
    desktop: Desktop
    phone: Phone

    @property
    def got(self) -> bytes:
        return bytes(self.phone.got["t-1"])

    @property
    def said(self) -> bytes:
        return bytes(self.desktop.sessions["t-1"].said)

    @property
    def heard(self) -> list[str]:
        """What the desktop was told: kinds."""
        return [kind for kind, _ in self.desktop.heard]

    @property
    def is_whole(self) -> bool:
        """Every byte has come, once, and no snapshot stands in for any."""
        return self.got == self.said and self.desktop.snapshots == 0

    @property
    def waiting_bytes(self) -> int:
        return sum(house.terminals.waiting_bytes for house in self.town.houses.values())

    async def say(self, data: bytes, session_id: str = "t-1") -> None:
        self.desktop.say(session_id, data)
        await self.town.settle()

    async def connect_phone(self, house: House, *, include_snapshot: bool = False) -> None:
        """Back, reading, and bound again."""
        await house.connect(self.phone, PHONE)
        self.phone.is_reading = self.phone.has_pongs = True
        await bind(self.phone, include_snapshot=include_snapshot)
        await self.town.settle()

    async def connect_desktop(self, house: House) -> None:
        """While letters are delivered, for the new process asks the one before."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.town.keep_settling)
            await house.connect(self.desktop, DESK)
            nursery.cancel_scope.cancel()
        await self.town.settle()


@asynccontextmanager
async def open_scene(names: tuple[str, str], *, ignores_unbind: bool = False) -> AsyncIterator[Scene]:
    """On processes of these names: the desktop's, the phone's."""
    async with open_town(*dict.fromkeys((*names, "spare"))) as town:
        desk_house, phone_house, spare = (town.houses[name] for name in (*names, "spare"))
        desktop = town.add_desktop(ignores_unbind=ignores_unbind)
        scene = Scene(town, desk_house, phone_house, spare, desktop, town.add_phone())
        await desk_house.connect(scene.desktop, DESK)
        await phone_house.connect(scene.phone, PHONE)
        await bind(scene.phone, include_snapshot=True)
        await town.settle()
        scene.desktop.snapshots = 0
        yield scene


def take_confirmed(phone: Phone, size_bytes: int) -> None:
    """So much off the wire, and on to a ping that it answers."""
    assert phone.connection is not None
    phone.take(size_bytes)
    phone.connection.pull()
    while phone.connection.wire[0][0] != PING:
        phone.take(1)
    phone.take(1)
