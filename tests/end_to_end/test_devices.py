"""Devices as the shipped apps see them: what desktop and phone really send, and what they make of the answers."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.auth.tokens import issue_token
from storage.presence import ClientType, Link, PresenceTable
from storage.redis import open_redis
from tests.end_to_end import client_decoders as clients
from tests.end_to_end.asking import Reply
from tests.end_to_end.client_decoders import PhoneDates, decode
from tests.end_to_end.cloche import SECRET, Cloche, Customer, Stores, open_cloche
from tests.end_to_end.push_scene import make_token, move, send

STUDIO = {
    "deviceName": "Studio",
    "deviceType": "desktop",
    "platform": "macos",
    "platformVersion": "macos",
    "appVersion": "1.2.3",
    "relayEligible": True,
    "capabilities": {
        "supportsTerminal": True,
        "supportsFileBrowser": True,
        "supportsImplementationPlans": True,
        "activeProjectDirectory": "/home/me/proj",
    },
}
"""As the desktop sends it, before every connection."""
IPHONE = {"deviceName": "iPhone", "platform": "ios", "appVersion": "1.2.3"}
JSON_TYPE = {"Content-Type": "application/json"}
"""The phone says it of every request, also of those that have no body."""
HEARTBEAT = {"cpuUsage": 12.5, "memoryUsage": 40, "diskSpaceGb": 100, "activeJobs": 2, "status": "online"}
MOMENTS = [
    datetime(2026, 2, 3, 4, 5, 6, microseconds, tzinfo=UTC)
    for microseconds in (0, 1, 1_000, 123_000, 500_000, 123_456, 999_999)
]


def name_device(who: Customer, device_id: UUID) -> Customer:
    """The same user, signed in on a device of this id. Apps make ids; nothing keeps anybody from naming another's."""
    device = str(device_id)
    token = issue_token(
        SECRET, user_id=who.user_id, email="bob@example.com", role="user", device_id=device, now=time.time(), days=1
    )
    return Customer(who.user_id, {"Authorization": f"Bearer {token}", "X-Device-ID": device, "X-Token-Binding": device})


def as_desktop(who: Customer) -> dict[str, str]:
    return {**who.headers, "X-Client-Type": "desktop"}


def as_phone(who: Customer) -> dict[str, str]:
    return {**who.headers, "X-Client-Type": "mobile"}


def device_of(who: Customer) -> UUID:
    return UUID(who.headers["X-Device-ID"])


async def register_desktop(cloche: Cloche, who: Customer, **members: Any) -> Reply:
    reply = await send(cloche, "POST", "/api/devices/register", as_desktop(who), {**STUDIO, **members})
    assert reply.status == 201, reply
    return reply


async def list_on_phone(cloche: Cloche, phone: Customer, query: str = "") -> list[clients.PhoneDevice]:
    reply = await send(cloche, "GET", f"/api/devices{query}", as_phone(phone))
    assert reply.status == 200, reply
    return decode(reply.body, list[clients.PhoneDevice])


def assert_refused(reply: Reply, status: int, word: str) -> None:
    assert reply.status == status, reply
    assert word in decode(reply.body, clients.DesktopError).message
    assert decode(reply.body, clients.PhoneError).code == status


