"""Devices come, go, fall silent and are swept up by two processes at random: what peers are told stays true."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
import trio

from storage.presence import Gone, Link, PresenceTable
from storage.redis import open_redis
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log

USERS = [UUID(int=user) for user in range(1, 3)]
DEVICES = [UUID(int=device) for device in range(1, 4)]
STEPS = 500


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


@dataclass(slots=True)
class Actor:
    """A process that does things at random, also what comes too late. Fleeting links are over as soon as they begin."""

    table: PresenceTable
    fleeting: PresenceTable
    chance: random.Random
    links: Sequence[tuple[UUID, Link]]
    gone: list[Gone] = field(default_factory=list)

    async def act(self) -> None:
        for _ in range(STEPS):
            user_id, link = self.chance.choice(self.links)
            await self.do_something(user_id, link)

    async def do_something(self, user_id: UUID, link: Link) -> None:
        names = (user_id, link.device_id, link.connection_id)
        match self.chance.choices(range(8), (4, 2, 4, 2, 3, 2, 1, 1))[0]:
            case 0:
                await self.table.enter(user_id, link)
            case 1:
                await self.fleeting.enter(user_id, link)
            case 2:
                self.gone += (await self.table.expire(self.chance.choice([1, 100]))).gone
            case 3:
                await self.table.touch(user_id, link)
            case 4:
                await self.table.leave(*names)
            case 5:
                await self.table.set_visible(*names, is_visible=self.chance.random() < 0.5)
            case 6:
                await self.table.drop(user_id, link.device_id)
            case _:
                await self.chance.choice([self.table, self.fleeting]).resume(user_id, link, self.chance.random() / 10)


@pytest.mark.parametrize("seed", range(2))
async def test_what_peers_are_told_alternates_and_ends_in_what_is_listed(
    redis_url: str, log: DeviceEventLog, seed: int
) -> None:
    links = [
        (user_id, Link(device_id, uuid4(), "here", "desktop", "Studio", is_visible))
        for user_id in USERS
        for device_id in DEVICES
        for is_visible in (True, True, False)
    ]
    async with open_redis(redis_url) as one, open_redis(redis_url) as other, trio.open_nursery() as nursery:
        chances = [random.Random(f"{seed}/{place}") for place in range(2)]  # noqa: S311 - not for secrets
        actors = [
            Actor(PresenceTable(client), PresenceTable(client, 0.001), chance, links)
            for client, chance in zip((one, other), chances, strict=True)
        ]
        for actor in actors:
            nursery.start_soon(actor.act)
    async with open_redis(redis_url) as client:
        await trio.sleep(0.003)
        table = PresenceTable(client)
        swept = (await table.expire(1000)).gone
        listed = {
            (user_id, device_id): link.is_visible
            for user_id in USERS
            for device_id, link in (await table.list(user_id)).items()
        }
    told: dict[tuple[UUID, UUID], list[bool]] = defaultdict(list)
    for user_id, event_type, payload in log.read():
        assert event_type == "device-status"
        told[user_id, UUID(payload["deviceId"])].append(payload["status"] == "online")
    assert len(told) == len(USERS) * len(DEVICES)
    for key, statuses in told.items():
        assert statuses == [place % 2 == 0 for place in range(len(statuses))]
        assert statuses[-1] == listed.get(key, False)
    everybody = [*actors[0].gone, *actors[1].gone, *swept]
    assert len(everybody) > 10
