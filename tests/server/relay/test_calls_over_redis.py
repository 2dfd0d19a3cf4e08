"""Calls between two processes over a real Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import trio

from server.relay.bridge import open_bridge
from storage.presence import ClientType
from tests.server.relay.bridges import QUICK, wait_until
from tests.server.relay.call_town import DESK, PHONE, Device, House, Town


@asynccontextmanager
async def open_device(
    town: Town, redis_url: str, device_id: UUID, client_type: ClientType = "mobile"
) -> AsyncIterator[tuple[House, Device]]:
    """On a process of its own, which those before it know."""

    async def catch_up(user_id: UUID, event_id: int) -> None:
        """There are no events."""

    async with open_bridge(redis_url, catch_up, QUICK) as bridge, trio.open_nursery() as nursery:
        house = town.houses[bridge.instance] = House(town, bridge.instance, bridge)
        for loop in (*bridge.loops, *house.loops):
            nursery.start_soon(loop)
        for name in town.houses:
            await wait_until(lambda: bridge.is_alive(name))  # noqa: B023 - called in this round of the loop alone
        device = await house.connect(device_id, client_type)
        yield house, device
        house.cut(device)
        nursery.cancel_scope.cancel()


async def wait_arrived(device: Device, count: int) -> None:
    def has_arrived() -> bool:
        device.read()
        return len(device.arrived) >= count

    await wait_until(has_arrived)


async def test_a_call_and_a_large_answer_cross_two_processes(redis_url: str) -> None:
    town = Town()
    async with (
        open_device(town, redis_url, PHONE) as (phones, phone),
        open_device(town, redis_url, DESK, "desktop") as (desks, desk),
    ):
        for number in range(50):
            await phones.call(phone, str(number))
        await wait_arrived(desk, 50)
        assert [frame["payload"]["id"] for frame in desk.arrived] == [str(number) for number in range(50)]
        await desks.answer(desk, "7", padding=20_000_000)
        await wait_arrived(phone, 1)
        assert len(phone.arrived[0]["payload"]["result"]) == 20_000_000
        assert phones.calls.pending == 49


async def test_callers_hear_at_once_of_a_process_that_stops(redis_url: str) -> None:
    town = Town()
    async with open_device(town, redis_url, PHONE) as (phones, phone):
        async with open_device(town, redis_url, DESK, "desktop") as (_, desk):
            await phones.call(phone, "p", method="system.ping")
            await wait_arrived(desk, 1)
        await wait_arrived(phone, 1)
        assert phone.arrived[0]["payload"]["error"]["code"] == -32010
