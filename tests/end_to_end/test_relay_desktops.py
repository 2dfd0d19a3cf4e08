"""Several desktops, and several sockets of one: who is asked, who is told, and who is closed."""

from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import trio

from scripts.device_link.phone import CallFailed
from tests.end_to_end.cloche import Stores
from tests.end_to_end.push_scene import send
from tests.end_to_end.relay_scene import (
    Machine,
    Pocket,
    as_customer,
    beat,
    events_of,
    is_event,
    is_status,
    numbers_of,
    open_scene,
    publish_numbers,
    receive,
    register,
    wait_back,
    wait_ended,
)
from tests.end_to_end.test_devices import list_on_phone, register_desktop

REPLACED, HIDDEN, UNLINKED = 4001, 4003, 4004
GRACE_SECONDS = 4
"""For which a desktop that is gone is still the one to be asked, and its peers are told nothing."""


async def find_asked(phone: Pocket, *desktops: Machine, **members: Any) -> list[int]:
    """Which of them a call came to."""
    before = [len(desktop.app.calls) for desktop in desktops]
    answer = await phone.app.exchange("echo", **members)
    assert answer["error"] is None, answer["error"]
    return [number for number, desktop in enumerate(desktops) if len(desktop.app.calls) > before[number]]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_desktop_that_is_replaced_by_its_newer_socket_was_never_away(stores: Stores, count: int) -> None:
    """Neither was one that was cut off and is back at once."""
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        phone = await scene.open_phone()
        cut = await scene.open_desktop()
        device_id = str(uuid4())
        older = await scene.open_bare(stack, scene.first, client_type="desktop", device_id=device_id)
        await register(older, device_id)
        newer = await scene.open_bare(stack, scene.last, client_type="desktop", device_id=device_id)
        assert (await register(newer, device_id))["type"] == "registered"
        assert (await wait_ended(older, 1)).code == REPLACED
        cut.device.cut()
        await wait_back(cut.device, 2)
        await trio.sleep(GRACE_SECONDS + 0.7)
        told = [one["payload"]["payload"]["status"] for one in events_of(phone.device, "device-status")]
        assert set(told) == {"online"}
        await phone.device.say("rpc.request", {"id": "x", "method": "echo", "params": {}})
        while (message := await receive(newer))["type"] != "rpc.request":
            assert message["type"] == "event"


@pytest.mark.parametrize("count", [1, 2])
async def test_two_desktops_stay_connected_and_the_one_that_registered_last_is_asked(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene:
        first, second = await scene.open_desktop(scene.first), await scene.open_desktop(scene.last)
        phone = await scene.open_phone()
        for one in (first, second, second, first):
            assert await find_asked(phone, first, second) == [1]
            times = one.device.registrations
            one.device.cut()
            await wait_back(one.device, times + 1)
        assert await find_asked(phone, first, second) == [1]
        assert await find_asked(phone, first, second, targetDeviceId=first.device.device_id) == [0]
        assert {ended.code for one in (first, second) for ended in one.device.endings} == {1006}
        assert (first.device.registrations, second.device.registrations) == (3, 3)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_desktop_that_is_not_asked_neither_tells_nor_hears_but_who_is_there(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene:
        first, second = await scene.open_desktop(scene.first), await scene.open_desktop(scene.last)
        phone = await scene.open_phone()
        await first.device.wait_heard(is_status(phone.device, "online"))
        await publish_numbers(first.device, [1])
        await publish_numbers(second.device, [2])
        await publish_numbers(phone.device, [3])
        await second.device.wait_heard(is_event("session-updated", number=3))
        await beat(first.device)
        assert numbers_of(events_of(phone.device)) == [2]
        assert (events_of(first.device), numbers_of(events_of(second.device))) == ([], [3])


@pytest.mark.parametrize("count", [1, 2])
async def test_the_other_desktop_is_asked_once_the_first_one_is_gone_for_longer_than_its_grace(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene:
        other, primary = await scene.open_desktop(scene.last), await scene.open_desktop(scene.first)
        phone = await scene.open_phone()
        assert await find_asked(phone, other, primary) == [1]
        scene.stop(primary.device)
        with pytest.raises(CallFailed, match="-32010"):
            await phone.app.call("echo")
        await phone.device.wait_heard(is_status(primary.device, "disconnected"))
        assert await find_asked(phone, other, primary) == [0]
        await publish_numbers(other.device, [7])
        await phone.device.wait_heard(is_event("session-updated", number=7))
        start = len(phone.device.received)
        await scene.open(primary.device)
        await phone.device.wait_heard(is_status(primary.device, "online"), start)
        assert await find_asked(phone, other, primary) == [1]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_desktop_whose_remote_access_is_switched_off_is_closed_and_gone_at_once(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        phone = await scene.open_phone()
        device_id = str(uuid4())
        link = await scene.open_bare(stack, scene.first, client_type="desktop", device_id=device_id)
        await register(link, device_id)
        start = len(phone.device.received)
        await link.send("event", {"eventType": "device-visibility-updated", "payload": {"visible": False}})
        assert (await wait_ended(link, 2)).code == HIDDEN
        await phone.device.wait_heard(is_event("device-status", deviceId=device_id, status="offline"), start, 2)
        with pytest.raises(CallFailed, match="-32010"):
            await phone.app.call("echo")


@pytest.mark.parametrize("count", [1, 2])
async def test_a_device_may_register_again_on_its_socket(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        phone = await scene.open_phone()
        device_id = str(uuid4())
        link = await scene.open_bare(stack, scene.first, client_type="desktop", device_id=device_id)
        first = await register(link, device_id.upper())
        again = await register(link, device_id)
        assert (first["type"], again["type"]) == ("registered", "registered")
        credentials = {"sessionId": again["sessionId"], "resumeToken": again["resumeToken"]}
        assert (await register(link, device_id, **credentials))["type"] == "resumed"
        wrong = await register(link, device_id, **{**credentials, "resumeToken": "x" * 48})
        assert (wrong["type"], wrong["code"]) == ("error", "invalidResume")
        assert (await register(link, device_id))["type"] == "registered"
        told = events_of(phone.device, "device-status")
        assert [one["payload"]["payload"]["deviceId"] for one in told] == [device_id] * len(told)
        assert {one["payload"]["payload"]["status"] for one in told} == {"online"}


@pytest.mark.parametrize("count", [1, 2])
async def test_an_unlinked_desktop_is_gone_for_its_peers_until_it_registers_again(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        phone, desktop = await scene.open_phone(), await scene.open_desktop()
        await register_desktop(scene.first, as_customer(desktop.device, scene.owner))
        path = f"/api/devices/{desktop.device.device_id}"
        assert (await send(scene.last, "DELETE", path, scene.owner.headers)).status == 204
        await phone.device.wait_heard(is_event("device-unlinked", deviceId=desktop.device.device_id))
        with pytest.raises(CallFailed, match="-32010"):
            await phone.app.call("echo")
        start = len(phone.device.received)
        await desktop.device.beat()
        await wait_back(desktop.device, 2)
        assert [ended.code for ended in desktop.device.endings] == [UNLINKED]
        await phone.device.wait_heard(is_status(desktop.device, "online"), start)
        assert await find_asked(phone, desktop) == [0]
        (listed,) = await list_on_phone(scene.last, scene.owner)
        assert (str(listed.device_id), listed.is_connected) == (desktop.device.device_id, True)
