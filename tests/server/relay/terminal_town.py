"""Processes with desktops and phones: real hubs, outboxes and terminals, with letters, links and records in memory."""

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import trio
import trio.testing

from server.presence import HeldLink
from server.presence_pulse import Pulse, Rhythm
from server.relay.bridge import Bridge, Handler, Letter
from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.messages import Bind
from server.relay.outbox import Outbox
from server.relay.roster import Roster
from server.relay.terminals import Terminals
from storage.errors import RedisUnavailable
from storage.presence import ClientType, Link
from storage.terminal_routes import TerminalRecord, TerminalRoutes
from tests.server.relay.terminal_devices import Connection, Desktop, Phone

ANN = UUID("11111111-1111-4111-8111-111111111111")
PHONE = UUID("a2a2a2a2-0000-4000-8000-00000000000a")
OTHER_PHONE = UUID("a3a3a3a3-0000-4000-8000-00000000000a")
DESK = UUID("d1d1d1d1-0000-4000-8000-00000000000d")


class Records:
    """What Redis would keep."""

    def __init__(self) -> None:
        self.kept: dict[tuple[UUID, str], TerminalRecord] = {}
        self.is_away: list[bool] = []
        self.saves = 0

    async def save(self, user_id: UUID, record: TerminalRecord) -> bool:
        await self._ask()
        self.saves += 1
        key = (record.producer_id, record.session_id)
        if key in self.kept and self.kept[key].owner != record.owner:
            return False
        self.kept[key] = record
        return True

    async def claim(self, user_id: UUID, producer_id: UUID, owner: str) -> Sequence[TerminalRecord]:
        await self._ask()
        found = [record for record in self.kept.values() if record.producer_id == producer_id]
        for record in found:
            self.kept[producer_id, record.session_id] = replace(record, owner=owner, is_whole=False)
        return found

    async def list(self, user_id: UUID) -> Sequence[TerminalRecord]:
        await self._ask()
        return list(self.kept.values())

    async def find(self, user_id: UUID, producer_id: UUID, session_id: str) -> TerminalRecord | None:
        await self._ask()
        return self.kept.get((producer_id, session_id))

    async def drop(self, user_id: UUID, producer_id: UUID, session_id: str, owner: str) -> bool:
        await self._ask()
        record = self.kept.get((producer_id, session_id))
        if record is None or record.owner != owner:
            return False
        del self.kept[producer_id, session_id]
        return True

    async def _ask(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise RedisUnavailable("away")


class Town:
    """`links` are those of Ann's devices; her desktop's comes first."""

    def __init__(self) -> None:
        self.houses: dict[str, House] = {}
        self.links: dict[UUID, Link] = {}
        self.letters: deque[tuple[str, Letter, msgspec.Struct]] = deque()
        self.records = Records()
        self.desktops: list[Desktop] = []
        self.phones: list[Phone] = []
        self.connections: list[Connection] = []
        self.user_id = ANN
        self.connected_at = 0
        self.sent: Counter[str] = Counter()
        """Letters, by kind."""
        self.asleep: set[str] = set()
        """Processes that are given no letters; they wait."""
        self.is_away = False
        """Letters cannot leave."""
        self.is_cut_off = False
        """Letters are lost, and nobody knows."""

    def add_desktop(self, *, ignores_unbind: bool = False) -> Desktop:
        self.desktops.append(Desktop(ignores_unbind=ignores_unbind))
        return self.desktops[-1]

    def add_phone(self) -> Phone:
        self.phones.append(Phone())
        return self.phones[-1]

    @property
    def devices(self) -> "list[Desktop | Phone]":
        return [*self.desktops, *self.phones]

    async def settle(self) -> None:
        """Until no letter is on its way, nobody has anything to say, and everybody waits."""
        is_busy = True
        while is_busy:
            await trio.testing.wait_all_tasks_blocked()
            is_busy = await self.deliver()
            for device in self.devices:
                is_busy |= device.listen()

    async def wait_a_moment(self) -> None:
        await trio.sleep(0.1)

    @asynccontextmanager
    async def while_settling(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_settling)
            yield
            nursery.cancel_scope.cancel()
        await self.settle()

    async def keep_settling(self) -> None:
        while True:
            await self.settle()
            await self.wait_a_moment()

    async def deliver(self) -> bool:
        """The letters that are on their way now."""
        letters, self.letters = self.letters, deque()
        is_busy = False
        for instance, letter, body in letters:
            if instance in self.asleep:
                self.letters.append((instance, letter, body))
            elif instance in self.houses:
                is_busy = True
                await self.houses[instance].bridge.receive(letter, body)
        return is_busy

    def kill(self, name: str) -> None:
        """Its sockets end, the others learn of it at once."""
        house = self.houses.pop(name)
        house.scope.cancel()
        for device in self.devices:
            if device.connection is not None and device.connection.terminals is house.terminals:
                self.links.pop(device.connection.member.device_id, None)
                device.lose_link()
        for other in self.houses.values():
            other.lose(name)


class House:
    """A process."""

    def __init__(self, town: Town, name: str) -> None:
        self.town = town
        self.name = name
        self.hub = Hub()
        self.bridge = TownBridge(town, name)
        table = cast(TerminalRoutes, town.records)
        self.terminals = Terminals(self.hub, TownRoster(town), self.bridge, table)
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                for loop in self.terminals.loops:
                    nursery.start_soon(loop)

    async def connect(self, device: Desktop | Phone, device_id: UUID) -> Connection:
        """And let a desktop's terminals be bound again."""
        client_type: ClientType = "desktop" if isinstance(device, Desktop) else "mobile"
        self.town.connected_at += 1
        link = Link(device_id, uuid4(), self.name, client_type, "", is_visible=True)
        held = HeldLink(ANN, replace(link, connected_at=self.town.connected_at), Pulse(Rhythm()), 0)
        outbox = Outbox(lambda: None)
        member = Member(ANN, device_id, link.connection_id, client_type, 0, outbox, held, lambda code, reason: None)
        place = self.hub.admit(member)
        place.__enter__()
        self.town.links[device_id] = link
        connection = Connection(member, self.terminals, lambda: cast(None, place.__exit__(None, None, None)))
        self.town.connections.append(connection)
        device.connect(connection)
        if member.is_desktop:
            await self.terminals.resume_producer(member)
        return connection

    def lose(self, instance: str) -> None:
        for listener in self.bridge.lost_listeners:
            listener(instance)


class TownBridge(Bridge):
    def __init__(self, town: Town, instance: str) -> None:
        self.instance = instance
        self.lost_listeners: list[Callable[[str], None]] = []
        self._town = town
        self._handlers: dict[str, Handler] = {}

    def handle(self, kind: str, body_type: object, handler: Any) -> None:
        self._handlers[kind] = handler

    def hear_lost(self, listener: Callable[[str], None]) -> None:
        self.lost_listeners.append(listener)

    def is_alive(self, instance: str) -> bool:
        return instance in self._town.houses

    def send(
        self, instance: str, user_id: UUID, kind: str, body: msgspec.Struct, blob: bytes = b"", *, after_event: int = 0
    ) -> bool:
        assert instance != self.instance, "a letter to itself takes no detour"
        if self._town.is_away or not {instance, self.instance} <= self._town.houses.keys():
            return False
        self._town.sent[kind] += 1
        if not self._town.is_cut_off:
            copy = msgspec.json.decode(msgspec.json.encode(body), type=type(body))
            self._town.letters.append((instance, Letter(self.instance, user_id, kind, blob), copy))
        return True

    async def wait_room(self, instance: str) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self, letter: Letter, body: msgspec.Struct) -> None:
        await self._handlers[letter.kind](letter, body)


