"""Processes with devices that call each other: real hubs, outboxes and calls, with letters and links in memory."""

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import trio.testing

from server.presence import HeldLink
from server.relay.bridge import Bridge, Handler, Letter
from server.relay.calls import Calls
from server.relay.channels import Channels, Hear
from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.messages import CallRequest, CallResponse
from server.relay.outbox import Outbox
from server.relay.roster import Roster
from storage.presence import ClientType, Link

ANN = UUID("11111111-1111-4111-8111-111111111111")
PHONE = UUID("a2a2a2a2-0000-4000-8000-00000000000a")
DESK = UUID("d1d1d1d1-0000-4000-8000-00000000000d")
OTHER_DESK = UUID("d2d2d2d2-0000-4000-8000-00000000000d")


@dataclass
class Town:
    """`primary` is the desktop that the rosters name. A roster remembers what it has read until it is told."""

    links: dict[UUID, Link] = field(default_factory=dict)
    primary: UUID | None = None
    letters: deque[tuple[str, Letter, msgspec.Struct]] = field(default_factory=deque)
    after_events: list[int] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    houses: dict[str, "House"] = field(default_factory=dict)
    is_redis_away: bool = False

    def add_house(self, name: str) -> "House":
        self.houses[name] = House(self, name)
        return self.houses[name]

    async def deliver(self) -> None:
        """Until no letter is on its way, and everybody waits."""
        await trio.testing.wait_all_tasks_blocked()
        while self.letters:
            instance, letter, body = self.letters.popleft()
            if instance in self.houses:
                await self.houses[instance].bridge.receive(letter, body)
            await trio.testing.wait_all_tasks_blocked()

    def close(self) -> None:
        for house in self.houses.values():
            for device in tuple(house.devices):
                house.cut(device)

    def kill(self, name: str) -> None:
        """The others learn of it at once; its links stay."""
        for device in tuple(self.houses[name].devices):
            self.houses[name].cut(device)
        del self.houses[name]
        self.letters.clear()
        for house in self.houses.values():
            for listener in house.bridge.lost_listeners:
                listener(name)


class TownBridge(Bridge):
    def __init__(self, town: Town, instance: str) -> None:
        self.instance = instance
        self.lost_listeners: list[Callable[[str], None]] = []
        self.room: trio.Event | None = None
        self.silent_since: dict[str, float] = {}
        self._town = town
        self._handlers: dict[str, Handler] = {}

    def handle(self, kind: str, body_type: object, handler: Handler) -> None:
        self._handlers[kind] = handler

    def hear_lost(self, listener: Callable[[str], None]) -> None:
        self.lost_listeners.append(listener)

    def is_alive(self, instance: str) -> bool:
        return instance in self._town.houses

    def find_last_sign(self, instance: str) -> float:
        return self.silent_since.get(instance, trio.current_time())

    def send(
        self, instance: str, user_id: UUID, kind: str, body: msgspec.Struct, blob: bytes = b"", *, after_event: int = 0
    ) -> bool:
        assert instance != self.instance
        if self._town.is_redis_away or instance not in self._town.houses:
            return False
        copy = msgspec.msgpack.decode(msgspec.msgpack.encode(body), type=type(body))
        self._town.letters.append((instance, Letter(self.instance, user_id, kind, blob), copy))
        self._town.after_events.append(after_event)
        self._town.sent.append(kind)
        return True

    async def wait_room(self, instance: str) -> None:
        if self.room is not None:
            await self.room.wait()

    async def receive(self, letter: Letter, body: msgspec.Struct) -> None:
        await self._handlers[letter.kind](letter, body)


class TownRoster(Roster):
    def __init__(self, town: Town) -> None:
        self._town = town
        self._links: dict[UUID, Link] | None = None
        self._primary: UUID | None = None

    async def find(self, user_id: UUID, device_id: UUID) -> Link | None:
        if self._links is None:
            self._links, self._primary = dict(self._town.links), self._town.primary
        return self._links.get(device_id) if user_id == ANN else None

    async def find_primary(self, user_id: UUID) -> Link | None:
        await self.find(user_id, DESK)
        return None if self._primary is None else await self.find(user_id, self._primary)

    def note_changed(self, user_id: UUID) -> None:
        self._links = None


class TownChannels(Channels):
    def __init__(self) -> None:
        self.listeners: list[Hear] = []

    def hear(self, kind: str, listener: Hear) -> None:
        assert kind == "links"
        self.listeners.append(listener)


