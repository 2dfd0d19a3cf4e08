"""Two processes, several who publish, devices that come and go, and connections to Redis that are cut: every device
gets every event that is for it once and in order, or is told of a gap.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
import trio
from coredis.tokens import PureToken

from storage.event_stream import Bounds
from storage.presence import ClientType
from tests.server.relay.event_house import Device, Links, Process, build_device, open_processes

EVENTS_OF_EACH = 50


@dataclass(slots=True)
class Sea:
    """What was published, by whom; and what each device got, over all its connections."""

    processes: Sequence[Process]
    random: random.Random
    published: dict[int, tuple[ClientType, UUID]] = field(default_factory=dict)
    is_over: bool = False

    @property
    def process(self) -> Process:
        return self.random.choice(self.processes)

    async def publish(self, source: Device) -> None:
        """One after the other, as a device's reader does; through whichever process it is connected to."""
        for number in range(EVENTS_OF_EACH):
            event_id = await self.process.publish(source, {"n": number})
            self.published[event_id] = source.member.client_type, source.member.device_id
            await trio.sleep(self.random.uniform(0, 0.004))

    async def come_and_go(self, traveller: "Traveller") -> None:
        while not self.is_over:
            with trio.move_on_after(self.random.uniform(0, 0.15)):
                await self.stay(traveller)
        with trio.fail_after(10):
            await self.stay(traveller, until=max(self.list_for(traveller)))

    async def stay(self, traveller: "Traveller", until: int = 2**53) -> None:
        device = build_device(traveller.client_type, device_id=traveller.device_id)
        try:
            async with self.process.join(device, traveller.seen):
                while traveller.seen < until:
                    await trio.sleep(0.002)
                    await traveller.take(device)
        finally:
            if self.random.random() < 0.5:  # what was written last may have come, or not
                with trio.CancelScope(shield=True):
                    await traveller.take(device)

    async def cut(self) -> None:
        while not self.is_over:
            await trio.sleep(self.random.uniform(0, 0.1))
            await self.process.redis.client_kill(type_=PureToken.PUBSUB)

    def list_for(self, traveller: "Traveller") -> list[int]:
        return sorted(event_id for event_id, source in self.published.items() if traveller.hears(*source))


@dataclass(slots=True)
class Traveller:
    """A device, over all its connections. `got` are numbers, and 0 for a gap."""

    client_type: ClientType
    seen: int
    device_id: UUID = field(default_factory=uuid4)
    got: list[int] = field(default_factory=list)

    async def take(self, device: Device) -> None:
        self.got += [frame.get("eventId", 0) for frame in await device.take()]
        self.seen = max([self.seen, *self.got])
        device.frames.clear()

    def hears(self, source: ClientType, device_id: UUID) -> bool:
        return device_id != self.device_id and (self.client_type != "desktop" or source != "desktop")


def check_all_in_order(traveller: Traveller, expected: Sequence[int], *, may_miss: bool) -> None:
    """Every event once and in order; what is missing was told to be, right before what comes after it."""
    at, is_gap = 0, False
    for number in traveller.got:
        if number == 0:
            assert may_miss
            is_gap = True
            continue
        found = expected.index(number, at)
        assert is_gap or found == at, f"{expected[at:found]} are missing"
        at, is_gap = found + 1, False
    assert at == len(expected)


@pytest.mark.parametrize(("seed", "most_entries"), [(1, 2_000), (2, 5)])
async def test_whatever_happens_nothing_is_lost_repeated_or_out_of_order(
    redis_url: str, seed: int, most_entries: int
) -> None:
    desktop, phone, tablet = build_device("desktop"), build_device(), build_device("other")
    links = Links()
    links.desktops = [desktop.member.device_id]
    async with open_processes(redis_url, 2, links, Bounds(most_entries=most_entries)) as processes:
        sea = Sea(processes, random.Random(seed))  # noqa: S311 - not for secrets
        first = await processes[0].publish(build_device())
        travellers = [Traveller("mobile", first) for _ in range(5)]
        travellers += [
            Traveller("desktop", first, desktop.member.device_id),
            Traveller("mobile", first, phone.member.device_id),
        ]
        async with trio.open_nursery() as nursery:
            for traveller in travellers:
                nursery.start_soon(sea.come_and_go, traveller)
            nursery.start_soon(sea.cut)
            async with trio.open_nursery() as publishers:
                for source in (desktop, desktop, phone, tablet):
                    publishers.start_soon(sea.publish, source)
            sea.is_over = True
        for traveller in travellers:
            check_all_in_order(traveller, sea.list_for(traveller), may_miss=most_entries < 2_000)
