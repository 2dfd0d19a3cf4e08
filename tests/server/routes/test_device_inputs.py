"""Devices over HTTP, as hostile clients send them, and with ids of somebody else."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from storage.accounts import Accounts
from tests.server.registering import (
    DESKTOP,
    DEVICE,
    MOBILE,
    PATH,
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
from tests.storage.people import Query

CHANGES: list[Mapping[str, Any]] = [
    {"deviceName": "x" * 256},
    {"deviceName": "a\0"},
    {"deviceName": "\ud800"},
    {"deviceName": 2**200},
    {"appVersion": "1" * 51},
    {"appVersion": "1\0"},
    {"platformVersion": "1" * 101},
    {"platform": "macos\0"},
    {"platform": "x" * 100_000},
    {"localIps": ["1"] * 65},
    {"localIps": ["\0"]},
    {"availablePorts": [1] * 65},
    {"availablePorts": [-1]},
    {"availablePorts": [2**128]},
    {"capabilities": {"a": "\0"}},
    {"capabilities": {"a\0": 1}},
    {"capabilities": {"a": "\udfff"}},
    {"capabilities": {"a": 2**128}},
    {"capabilities": {"a": 10**400}},
    {"capabilities": {"a": 1e300}},
    {"capabilities": {"a": ["x" * 1000] * 66}},
    {"capabilities": [[]] * 100_000},
    {"capabilities": {"a_b": 1}},
]
HOSTILE = [
    b"",
    b"[]",
    b"{",
    b'"\xff"',
    b"[" * 200_000,
    *(
        json.dumps({**DESKTOP, **change}).encode()
        for change in CHANGES
    ),
    json.dumps(DESKTOP).encode().replace(b'{"supportsTerminal"', b'{"a":1e999,"supportsTerminal"'),
    json.dumps(DESKTOP).encode().replace(b'"/home/me/proj"', b"[" * 2000 + b"]" * 2000),
    json.dumps(DESKTOP).encode().replace(b'"/home/me/proj"', b"[" * 200 + b"]" * 200),
]


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def test_hostile_registrations_are_refused_and_leave_nothing(served: Served, query: Query) -> None:
    user = await served.make_user()
    headers = {"X-Device-ID": DEVICE, "X-Client-Type": "desktop"}
    for body in HOSTILE:
        answer = await ask(served, user, "POST", REGISTER, body, headers)
        assert answer.status == 400, (body[:200], answer.body)
        assert answer.json["error_type"] in {"validation_error", "bad_request"}
    assert query("SELECT 1 FROM devices") == []


async def test_a_phone_whose_push_token_is_none_is_refused_and_left_as_it_was(served: Served, query: Query) -> None:
    user = await served.make_user()
    assert (await register_phone(served, user, pushToken="")).status == 201
    answer = await register_phone(served, user, deviceName="Another", pushToken="not hexadecimal")
    assert tell_error(answer) == (400, "bad_request", "Bad request: invalid_push_token")
    assert query("SELECT device_name FROM devices") == [("iPhone",)]
    assert query("SELECT 1 FROM push_tokens") == []


async def test_odd_capabilities_come_back_as_they_were(served: Served) -> None:
    user = await served.make_user()
    odd = {"": [], "a": [2**63 - 1, -(2**63 - 1), 0.1, 1e-320, 1e18, True, None], "é😀\u2028": {"\\u0000": "'; --"}}
    assert (await register(served, user, capabilities=odd)).status == 201
    (device,) = await show(served, user)
    assert device["capabilities"] == odd


async def test_vitals_out_of_their_bounds_are_refused(served: Served) -> None:
    user = await served.make_user()
    await register(served, user)
    (before,) = await show(served, user)
    out = ({"cpuUsage": 100.5}, {"memoryUsage": -1}, {"status": "busy"}, {"diskSpaceGb": 2**64}, {"activeJobs": -1})
    for vitals in out:
        for path in (f"{PATH}/{DEVICE}/heartbeat", f"{PATH}/heartbeat"):
            answer = await ask(served, user, "POST", path, vitals, {"X-Device-ID": DEVICE})
            assert (answer.status, answer.json["error_type"]) == (400, "validation_error")
    assert await show(served, user) == [before]


async def test_a_device_without_an_id_of_its_own_is_refused(served: Served) -> None:
    user = await served.make_user()
    for path in (REGISTER, MOBILE, f"{PATH}/heartbeat"):
        for text in (None, "mine", "\xff\xfe", f"{DEVICE}x"):
            headers = {} if text is None else {"X-Device-ID": text}
            answer = await ask(served, user, "POST", path, {**DESKTOP, "status": "away"}, headers)
            assert (answer.status, answer.json["error_type"]) == (400, "bad_request")
            assert answer.json["message"].startswith("Bad request: X-Device-ID")


async def test_a_foreign_device_is_as_unknown_as_any_other_and_stays_as_it_is(served: Served, query: Query) -> None:
    ann, bob = await served.make_user(), await served.make_user("bob@example.com")
    await register(served, ann, localIps=["10.0.0.1"])
    await register_phone(served, ann)
    await Accounts(served.services.database).make_device(ann.id, UUID(int=3))
    rows = "SELECT devices::text FROM devices WHERE user_id = %s ORDER BY device_id"
    before = query(rows, ann.id), query("SELECT count(*) FROM device_presence_history")
    async with open_link(served, ann, link()):
        for device_id in (DEVICE, PHONE_ID, str(UUID(int=3))):
            headers = {"X-Device-ID": device_id}
            foreign = [
                await ask(served, bob, "DELETE", f"{PATH}/{device_id}"),
                await ask(served, bob, "POST", f"{PATH}/{device_id}/heartbeat", {"status": "away"}),
                await ask(served, bob, "POST", f"{PATH}/heartbeat", {"status": "away"}, headers),
                await ask(served, bob, "GET", f"{PATH}/{device_id}/connection-descriptor"),
            ]
            unknown = await ask(served, bob, "DELETE", f"{PATH}/{uuid4()}")
            assert {tell_error(answer)[:2] for answer in foreign} == {(404, "not_found")}
            assert foreign[0].body == foreign[1].body == unknown.body
        assert await show(served, bob) == []
        assert (await served.services.presence.list_links(ann.id)).keys() == {UUID(DEVICE)}
        assert (query(rows, ann.id), query("SELECT count(*) FROM device_presence_history")) == before


async def test_two_users_with_the_same_device_id_have_two_devices(served: Served, query: Query) -> None:
    ann, bob = await served.make_user(), await served.make_user("bob@example.com")
    await register(served, ann)
    rows = "SELECT devices::text FROM devices WHERE user_id = %s"
    before = query(rows, ann.id)
    assert (await register(served, bob, deviceName="Bob's", platform="linux")).status == 201
    async with open_link(served, ann, link()):
        (device,) = await show(served, bob)
        assert (device["deviceName"], device["isConnected"]) == ("Bob's", False)
        assert (await ask(served, bob, "DELETE", f"{PATH}/{DEVICE}")).status == 204
        (device,) = await show(served, ann)
        assert (device["deviceName"], device["isConnected"]) == ("Studio", True)
        assert query(rows, ann.id) == before


async def test_what_is_no_id_names_no_device(served: Served) -> None:
    user = await served.make_user()
    for text in ("mine", "1", DEVICE[:-1], f"%7B{DEVICE}%7D", "%00"):
        answer = await ask(served, user, "POST", f"{PATH}/{text}/heartbeat", {})
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")
