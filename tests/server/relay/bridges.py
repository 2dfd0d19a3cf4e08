"""Processes that write to each other over a real Redis, for tests."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec
import redis
import trio

from server.relay.bridge import Bridge, Letter, open_bridge
from server.relay.liveness import Tempo
from storage.relay_instances import Census, RelayInstances

ANN = uuid4()
QUICK = Tempo(renew_seconds=0.02, expiry_seconds=0.2, undeliverable_seconds=0.3)


class Note(msgspec.Struct, array_like=True):
    text: str


@dataclass(eq=False, slots=True)
class Process:
    """Has read `letters`, as sender, text and blob; `lost` and `gone` are what it has heard of others."""

    bridge: Bridge
    letters: list[tuple[str, str, bytes]] = field(default_factory=list)
    caught_up: list[tuple[UUID, int]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    written_off: list[None] = field(default_factory=list)
    fails_at: str | None = None

    @property
    def name(self) -> str:
        return self.bridge.instance

    @property
    def texts(self) -> list[str]:
        return [text for _, text, _ in self.letters]

    def write(self, other: "Process", text: str, blob: bytes = b"", *, after_event: int = 0) -> bool:
        return self.bridge.send(other.name, ANN, "note", Note(text), blob, after_event=after_event)

    async def read(self, letter: Letter, note: Note) -> None:
        if note.text == self.fails_at:
            raise ValueError("it is not to be read")
        self.letters.append((letter.sender, note.text, letter.blob))

    async def wait_letters(self, count: int) -> None:
        await wait_until(lambda: len(self.letters) >= count)


async def wait_until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.002)


@asynccontextmanager
async def open_process(redis_url: str, tempo: Tempo = QUICK, instance: str | None = None) -> AsyncIterator[Process]:
    """With its loops running; it leaves at the end, cleanly."""
    caught_up: list[tuple[UUID, int]] = []

    async def catch_up(user_id: UUID, event_id: int) -> None:
        caught_up.append((user_id, event_id))

    async with open_bridge(redis_url, catch_up, tempo, instance) as bridge, trio.open_nursery() as nursery:
        process = Process(bridge, caught_up=caught_up)
        bridge.handle("note", Note, process.read)
        bridge.hear_lost(process.lost.append)
        bridge.hear_gone(process.gone.append)
        bridge.hear_written_off(lambda: process.written_off.append(None))
        for loop in bridge.loops:
            nursery.start_soon(loop)
        yield process
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _Still:
    instances: RelayInstances
    goes_on: trio.Event

    async def renew(self, instance: str) -> Census:
        await self.goes_on.wait()
        return await self.instances.renew(instance)


@contextmanager
def standing_still(process: Process) -> Iterator[None]:
    """It renews nothing while the block lasts."""
    instances, goes_on = process.bridge._instances, trio.Event()
    process.bridge._instances = _Still(instances, goes_on)  # type: ignore[assignment] # it is slow, no more
    try:
        yield
    finally:
        process.bridge._instances = instances
        goes_on.set()


def kill_connections(redis_url: str, chances: random.Random) -> None:
    """Of those who are connected to Redis, some."""
    with redis.Redis.from_url(redis_url) as killer:
        own = killer.client_id()
        for client in killer.client_list():
            if int(client["id"]) != own and chances.random() < 0.5:
                killer.client_kill_filter(_id=client["id"])