class TownRoster(Roster):
    def __init__(self, town: Town) -> None:
        self._town = town

    async def find(self, user_id: UUID, device_id: UUID) -> Link | None:
        await trio.lowlevel.checkpoint()
        return self._town.links.get(device_id) if user_id == ANN else None

    async def find_primary(self, user_id: UUID) -> Link | None:
        await trio.lowlevel.checkpoint()
        desktops = [link for link in self._town.links.values() if link.client_type == "desktop"]
        return desktops[0] if desktops and user_id == ANN else None

    def note_changed(self, user_id: UUID) -> None:
        pass


@asynccontextmanager
async def open_town(*names: str) -> AsyncIterator[Town]:
    town = Town()
    async with trio.open_nursery() as nursery:
        for name in names:
            town.houses[name] = House(town, name)
            nursery.start_soon(town.houses[name].run)
        try:
            yield town
        finally:
            for connection in town.connections:
                leave(connection)
            nursery.cancel_scope.cancel()


def cut(device: Desktop | Phone, *, is_noticed: bool = True) -> Connection:
    """Its socket has ended; what was on the wire is lost. If it is not noticed, the server finds out by `leave`."""
    connection = device.connection
    assert connection is not None
    device.lose_link()
    if is_noticed:
        leave(connection)
    return connection


def leave(connection: Connection) -> None:
    """Safe to repeat."""
    if connection.member.outbox.is_closed:
        return
    connection.member.outbox.close()
    connection.leave()


async def bind(
    phone: Phone, session_id: str = "t-1", *, include_snapshot: bool = False, force_snapshot: bool = False
) -> None:
    assert phone.connection is not None
    wanted = Bind(session_id, include_snapshot=include_snapshot, force_snapshot=force_snapshot)
    await phone.connection.terminals.bind(phone.connection.member, wanted)


async def unbind(phone: Phone, session_id: str = "t-1") -> None:
    assert phone.connection is not None
    await phone.connection.terminals.unbind(phone.connection.member, session_id)
