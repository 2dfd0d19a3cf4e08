"""Devices: each its user's and nobody else's, whatever ids are told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import LiteralString
from uuid import UUID, uuid4

import pytest
import trio

from storage.accounts import Accounts
from storage.credits import UserUnknown
from storage.devices import MAX_REGISTERED, Device, Devices, Registration, Vitals
from storage.postgres import Database, open_database
from tests.storage.people import Query

DEVICE = UUID("d1d1d1d1-0000-4000-8000-00000000000d")
DESKTOP = Registration(
    device_id=DEVICE,
    device_name=" Studio ",
    device_type="desktop",
    platform="macos",
    platform_version="15.1",
    app_version="1.2.3",
    local_ips=["10.0.0.1"],
    public_ip="2001:db8::1",
    available_ports=[8080, 0],
    relay_eligible=True,
    capabilities={"supportsTerminal": True, "deep": [{"a": [1.5, -(2**63), None]}], "text": "é😀"},
)
PHONE = replace(DESKTOP, device_type="mobile", platform="ios", relay_eligible=False)

LOCK_USERS: LiteralString = "SELECT FROM users FOR UPDATE"
LOCK_DEVICES: LiteralString = "SELECT FROM devices FOR UPDATE"


@pytest.fixture
async def devices(database_url: str) -> AsyncIterator[Devices]:
    async with open_database(database_url, size=8) as database:
        yield Devices(database)


@pytest.fixture
async def ann(devices: Devices) -> UUID:
    return await make_user(devices.database, "ann@example.com")


@pytest.fixture
async def bob(devices: Devices) -> UUID:
    return await make_user(devices.database, "bob@example.com")


async def make_user(database: Database, email: str) -> UUID:
    return (await Accounts(database).make_user(email)).id


async def find(devices: Devices, user_id: UUID) -> Device:
    device = await devices.find(user_id, DEVICE)
    assert device is not None
    return device


@asynccontextmanager
async def hold_up(devices: Devices, query: Query, lock: LiteralString, waiting: int) -> AsyncIterator[None]:
    """What the block starts waits for a lock, and goes on when so many wait: all have begun before any has ended."""
    async with devices.database.as_operator("test").transaction() as connection:
        await connection.send(connection.bind(lock, []))
        yield
        await wait_for_locks(query, waiting)


async def wait_for_locks(query: Query, waiting: int) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with trio.fail_after(4):
        while query(count) != [(waiting,)]:
            await trio.sleep(0.005)


def list_history(query: Query) -> list[str]:
    return [status for (status,) in query("SELECT status FROM device_presence_history ORDER BY id")]


async def test_a_desktop_that_registers_is_found_and_listed_as_it_said(devices: Devices, ann: UUID) -> None:
    device = await devices.register(ann, DESKTOP)
    assert await devices.find(ann, DEVICE) == device
    assert await devices.list_desktops(ann) == [device]
    assert device == Device(
        device_id=DEVICE,
        device_name=" Studio ",
        device_type="desktop",
        platform="macos",
        platform_version="15.1",
        app_version="1.2.3",
        status="online",
        last_heartbeat=device.created_at,
        cpu_usage=None,
        memory_usage=None,
        disk_space_gb=None,
        active_jobs=0,
        capabilities=DESKTOP.capabilities,
        relay_eligible=True,
        local_ips=["10.0.0.1"],
        available_ports=[8080, 0],
        created_at=device.created_at,
        updated_at=device.created_at,
    )


async def test_registering_again_replaces_everything_that_was_said(devices: Devices, ann: UUID, query: Query) -> None:
    first = await devices.register(ann, DESKTOP)
    bare = replace(
        DESKTOP,
        device_name="Laptop",
        platform="linux",
        platform_version=None,
        app_version="2",
        local_ips=None,
        public_ip=None,
        available_ports=None,
        relay_eligible=False,
        capabilities={},
    )
    second = await devices.register(ann, bare)
    assert (second.device_name, second.platform, second.platform_version) == ("Laptop", "linux", None)
    assert (second.app_version, second.capabilities, second.relay_eligible) == ("2", {}, False)
    assert (second.local_ips, second.available_ports, second.status) == ([], [], "offline")
    assert second.created_at == first.created_at < second.updated_at == second.last_heartbeat
    assert query("SELECT local_ips, public_ip, available_ports FROM devices") == [(None, None, None)]
    assert list_history(query) == ["online", "offline"]


async def test_a_phone_is_registered_without_a_heartbeat_and_listed_nowhere(devices: Devices, ann: UUID) -> None:
    phone = await devices.register(ann, PHONE)
    assert (phone.status, phone.last_heartbeat) == ("offline", None)
    assert await devices.find(ann, DEVICE) == phone
    assert await devices.list_desktops(ann) == []


async def test_what_is_known_from_a_sign_in_alone_is_no_device_until_it_registers(devices: Devices, ann: UUID) -> None:
    await Accounts(devices.database).make_device(ann, DEVICE)
    assert await devices.find(ann, DEVICE) is None
    assert await devices.list_desktops(ann) == []
    assert await devices.note_heartbeat(ann, DEVICE, Vitals()) is None
    assert not await devices.note_visibility(ann, DEVICE, is_visible=True)
    assert not await devices.note_project(ann, DEVICE, "/src")
    assert await devices.register(ann, DESKTOP) == await devices.find(ann, DEVICE)


async def test_one_device_that_registers_ten_times_at_once_is_one_device(
    devices: Devices, ann: UUID, query: Query
) -> None:
    async with trio.open_nursery() as nursery, hold_up(devices, query, LOCK_USERS, 7):
        for number in range(10):
            nursery.start_soon(devices.register, ann, replace(DESKTOP, app_version=str(number)))
    assert len(await devices.list_desktops(ann)) == 1
    assert list_history(query) == ["online"]


async def test_the_device_that_was_heard_of_last_comes_first(devices: Devices, ann: UUID, query: Query) -> None:
    ids = [uuid4() for _ in range(3)]
    for device_id in ids:
        await devices.register(ann, replace(DESKTOP, device_id=device_id))
    await devices.note_heartbeat(ann, ids[0], Vitals())
    query("UPDATE devices SET last_heartbeat = NULL WHERE device_id = %s RETURNING 1", ids[2])
    assert [device.device_id for device in await devices.list_desktops(ann)] == [ids[0], ids[1], ids[2]]


def add_phones(query: Query, user_id: UUID, count: int) -> list[UUID]:
    """Registered and heard of a day ago and later; the first one longest ago. It has a push token."""
    rows = query(
        "INSERT INTO devices (user_id, device_id, device_type, registered_at, updated_at)"
        " SELECT %s, gen_random_uuid(), 'mobile', now(), now() - interval '1 day' + make_interval(secs => number)"
        " FROM generate_series(1, %s) AS number RETURNING device_id, updated_at",
        user_id,
        count,
    )
    ids = [device_id for device_id, _ in sorted(rows, key=lambda row: row[1])]
    query(
        "INSERT INTO push_tokens (user_id, device_id, platform, token) VALUES (%s, %s, 'ios', 'a') RETURNING 1",
        user_id,
        ids[0],
    )
    return ids


def list_ids(query: Query, user_id: UUID) -> set[UUID]:
    return {device_id for (device_id,) in query("SELECT device_id FROM devices WHERE user_id = %s", user_id)}


async def test_for_one_device_too_many_the_one_that_was_heard_of_longest_ago_makes_room(
    devices: Devices, ann: UUID, bob: UUID, query: Query
) -> None:
    await Accounts(devices.database).make_device(ann, UUID(int=1))
    query("UPDATE devices SET updated_at = now() - interval '1 year' RETURNING 1")
    ids = add_phones(query, ann, MAX_REGISTERED)
    await devices.register(bob, DESKTOP)
    assert await devices.register(ann, DESKTOP) == await devices.find(ann, DEVICE)
    assert list_ids(query, ann) == {UUID(int=1), DEVICE, *ids[1:]}
    assert list_ids(query, bob) == {DEVICE}
    await devices.note_heartbeat(ann, ids[1], Vitals())
    await devices.register(ann, replace(DESKTOP, device_id=UUID(int=1)))
    assert list_ids(query, ann) == {UUID(int=1), DEVICE, ids[1], *ids[3:]}


async def test_a_device_that_registers_again_makes_room_for_nobody(devices: Devices, ann: UUID, query: Query) -> None:
    ids = add_phones(query, ann, MAX_REGISTERED)
    await devices.register(ann, replace(PHONE, device_id=ids[0]))
    assert list_ids(query, ann) == set(ids)


async def test_of_those_that_the_sweep_found_silent_at_once_the_one_that_was_silent_longest_makes_room(
    devices: Devices, ann: UUID, query: Query
) -> None:
    ids = add_phones(query, ann, MAX_REGISTERED)
    query("UPDATE devices SET last_heartbeat = updated_at, updated_at = now() - interval '1 hour' RETURNING 1")
    await devices.register(ann, DESKTOP)
    assert list_ids(query, ann) == {DEVICE, *ids[1:]}


async def test_there_are_never_more_than_a_user_may_have_also_if_many_register_at_once(
    devices: Devices, ann: UUID, query: Query
) -> None:
    ids = add_phones(query, ann, MAX_REGISTERED - 1)
    async with trio.open_nursery() as nursery, hold_up(devices, query, LOCK_USERS, 5):
        for _ in range(5):
            nursery.start_soon(devices.register, ann, replace(DESKTOP, device_id=uuid4()))
    assert len(await devices.list_desktops(ann)) == 5
    assert len(list_ids(query, ann)) == MAX_REGISTERED
    assert not set(ids[:4]) & list_ids(query, ann)


async def test_an_account_that_is_deleted_while_a_device_makes_room_is_waited_for(
    devices: Devices, ann: UUID, query: Query
) -> None:
    """Neither waits for the other in a circle: the account is gone, and the device hears of it."""
    add_phones(query, ann, MAX_REGISTERED)
    unknown = []

    async def register() -> None:
        try:
            await devices.register(ann, DESKTOP)
        except UserUnknown:
            unknown.append(1)

    async with trio.open_nursery() as nursery, devices.database.as_operator("test").transaction() as connection:
        await connection.send(connection.bind(LOCK_USERS, []))
        nursery.start_soon(register)
        await wait_for_locks(query, 1)
        await connection.send(connection.bind("DELETE FROM users WHERE id = %s", [ann]))
    assert unknown == [1]


async def test_an_unlinked_device_is_gone_with_its_push_token_and_what_was_on_its_way(
    devices: Devices, ann: UUID, query: Query
) -> None:
    await devices.register(ann, PHONE)
    (token,) = query(
        "INSERT INTO push_tokens (user_id, device_id, platform, token) VALUES (%s, %s, 'ios', 'a') RETURNING id",
        ann,
        DEVICE,
    )
    (notification,) = query(
        "INSERT INTO notifications (user_id, kind, title, body, is_silent, deliver_until)"
        " VALUES (%s, 'test', '', '', false, now()) RETURNING id",
        ann,
    )
    query(
        "INSERT INTO notification_deliveries (notification_id, token_id, user_id, platform)"
        " VALUES (%s, %s, %s, 'ios') RETURNING 1",
        *notification,
        *token,
        ann,
    )
    assert await devices.unlink(ann, DEVICE)
    assert not await devices.unlink(ann, DEVICE)
    assert query("SELECT 1 FROM devices UNION ALL SELECT 1 FROM push_tokens") == []
    assert query("SELECT 1 FROM notification_deliveries UNION ALL SELECT 1 FROM device_presence_history") == []


async def test_a_heartbeat_keeps_what_it_does_not_tell(devices: Devices, ann: UUID) -> None:
    await devices.register(ann, DESKTOP)
    await devices.note_heartbeat(ann, DEVICE, Vitals("away", Decimal("12.345"), Decimal(100), 2**63 - 1, 3))
    told = await find(devices, ann)
    at = await devices.note_heartbeat(ann, DEVICE, Vitals())
    assert at is not None
    assert (told.status, told.cpu_usage, told.memory_usage) == ("away", Decimal("12.35"), Decimal(100))
    assert (told.disk_space_gb, told.active_jobs) == (2**63 - 1, 3)
    assert await find(devices, ann) == replace(told, status="online", active_jobs=0, last_heartbeat=at, updated_at=at)


async def test_history_has_a_row_where_the_status_changes_and_one_in_five_minutes(
    devices: Devices, ann: UUID, query: Query
) -> None:
    await devices.register(ann, DESKTOP)
    for _ in range(3):
        await devices.note_heartbeat(ann, DEVICE, Vitals())
    assert list_history(query) == ["online"]
    await devices.note_heartbeat(ann, DEVICE, Vitals("away", Decimal(5), Decimal(6), 7, 8))
    assert list_history(query) == ["online", "away"]
    query("UPDATE device_presence_history SET at = at - interval '5 minutes' RETURNING 1")
    async with trio.open_nursery() as nursery, hold_up(devices, query, LOCK_DEVICES, 4):
        for _ in range(4):
            nursery.start_soon(devices.note_heartbeat, ann, DEVICE, Vitals("away"))
    columns = "status, cpu_usage, memory_usage, disk_space_gb, active_jobs"
    rows = query(f"SELECT {columns} FROM device_presence_history ORDER BY id OFFSET 1")  # noqa: S608 - constants
    assert rows == [("away", 5, 6, 7, 8), ("away", 5, 6, 7, 0)]


async def test_a_desktop_that_hides_is_offline_and_not_reachable(devices: Devices, ann: UUID, query: Query) -> None:
    await devices.register(ann, DESKTOP)
    assert await devices.note_visibility(ann, DEVICE, is_visible=False)
    hidden = await find(devices, ann)
    assert (hidden.relay_eligible, hidden.status) == (False, "offline")
    assert await devices.note_visibility(ann, DEVICE, is_visible=True)
    shown = await find(devices, ann)
    assert (shown.relay_eligible, shown.status) == (True, "offline")
    assert list_history(query) == ["online", "offline"]


@pytest.mark.parametrize("capabilities", [{"activeProjectDirectory": "/old", "a": 1}, [1], "text"])
async def test_the_project_of_a_device_is_noted_among_its_capabilities(
    devices: Devices, ann: UUID, capabilities: object
) -> None:
    await devices.register(ann, replace(DESKTOP, capabilities=capabilities))
    assert await devices.note_project(ann, DEVICE, "/src/ä")
    others = {"a": 1} if isinstance(capabilities, dict) else {}
    assert (await find(devices, ann)).capabilities == {"activeProjectDirectory": "/src/ä", **others}


async def test_two_users_may_have_a_device_of_the_same_id(devices: Devices, ann: UUID, bob: UUID) -> None:
    of_ann = await devices.register(ann, DESKTOP)
    of_bob = await devices.register(bob, replace(DESKTOP, device_name="Bob's", platform="windows"))
    assert (of_bob.device_name, of_bob.platform) == ("Bob's", "windows")
    assert await devices.find(ann, DEVICE) == of_ann
    assert await devices.unlink(bob, DEVICE)
    assert await devices.find(ann, DEVICE) == of_ann


async def test_nothing_that_one_user_does_reaches_a_device_of_another(
    devices: Devices, ann: UUID, bob: UUID, query: Query
) -> None:
    await devices.register(ann, DESKTOP)
    before = query("SELECT devices::text FROM devices"), list_history(query)
    assert await devices.find(bob, DEVICE) is None
    assert await devices.list_desktops(bob) == []
    assert await devices.note_heartbeat(bob, DEVICE, Vitals("away")) is None
    assert not await devices.note_visibility(bob, DEVICE, is_visible=False)
    assert not await devices.note_project(bob, DEVICE, "/bob")
    assert not await devices.unlink(bob, DEVICE)
    assert (query("SELECT devices::text FROM devices"), list_history(query)) == before


async def test_a_device_of_an_account_that_is_gone_is_not_registered(devices: Devices) -> None:
    with pytest.raises(UserUnknown):
        await devices.register(uuid4(), DESKTOP)


async def test_addresses_and_ports_show_in_no_repr(devices: Devices, ann: UUID) -> None:
    shown = repr(DESKTOP) + repr(await devices.register(ann, DESKTOP))
    assert "10.0.0.1" not in shown
    assert "2001:db8" not in shown
