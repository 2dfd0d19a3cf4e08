"""What ends a device's socket at once, on whichever server it is; and what other users cannot touch."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import trio

from scripts.device_link.link import Link, LinkRefused, open_link
from tests.end_to_end.cloche import Stores
from tests.end_to_end.push_scene import send
from tests.end_to_end.relay_scene import (
    Scene,
    as_customer,
    beat,
    is_status,
    make_identity,
    open_scene,
    receive,
    register,
    wait_back,
    wait_ended,
)
from tests.end_to_end.test_api_keys import ask, make
from tests.end_to_end.test_devices import list_on_phone, register_desktop

SIGNED_OUT = 4401
AT_ONCE_SECONDS = 1.0


async def wait_signed_out(*links: Link) -> None:
    """All of them within a second."""
    started = trio.current_time()
    for link in links:
        assert (await wait_ended(link, 3)).code == SIGNED_OUT
    took = trio.current_time() - started
    print(f"closed after {took * 1000:.0f} ms")
    assert took < AT_ONCE_SECONDS


async def open_both(scene: Scene, stack: AsyncExitStack) -> tuple[Link, Link, dict[str, str]]:
    """Sockets of one sign-in on the first server and on the last; and its headers. One registers, one does not."""
    identity = make_identity(scene.owner, "mobile")
    links = [
        await stack.enter_async_context(open_link(server.url, identity.upgrade_headers))
        for server in (scene.first, scene.last)
    ]
    assert (await register(links[0], identity.device_id))["type"] == "registered"
    await links[1].send("heartbeat", {})
    assert await receive(links[1]) == {"type": "pong"}
    return links[0], links[1], dict(identity.headers)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_sign_out_closes_the_devices_sockets_and_no_others(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        registered, bare, headers = await open_both(scene, stack)
        assert (await send(scene.first, "POST", "/api/auth/logout", headers, {})).status == 200
        await wait_signed_out(registered, bare)
        assert (await phone.app.call("system.ping"))["pong"] is True
        with pytest.raises(LinkRefused) as caught:
            async with open_link(scene.last.url, headers):
                pass
        assert caught.value.status == 401
        for device in (desktop.device, phone.device):
            device.cut()
            await wait_back(device, 2)
            assert device.invalid_resumes == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_a_deleted_account_has_no_socket_left_anywhere(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        links = (await open_both(scene, stack))[:2]
        assert (await send(scene.last, "DELETE", "/api/auth/account", scene.owner.headers)).status == 200
        await wait_signed_out(*links)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_revoked_api_key_closes_what_was_opened_with_it(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        made = await make(scene.first, scene.owner)
        headers = {"X-API-Key": made["key"], "X-Client-Type": "mobile"}
        link = await stack.enter_async_context(open_link(scene.last.url, headers))
        assert (await register(link, uuid4()))["type"] == "registered"
        desktop = await scene.open_desktop()
        await link.send("rpc.request", {"id": "x", "method": "echo", "params": {"n": 1}})
        while (message := await receive(link))["type"] == "event":
            pass
        assert message["payload"]["result"] == {"n": 1}
        gone = await ask(scene.first, "DELETE", f"/api/auth/api-keys/{made['id']}", scene.owner.headers)
        assert gone.status_code == 204
        await wait_signed_out(link)
        await beat(desktop.device)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_device_that_signed_out_is_gone_for_its_peers_at_once(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        headers = as_customer(desktop.device, scene.owner).headers
        assert (await send(scene.last, "POST", "/api/auth/logout", headers, {})).status == 200
        await phone.device.wait_heard(is_status(desktop.device, "disconnected"), seconds=2)
        await desktop.device.wait_for(lambda: [refused.status for refused in desktop.device.refusals][:1] == [401])
        assert desktop.device.endings[0].code == SIGNED_OUT


@pytest.mark.parametrize("count", [1, 2])
async def test_a_foreign_device_id_is_a_device_of_ones_own_and_reaches_nothing_of_the_other(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        await register_desktop(scene.first, as_customer(desktop.device, scene.owner), deviceName="Secret Studio")
        stranger = await scene.first.make_customer()
        identity = make_identity(stranger, "desktop", desktop.device.device_id)
        link = await stack.enter_async_context(open_link(scene.last.url, identity.upgrade_headers))
        assert (await register(link, desktop.device.device_id))["type"] == "registered"
        await link.send("event", {"eventType": "session-updated", "payload": {"sessionId": "s"}})
        await link.send("rpc.request", {"id": "x", "method": "echo", "params": {}})
        asked = await receive(link)  # the stranger's own and only desktop
        assert (asked["type"], asked["payload"]["userId"]) == ("rpc.request", str(stranger.user_id))
        assert (await phone.app.call("echo", {"n": 1})) == {"n": 1}
        (listed,) = await list_on_phone(scene.last, scene.owner)
        assert (listed.device_name, listed.is_connected) == ("Secret Studio", True)
        assert [call["params"] for call in desktop.app.calls] == [{"n": 1}]
        assert desktop.device.registrations == 1
        assert [one for one in phone.device.events if one["payload"]["eventType"] != "device-status"] == []


WRONG: Sequence[tuple[object, str]] = [
    (None, "invalidPayload"),
    ([], "invalidPayload"),
    ({}, "missingDeviceId"),
    ({"deviceId": 5}, "missingDeviceId"),
    ({"deviceId": "phone"}, "invalidDeviceId"),
    ({"deviceId": "a2a2a2a2-0000-4000-8000-00000000000a"}, "invalidDeviceId"),
]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_device_registers_as_itself_or_not_at_all(stores: Stores, count: int) -> None:
    """The last one is somebody's device, but not the one of the header."""
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        identity = make_identity(scene.owner, "mobile")
        link = await scene.open_bare(stack, device_id=identity.device_id)
        for payload, code in WRONG:
            await link.send("register", payload)
            answer = await receive(link)
            assert (answer["type"], answer["code"]) == ("error", code), payload
        assert (await register(link, identity.device_id.upper()))["type"] == "registered"