@dataclass
class Device:
    """`arrived` is all that its outbox has had."""

    member: Member
    place: AbstractContextManager[None]
    arrived: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> list[dict[str, Any]]:
        """What has come since the last time: payloads."""
        new = list(read_texts(self.member.outbox))
        self.arrived += new
        return [frame["payload"] for frame in new]

    def read_ids(self) -> list[str]:
        return [payload["id"] for payload in self.read()]

    def read_codes(self) -> dict[str, int | None]:
        """Of answers: error codes by id; None is a result."""
        payloads = self.read()
        codes = {one["id"]: one["error"]["code"] if one["error"] else None for one in payloads}
        assert len(codes) == len(payloads)
        return codes


class House:
    """A process."""

    def __init__(self, town: Town, name: str, bridge: Bridge | None = None) -> None:
        """Over another bridge than the town's, if there is one, whose instance is the name then."""
        self.town = town
        self.name = name
        self.hub = Hub()
        self.roster = TownRoster(town)
        self.bridge = TownBridge(town, name)
        self.channels = TownChannels()
        self.calls = Calls(self.hub, self.roster, bridge or self.bridge, self.channels)
        self.devices: list[Device] = []

    @property
    def loops(self) -> Iterable[Callable[[], Awaitable[object]]]:
        return self.calls.loops

    async def connect(self, device_id: UUID, client_type: ClientType = "mobile", *, is_told: bool = True) -> Device:
        """With its link; `is_told`: everybody's roster hears of it."""
        connection_id = uuid4()
        outbox = Outbox(lambda: None)
        held = cast(HeldLink, None)  # calls have nothing to do with the link itself
        member = Member(ANN, device_id, connection_id, client_type, 0, outbox, held, lambda code, reason: None)
        place = self.hub.admit(member)
        place.__enter__()
        self.town.links[device_id] = Link(device_id, connection_id, self.name, client_type, "", is_visible=True)
        if client_type == "desktop" and self.town.primary is None:
            self.town.primary = device_id
        if is_told:
            await self.tell_links()
        device = Device(member, place)
        self.devices.append(device)
        return device

    async def tell_links(self) -> None:
        for house in self.town.houses.values():
            house.roster.note_changed(ANN)
            for listener in house.channels.listeners:
                await listener(ANN, b"")

    def cut(self, device: Device) -> None:
        """Its socket has ended. Its link is still there."""
        self.devices.remove(device)
        device.member.outbox.close()
        device.place.__exit__(None, None, None)

    async def leave(self, device: Device) -> None:
        """Cut, and away for longer than a link lives without a connection."""
        self.cut(device)
        del self.town.links[device.member.device_id]
        await self.tell_links()

    async def call(
        self,
        caller: Device,
        call_id: str,
        key: str | None = None,
        method: str = "session.get",
        target: UUID | None = None,
        padding: int = 0,
    ) -> None:
        payload = json.dumps({"id": call_id, "method": method, "params": "x" * padding}).encode()
        await self.calls.call(caller.member, CallRequest(call_id, method, payload, key, target))

    async def answer(
        self, desktop: Device, call_id: str, client_id: str = str(PHONE), *, is_final: bool = True, padding: int = 0
    ) -> None:
        answer = {"id": call_id, "result": "y" * padding, "error": None, "isFinal": is_final}
        await self.calls.answer(desktop.member, CallResponse(client_id, call_id, json.dumps(answer).encode(), is_final))


def read_texts(outbox: Outbox) -> Iterable[dict[str, Any]]:
    """Takes what waits, as the writer would."""
    while outbox.waiting_bytes:
        data = take_nowait(outbox)
        outbox.note_written(len(data))
        while data:
            payload, data = split_frame(data)
            yield json.loads(payload)


def take_nowait(outbox: Outbox) -> bytes:
    taking = outbox.take()
    try:
        taking.send(None)  # a coroutine, which does not wait while there is something
    except StopIteration as done:
        return cast(bytes, done.value)
    raise AssertionError("there was nothing to take")


def split_frame(data: bytes) -> tuple[bytes, bytes]:
    """The payload of the first frame, and the rest."""
    start, size = 2, data[1]
    if size >= 126:
        width = 2 if size == 126 else 8
        start, size = 2 + width, int.from_bytes(data[2 : 2 + width], "big")
    return data[start : start + size], data[start + size :]