async def test_a_desktop_registers_before_every_connection_and_is_the_same_one(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        who = await cloche.make_customer()
        first = decode((await register_desktop(cloche, who)).body, clients.DesktopRegistered)
        again = decode((await register_desktop(cloche, who, appVersion="1.2.4")).body, clients.DesktopRegistered)
        assert first.device_id == again.device_id == device_of(who)
        assert first.created_at == again.created_at
        assert PhoneDates().decode(again.updated_at) > PhoneDates().decode(first.updated_at)
        (listed,) = await list_on_phone(cloche, move(who))
        assert (listed.device_name, listed.platform, listed.app_version) == ("Studio", "macos", "1.2.4")
        assert listed.capabilities is not None
        assert listed.capabilities.active_project_directory == "/home/me/proj"


async def test_a_phone_that_registers_as_a_desktop_is_refused_and_nothing_of_it_is_kept(stores: Stores) -> None:
    """It does so after each login, and does not look at the answer."""
    async with open_cloche(stores) as cloche:
        phone = await cloche.make_customer()
        body = {**IPHONE, "deviceType": "mobile", "deviceId": str(device_of(phone)), "relayEligible": False}
        reply = await send(cloche, "POST", "/api/devices/register", as_phone(phone), body)
        assert_refused(reply, 400, "Bad request: invalid_client_type")
        assert cloche.query("SELECT 1 FROM devices WHERE registered_at IS NOT NULL") == []


async def test_a_phone_registers_and_says_where_pushes_reach_it_in_either_order(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        for is_token_first in (True, False):
            phone, token = await cloche.make_customer(), make_token()
            put = ("PUT", "/api/devices/push-token", {"platform": "ios", "token": token}, 200)
            register = ("POST", "/api/devices/mobile/register", IPHONE, 201)
            for method, path, body, status in (put, register) if is_token_first else (register, put, register):
                reply = await send(cloche, method, path, as_phone(phone), body)
                assert reply.status == status, reply
                if status == 200:
                    assert reply.json == {"success": True}
                else:
                    registered = decode(reply.body, clients.PhoneRegistered)
                    assert (registered.device_id, registered.device_type) == (device_of(phone), "mobile")
                    assert registered.is_connected is False
            kept = "SELECT device_id, platform, token FROM push_tokens WHERE user_id = %s"
            assert cloche.query(kept, phone.user_id) == [(device_of(phone), "ios", token)]
            assert await list_on_phone(cloche, phone) == []


async def test_the_phone_decodes_every_date_whatever_its_fraction(stores: Stores) -> None:
    """Microseconds of 0, of whole milliseconds, and others: with one formatter, which one mistake would spoil."""
    statement = """
        UPDATE devices SET created_at = %s, updated_at = %s, last_heartbeat = %s WHERE device_id = %s RETURNING 1
    """
    async with open_cloche(stores) as cloche:
        phone = await cloche.make_customer()
        written = {}
        for number, moment in enumerate(MOMENTS):
            desktop = move(phone)
            await register_desktop(cloche, desktop)
            times = (moment, moment + timedelta(hours=1), None if number == 3 else moment + timedelta(hours=2))
            written[device_of(desktop)] = times
            cloche.query(statement, *times, device_of(desktop))
        dates = PhoneDates()
        found = {
            device.device_id: tuple(
                text and dates.decode(text) for text in (device.created_at, device.updated_at, device.last_heartbeat)
            )
            for device in await list_on_phone(cloche, phone)
        }
        assert found == written


@pytest.mark.parametrize("spoiler", ["2026-02-03T04:05:06Z", "2026-02-03T04:05:06+00:00"])
def test_a_date_without_a_fraction_would_cost_the_phone_all_later_ones(spoiler: str) -> None:
    """The check of this check, that it can fail."""
    dates = PhoneDates()
    good = "2026-02-03T04:05:06.123456Z"
    assert dates.decode(good) == datetime(2026, 2, 3, 4, 5, 6, 123_456, tzinfo=UTC)
    assert dates.decode(spoiler) == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    with pytest.raises(ValueError, match="no such date"):
        dates.decode(good)


@pytest.mark.parametrize("text", ["2026-02-03T04:05:06.123Z", "2026-02-03T04:05:06.123456+00:00"])
def test_the_phone_knows_no_other_fractions_or_zones(text: str) -> None:
    with pytest.raises(ValueError, match="no such date"):
        PhoneDates().decode(text)


@asynccontextmanager
async def open_link(
    stores: Stores, who: Customer, client_type: ClientType = "desktop", *, is_visible: bool = True
) -> AsyncIterator[None]:
    """What a socket of the device does in Redis."""
    link = Link(device_of(who), uuid4(), "test", client_type, "Studio", is_visible=is_visible)
    async with open_redis(stores.redis_url) as redis:
        table = PresenceTable(redis)
        await table.enter(who.user_id, link)
        yield
        await table.leave(who.user_id, link.device_id, link.connection_id)


async def test_a_desktop_is_online_exactly_while_it_is_connected_whatever_it_told(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        desktop = await cloche.make_customer()
        phone = move(desktop)

        async def look() -> tuple[str, bool, float | None]:
            (device,) = await list_on_phone(cloche, phone)
            return device.status, device.is_connected, device.cpu_usage

        await register_desktop(cloche, desktop)
        assert await look() == ("offline", False, None)
        path = f"/api/devices/{device_of(desktop)}/heartbeat"
        assert (await send(cloche, "POST", path, as_desktop(desktop), HEARTBEAT)).status == 200
        assert await look() == ("offline", False, 12.5)
        async with open_link(stores, desktop):
            assert await look() == ("online", True, 12.5)
            await send(cloche, "POST", path, as_desktop(desktop), {"status": "offline"})
            assert await look() == ("online", True, 12.5)
        assert await look() == ("offline", False, 12.5)
        async with open_link(stores, desktop, is_visible=False):
            assert await look() == ("offline", False, 12.5)
        async with open_link(stores, desktop, "mobile"):
            assert await look() == ("offline", False, 12.5)


@pytest.mark.parametrize(
    "query", ["?device_type=desktop&connected_only=true", "?deviceType=desktop&connectedOnly=true"]
)
async def test_the_phone_asks_for_desktops_that_are_connected_in_its_own_spelling(stores: Stores, query: str) -> None:
    async with open_cloche(stores) as cloche:
        desktop = await cloche.make_customer()
        phone, other = move(desktop), move(desktop)
        for one in (desktop, other):
            await register_desktop(cloche, one)
        async with open_link(stores, desktop):
            assert [device.device_id for device in await list_on_phone(cloche, phone, query)] == [device_of(desktop)]
            assert len(await list_on_phone(cloche, phone)) == 2
            for of_phones in ("?device_type=mobile", "?deviceType=mobile"):
                assert await list_on_phone(cloche, phone, of_phones) == []
        assert await list_on_phone(cloche, phone, query) == []


async def test_an_unlinked_desktop_is_gone_until_it_registers_again(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        desktop = await cloche.make_customer()
        phone = move(desktop)
        await register_desktop(cloche, desktop)
        path = f"/api/devices/{str(device_of(desktop)).upper()}"
        async with open_link(stores, desktop):
            gone = await send(cloche, "DELETE", path, {**as_phone(phone), **JSON_TYPE})
            assert (gone.status, gone.body) == (204, b"")
            assert_refused(await send(cloche, "DELETE", path, as_phone(phone)), 404, "Not found: ")
            assert await list_on_phone(cloche, phone) == []
            await register_desktop(cloche, desktop)
            (back,) = await list_on_phone(cloche, phone)
            assert (back.status, back.is_connected) == ("offline", False)


TABLES = ("devices", "push_tokens", "device_presence_history", "notifications", "notification_deliveries")
DELIVERY = """
    WITH told AS (
        INSERT INTO notifications (user_id, kind, title, body, is_silent, deliver_until)
        VALUES (%s, 'job_completed', 'Done', 'It is done', false, now() + interval '1 day') RETURNING id, user_id
    )
    INSERT INTO notification_deliveries (notification_id, token_id, user_id, platform)
    SELECT told.id, push_tokens.id, user_id, platform FROM told JOIN push_tokens USING (user_id) RETURNING 1
"""
TOKEN = make_token()
Asked = tuple[str, str, Mapping[str, Any] | None]
BY_PATH: list[Asked] = [
    ("POST", "/{id}/heartbeat", HEARTBEAT),
    ("PUT", "/{id}/push-token", {"pushToken": TOKEN}),
    ("POST", "/{id}/push-token", {"pushToken": TOKEN}),
    ("GET", "/{id}/connection-descriptor", None),
    ("DELETE", "/{id}", None),
]
BY_HEADER: list[tuple[*Asked, int]] = [
    ("POST", "/heartbeat", HEARTBEAT, 404),
    ("POST", "/register", {**STUDIO, "deviceName": "Taken", "capabilities": {}}, 201),
    ("POST", "/mobile/register", {**IPHONE, "pushToken": TOKEN}, 201),
    ("PUT", "/push-token", {"platform": "ios", "token": TOKEN}, 200),
    ("POST", "/push-token", {"pushToken": TOKEN}, 200),
    ("POST", "/push/register", {"deviceToken": TOKEN, "platform": "ios", "environment": "production"}, 200),
]
"""What makes a device makes one of the caller's own, which has the same id."""


@asynccontextmanager
async def open_two_users(stores: Stores) -> AsyncIterator[tuple[Cloche, Customer, Customer]]:
    """A desktop with all that can be known of it, pushes on their way included; and a stranger who knows its id."""
    async with open_cloche(stores) as cloche:
        owner, stranger = await cloche.make_customer(), await cloche.make_customer()
        path = f"/api/devices/{device_of(owner)}"
        await register_desktop(cloche, owner, deviceName="Secret Studio")
        for sub, body in (("heartbeat", HEARTBEAT), ("push-token", {"pushToken": make_token()})):
            assert (await send(cloche, "POST", f"{path}/{sub}", as_desktop(owner), body)).status == 200
        assert len(cloche.query(DELIVERY, owner.user_id)) == 1
        yield cloche, owner, stranger


def rows_of(cloche: Cloche, owner: Customer) -> Mapping[str, list[str]]:
    """All that is kept of the owner's devices."""
    statement = "SELECT to_jsonb({0}) FROM {0} WHERE user_id = %s"
    found = {table: cloche.query(statement.format(table), owner.user_id) for table in TABLES}
    return {table: sorted(json.dumps(row) for (row,) in rows) for table, rows in found.items()}


def assert_tells_nothing(reply: Reply) -> None:
    assert not [word for word in (b"Secret Studio", b"/home/me/proj", b"12.5") if word in reply.body], reply


async def test_a_foreign_device_in_a_path_is_as_unknown_as_one_that_nobody_has(stores: Stores) -> None:
    async with open_two_users(stores) as (cloche, owner, stranger):
        before = rows_of(cloche, owner)
        assert all(before.values())
        for method, path, body in BY_PATH:
            answers = []
            for device_id in (device_of(owner), uuid4()):
                place = "/api/devices" + path.format(id=device_id)
                reply = await send(cloche, method, place, as_desktop(stranger), body)
                assert_refused(reply, 404, "Not found: ")
                assert_tells_nothing(reply)
                answers.append((reply.json["message"], sorted(reply.json)))
            assert answers[0] == answers[1], path
        assert rows_of(cloche, owner) == before
        assert await list_on_phone(cloche, stranger) == []


async def test_a_foreign_device_in_a_header_is_the_callers_own_one_and_not_the_others(stores: Stores) -> None:
    async with open_two_users(stores) as (cloche, owner, stranger):
        impostor = name_device(stranger, device_of(owner))
        before = rows_of(cloche, owner)
        for method, path, body, status in BY_HEADER:
            reply = await send(cloche, method, f"/api/devices{path}", as_desktop(impostor), body)
            assert reply.status == status, (path, reply)
            assert_tells_nothing(reply)
            assert rows_of(cloche, owner) == before, path
        assert [len(rows) for rows in rows_of(cloche, impostor).values()][:2] == [1, 1]
        for method, path, body in BY_PATH:
            place = "/api/devices" + path.format(id=device_of(owner))
            reply = await send(cloche, method, place, as_desktop(impostor), body)
            assert_tells_nothing(reply)
            assert rows_of(cloche, owner) == before, path
        (device,) = await list_on_phone(cloche, owner)
        assert (device.device_name, device.cpu_usage) == ("Secret Studio", 12.5)
        async with open_link(stores, impostor):
            (device,) = await list_on_phone(cloche, owner)
            assert device.is_connected is False
