"""Devices over HTTP, as the shipped clients send them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

from server.connection_descriptor import ConnectionInfo, derive_key, sign_info
from tests.server.registering import (
    DESKTOP,
    DEVICE,
    PATH,
    PHONE,
    PHONE_ID,
    REGISTER,
    ask,
    link,
    open_link,
    register,
    register_phone,
    show,
    tell_error,
)
from tests.server.served import Served, open_served
from tests.storage.device_event_log import open_device_event_log
from tests.storage.people import Query

EXACT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def test_a_desktop_registers_as_the_shipped_one_does_and_again(served: Served) -> None:
    user = await served.make_user()
    first = await register(served, user)
    assert (first.status, first.json["deviceId"], first.json["status"]) == (201, DEVICE, "online")
    assert first.json.keys() == {"deviceId", "status", "createdAt", "updatedAt"}
    second = await register(served, user, device_id=DEVICE.upper(), relayEligible=False)
    assert (second.status, second.json["deviceId"], second.json["status"]) == (201, DEVICE, "offline")
    assert second.json["createdAt"] == first.json["createdAt"] < second.json["updatedAt"]


async def test_a_desktop_is_listed_with_every_member_also_those_that_are_null(served: Served) -> None:
    user = await served.make_user()
    made = (await register(served, user, localIps=["10.0.0.1"], publicIp="192.0.2.1", availablePorts=[80])).json
    assert await show(served, user) == [
        {
            "deviceId": DEVICE,
            "deviceName": "Studio",
            "deviceType": "desktop",
            "platform": "macos",
            "platformVersion": "macos",
            "appVersion": "1.2.3",
            "status": "offline",
            "isConnected": False,
            "lastHeartbeat": made["updatedAt"],
            "cpuUsage": None,
            "memoryUsage": None,
            "diskSpaceGb": None,
            "activeJobs": 0,
            "capabilities": DESKTOP["capabilities"],
            "createdAt": made["createdAt"],
            "updatedAt": made["updatedAt"],
        }
    ]


async def test_a_phone_registers_as_the_shipped_one_does_and_is_not_listed(served: Served) -> None:
    user = await served.make_user()
    for changes in ({}, {"capabilities": None, "pushToken": None}, {"deviceName": ""}):
        answer = await register_phone(served, user, **changes)
        assert (answer.status, answer.json) == (
            201,
            {
                "deviceId": PHONE_ID,
                "deviceName": changes.get("deviceName", "iPhone"),
                "deviceType": "mobile",
                "platform": "ios",
                "appVersion": "1.2.3",
                "isConnected": False,
            },
        )
    assert await show(served, user) == await show(served, user, "?deviceType=mobile") == []


async def test_what_a_phone_posts_as_a_desktop_is_refused_as_it_always_was(served: Served) -> None:
    user = await served.make_user()
    body = {**PHONE, "deviceType": "mobile", "deviceId": PHONE_ID}
    headers = {"X-Device-ID": PHONE_ID, "X-Client-Type": "mobile"}
    answer = await ask(served, user, "POST", REGISTER, body, headers)
    assert tell_error(answer) == (400, "bad_request", "Bad request: invalid_client_type")
    assert answer.json["errorType"] == "bad_request"


async def test_a_push_token_that_comes_with_a_registration_is_kept_apart_and_never_shown(
    served: Served, query: Query
) -> None:
    user = await served.make_user()
    token = "ab" * 32
    await register_phone(served, user, pushToken=token)
    await register_phone(served, user, platform="windows-phone", pushToken="cd" * 32)
    await register(served, user, capabilities={"devicePushToken": "secret", "a": 1})
    tokens = query("SELECT user_id, device_id, platform, token FROM push_tokens")
    assert tokens == [(user.id, UUID(PHONE_ID), "ios", token)]
    assert query("SELECT 1 FROM devices WHERE devices::text ~ 'secret|abab|cdcd'") == []
    (device,) = await show(served, user)
    assert device["capabilities"] == {"a": 1}


async def test_a_desktop_is_online_exactly_while_it_has_a_visible_link_of_its_own(served: Served) -> None:
    user = await served.make_user()
    await register(served, user)
    links = (link(), True), (link(is_visible=False), False), (link(client_type="mobile"), False)
    for one, is_connected in (*links, (link(client_type="other"), False)):
        async with open_link(served, user, one):
            (device,) = await show(served, user)
            assert device["isConnected"] is is_connected
            assert device["status"] == ("online" if is_connected else "offline")
            assert len(await show(served, user, "?connectedOnly=true")) == is_connected
    (device,) = await show(served, user)
    assert (device["isConnected"], device["status"]) == (False, "offline")


async def test_a_list_is_filtered_by_either_spelling(served: Served) -> None:
    user = await served.make_user()
    for number in (1, 2):
        await register(served, user, str(UUID(int=number)))
    async with open_link(served, user, link(str(UUID(int=1)))):
        for query, ids in (
            ("", {1, 2}),
            ("?deviceType=desktop", {1, 2}),
            ("?device_type=desktop&connected_only=true", {1}),
            ("?connectedOnly=1", {1}),
            ("?connected_only=0", {1, 2}),
            ("?connectedOnly=false&connected_only=true", {1, 2}),
            ("?deviceType=Desktop", set()),
            ("?device_type=mobile", set()),
        ):
            assert {UUID(device["deviceId"]).int for device in await show(served, user, query)} == ids, query


async def test_a_flag_that_is_none_is_refused(served: Served) -> None:
    user = await served.make_user()
    for query in ("?connectedOnly=maybe", "?connected_only=2", "?connectedOnly=TRUE%00"):
        answer = await ask(served, user, "GET", PATH + query)
        assert (answer.status, answer.json["error_type"]) == (400, "validation_error")


async def test_every_date_has_six_digits_and_a_z(served: Served, query: Query) -> None:
    user = await served.make_user()
    await register(served, user)
    for microsecond in (0, 123000, 123456, 7):
        at = datetime(2026, 2, 3, 4, 5, 6, microsecond, UTC)
        query("UPDATE devices SET created_at = %s, updated_at = %s, last_heartbeat = %s RETURNING 1", at, at, at)
        (device,) = await show(served, user)
        expected = f"2026-02-03T04:05:06.{microsecond:06}Z"
        assert [device[name] for name in ("createdAt", "updatedAt", "lastHeartbeat")] == [expected] * 3
    heartbeat = (await ask(served, user, "POST", f"{PATH}/{DEVICE}/heartbeat", {})).json
    descriptor = (await ask(served, user, "GET", f"{PATH}/{DEVICE}/connection-descriptor")).json
    registered = (await register(served, user)).json
    dates = [heartbeat["timestamp"], descriptor["expiresAt"], registered["createdAt"], registered["updatedAt"]]
    dates += [descriptor["connectionInfo"][name] for name in ("issuedAt", "expiresAt")]
    assert [date for date in dates if not EXACT.fullmatch(date)] == []


async def test_a_heartbeat_is_noted_for_the_device_of_the_path_or_of_the_header(served: Served) -> None:
    user = await served.make_user()
    await register(served, user)
    vitals = {"cpuUsage": 12.5, "memoryUsage": None, "diskSpaceGb": 512, "activeJobs": 2, "status": "away"}
    first = await ask(served, user, "POST", f"{PATH}/{DEVICE.upper()}/heartbeat", vitals)
    assert (first.status, first.json["status"]) == (200, "heartbeat_updated")
    (device,) = await show(served, user)
    assert (device["cpuUsage"], device["memoryUsage"], device["diskSpaceGb"]) == (12.5, None, 512)
    assert (device["activeJobs"], device["lastHeartbeat"]) == (2, first.json["timestamp"])
    assert device["status"] == "offline"
    for body in (None, {"metadata": {"a_b": [1]}}):
        second = await ask(served, user, "POST", f"{PATH}/heartbeat", body, {"X-Device-ID": DEVICE})
        assert (second.status, second.json["status"]) == (200, "heartbeat_updated")
    (device,) = await show(served, user)
    assert (device["cpuUsage"], device["activeJobs"], device["lastHeartbeat"]) == (12.5, 0, second.json["timestamp"])


async def test_an_unlinked_device_is_dropped_and_the_others_are_told(
    served: Served, query: Query, redis_url: str
) -> None:
    user = await served.make_user()
    await register(served, user)
    await register_phone(served, user, pushToken="ab" * 32)
    presence = served.services.presence
    with open_device_event_log(redis_url) as log:
        async with open_link(served, user, link()):
            for device_id in (DEVICE.upper(), PHONE_ID):
                answer = await ask(served, user, "DELETE", f"{PATH}/{device_id}")
                assert (answer.status, answer.body) == (204, b"")
            assert await presence.list_links(user.id) == {}
        unlinked = [payload for _, event_type, payload in log.read() if event_type == "device-unlinked"]
    assert unlinked == [{"deviceId": DEVICE}, {"deviceId": PHONE_ID}]
    assert query("SELECT 1 FROM devices UNION ALL SELECT 1 FROM push_tokens") == []
    again = await ask(served, user, "DELETE", f"{PATH}/{DEVICE}")
    assert (again.status, again.json["error_type"]) == (404, "not_found")


async def test_a_device_whose_row_alone_was_removed_before_a_crash_can_be_unlinked_again(served: Served) -> None:
    user = await served.make_user()
    await register(served, user)
    async with open_link(served, user, link()):
        await served.services.devices.unlink(user.id, UUID(DEVICE))
        assert (await ask(served, user, "DELETE", f"{PATH}/{DEVICE}")).status == 204
        assert await served.services.presence.list_links(user.id) == {}
        assert (await ask(served, user, "DELETE", f"{PATH}/{DEVICE}")).status == 404


async def test_a_client_that_leaves_while_its_device_is_unlinked_leaves_no_link(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await served.make_user()
    await register(served, user)
    gone, told = trio.Event(), trio.Event()
    presence = served.services.presence

    async def drop_late(*_: object) -> None:
        gone.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await trio.lowlevel.checkpoint()

    async def tell(*_: object) -> None:
        told.set()

    monkeypatch.setattr(presence, "drop", drop_late)
    monkeypatch.setattr(presence, "tell", tell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, served, user, "DELETE", f"{PATH}/{DEVICE}")
        await gone.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await told.wait()


async def test_a_descriptor_is_signed_and_says_where_to_meet(served: Served) -> None:
    user = await served.make_user()
    await register(served, user, localIps=["10.0.0.1"], availablePorts=[8080])
    answer = await ask(served, user, "GET", f"{PATH}/{DEVICE}/connection-descriptor")
    assert answer.status == 200, answer.body
    info = answer.json["connectionInfo"]
    assert (info["deviceId"], info["localIps"], info["availablePorts"]) == (DEVICE, ["10.0.0.1"], [8080])
    assert info["relayUrl"] == "ws://127.0.0.1:8080/ws/device-link"
    key = derive_key(served.services.config.jwt_secret)
    assert answer.json["signature"] == sign_info(ConnectionInfo(UUID(DEVICE), *list(info.values())[1:]), key)
    assert answer.json["expiresAt"] == info["expiresAt"]


async def test_nobody_is_told_how_to_reach_a_phone_or_a_desktop_that_hides(served: Served) -> None:
    user = await served.make_user()
    await register(served, user, relayEligible=False)
    await register_phone(served, user)
    for device_id in (DEVICE, PHONE_ID, str(uuid4())):
        answer = await ask(served, user, "GET", f"{PATH}/{device_id}/connection-descriptor")
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")


async def test_nobody_is_refused_for_the_devices_that_former_sign_ins_left(served: Served, query: Query) -> None:
    user = await served.make_user()
    query(
        "INSERT INTO devices (user_id, device_id, device_type, registered_at)"
        " SELECT %s, gen_random_uuid(), 'mobile', now() FROM generate_series(1, 100) RETURNING 1",
        user.id,
    )
    for answer in (await register(served, user), await register_phone(served, user)):
        assert answer.status == 201, answer.body
    assert query("SELECT count(*) FROM devices") == [(100,)]
