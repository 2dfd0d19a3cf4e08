"""Processes with events and without sockets, for tests: what each of their members has been given."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import trio

from server.presence import HeldLink
from server.relay.channels import Channels, open_channels
from server.relay.event_frames import build_body
from server.relay.event_lines import read_texts
from server.relay.events import Events, NewEvent
from server.relay.lanes import Seat
from server.relay.member import Member
from server.relay.outbox import Outbox
from server.relay.roster import Roster
from storage.device_events import DeviceEvents
from storage.errors import RedisUnavailable
from storage.event_stream import Appended, Bounds, Entry, EventStream, Page
from storage.presence import ClientType, Link
from storage.redis import Redis, open_redis

AT = datetime(2026, 2, 3, tzinfo=UTC)
ANN = UUID("5b0e0000-0000-4000-8000-00000000000a")


class Links:
    """Which desktops there are, and which is the primary one: what a roster answers with, as a test sets it."""

    def __init__(self) -> None:
        self.desktops: list[UUID] = []
        """The first is the primary one."""

    async def find_primary(self, _: UUID) -> Link | None:
        return build_link(self.desktops[0]) if self.desktops else None

    async def find(self, _: UUID, device_id: UUID) -> Link | None:
        return build_link(device_id) if device_id in self.desktops else None

    def note_changed(self, _: UUID) -> None:
        pass


class ShakyStream(EventStream):
    """One whose Redis may be away."""

    is_away = False

    async def append(self, *args: Any, **names: Any) -> Appended:
        self._check()
        return await super().append(*args, **names)

    async def find_last(self, user_id: UUID) -> int:
        self._check()
        return await super().find_last(user_id)

    async def read(self, user_id: UUID, after: int) -> Page:
        self._check()
        return await super().read(user_id, after)

    async def fetch_large(self, user_id: UUID, token: str) -> bytes | None:
        self._check()
        return await super().fetch_large(user_id, token)

    def be_away(self, *, is_away: bool) -> None:
        object.__setattr__(self, "is_away", is_away)  # it is frozen

    def _check(self) -> None:
        if self.is_away:
            raise RedisUnavailable("away")


@dataclass(frozen=True, slots=True)
class Process:
    """`redis` is what its events use."""

    redis: Redis
    channels: Channels
    events: Events
    stream: ShakyStream
    device_events: DeviceEvents

    def join(
        self, device: "Device", last_event_id: int | None = None, *, is_resumed: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Who names an event has resumed."""
        return self.events.join(device.member, last_event_id, is_resumed=is_resumed or last_event_id is not None)

    async def publish(
        self, source: "Device | None" = None, payload: Mapping[str, object] | None = None, **rest: Any
    ) -> int:
        return await self.events.publish(ANN, build_event(source, payload, **rest))


@dataclass(slots=True)
class Device:
    """A member, and what it has been given, as it takes it."""

    member: Member
    frames: list[Any] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    async def take(self) -> list[Any]:
        """What waits, and all before."""
        while self.member.outbox.waiting_bytes:
            frames = await self.member.outbox.take()
            assert frames is not None
            self.member.outbox.note_written(len(frames))
            self.frames += [json.loads(text) for text in read_texts(frames)]
        return self.frames

    async def take_ids(self) -> list[int]:
        return [frame["eventId"] for frame in await self.take() if "eventId" in frame]

    async def take_types(self) -> list[str]:
        return [frame["payload"]["eventType"] for frame in await self.take()]

    async def wait_ids(self, count: int) -> list[int]:
        """Until so many have come."""
        with trio.fail_after(10):
            while len(await self.take_ids()) < count:
                await trio.sleep(0.005)
        return await self.take_ids()

    async def wait_type(self, event_type: str) -> None:
        with trio.fail_after(10):
            while event_type not in await self.take_types():
                await trio.sleep(0.005)

    async def take_payloads(self) -> list[Any]:
        return [frame["payload"]["payload"] for frame in await self.take()]


def build_device(client_type: ClientType = "mobile", *, user_id: UUID = ANN, device_id: UUID | None = None) -> Device:
    closed: list[int] = []
    outbox = Outbox(lambda: closed.append(1013))
    member = Member(
        user_id=user_id,
        device_id=device_id or uuid4(),
        connection_id=uuid4(),
        client_type=client_type,
        fresh_at=0,
        outbox=outbox,
        held=cast(HeldLink, None),
        end=lambda code, reason: closed.append(code),
    )
    return Device(member, closed=closed)


def build_link(device_id: UUID) -> Link:
    return Link(device_id, uuid4(), "here", "desktop", "Studio", is_visible=True)


def build_event(
    source: Device | None = None, payload: Mapping[str, object] | None = None, event_type: str = "noted", **rest: Any
) -> NewEvent:
    return NewEvent(
        event_type=event_type,
        payload=json.dumps(payload or {}).encode(),
        source="server" if source is None else source.member.client_type,
        source_device_id=None if source is None else source.member.device_id,
        **rest,
    )


def build_entry(number: int) -> Entry:
    return Entry(number, build_body(NewEvent("noted", b"%d" % number, "server"), f"t.{number}", AT))


def read_told(seat: Seat) -> list[Any]:
    """The numbers of what one has been told, and the types of what has none; nothing is taken."""
    frames = [json.loads(text) for frame in seat.outbox._frames for text in read_texts(frame)]
    return [frame.get("eventId", frame["payload"]["eventType"]) for frame in frames]


@asynccontextmanager
async def open_process(
    redis_url: str, links: Links | None = None, bounds: Bounds | None = None
) -> AsyncIterator[Process]:
    async with open_redis(redis_url) as redis, open_channels(redis_url) as channels, trio.open_nursery() as nursery:
        stream = ShakyStream(redis, bounds or Bounds())
        events = Events(stream, channels, cast(Roster, links or Links()))
        for loop in (*channels.loops, *events.loops):
            nursery.start_soon(loop)
        yield Process(redis, channels, events, stream, DeviceEvents(redis))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_processes(
    redis_url: str, number: int = 2, links: Links | None = None, bounds: Bounds | None = None
) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_process(redis_url, links, bounds)) for _ in range(number)]
