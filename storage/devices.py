"""Devices as their clients register them, each its user's and nobody else's."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, LiteralString
from uuid import UUID

import msgspec
from psycopg import errors

from storage.credits import UserUnknown
from storage.postgres import Database

DeviceType = Literal["desktop", "mobile"]
Status = Literal["online", "away", "offline"]

MAX_REGISTERED = 100
"""Of one user. Clients name themselves anew at every sign-out, and never remove what they were: the rest would stay."""
HISTORY_MINUTES = 5
"""While nothing changes, a row of history is written this often."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a device says of itself; all of it replaces what it said before. `public_ip` is an address that parses."""

    device_id: UUID
    device_name: str
    device_type: DeviceType
    platform: str
    platform_version: str | None
    app_version: str
    local_ips: list[str] | None = field(repr=False)
    public_ip: str | None = field(repr=False)
    available_ports: list[int] | None
    relay_eligible: bool
    capabilities: Any


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a heartbeat tells. None keeps what was told before; percents are 0 to 100."""

    status: Status = "online"
    cpu_usage: Decimal | None = None
    memory_usage: Decimal | None = None
    disk_space_gb: int | None = None
    active_jobs: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """`status` is as the device told it last; whether it is connected now, presence knows."""

    device_id: UUID
    device_name: str
    device_type: DeviceType
    platform: str
    platform_version: str | None
    app_version: str
    status: Status
    last_heartbeat: datetime | None
    cpu_usage: Decimal | None
    memory_usage: Decimal | None
    disk_space_gb: int | None
    active_jobs: int
    capabilities: Any
    relay_eligible: bool
    local_ips: list[str] = field(repr=False)
    available_ports: list[int] = field(repr=False)
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Devices:
    """Every method sees the devices of one user alone, and may be repeated. Texts hold no NUL character: PostgreSQL
    keeps none. Capabilities hold no number of more than 64 bits: it would not come back as it was.
    """

    database: Database

    async def register(self, user_id: UUID, registration: Registration) -> Device:
        """Made, or brought up to date. For one more than a user may have, the one that was heard of longest ago goes
        as if it were unlinked. Raises UserUnknown if the account has just been deleted.
        """
        parameters = {**asdict(registration), "user_id": user_id, "most": MAX_REGISTERED}
        for name in ("local_ips", "available_ports", "capabilities"):
            parameters[name] = _write_json(parameters[name])
        try:
            (row,) = await self.database.as_user(user_id).fetch(_LOCK_ALL + _REGISTER + _MAKE_ROOM + _FIND, parameters)
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: no device was registered") from error
        return Device(*row)

    async def list_desktops(self, user_id: UUID) -> list[Device]:
        """Those that have registered; the one that was heard of last comes first."""
        rows = await self.database.as_user(user_id).fetch(_LIST)
        return [Device(*row) for row in rows]

    async def find(self, user_id: UUID, device_id: UUID) -> Device | None:
        """One that has registered."""
        row = await self.database.as_user(user_id).fetch_one(_FIND, {"device_id": device_id})
        return Device(*row) if row else None

    async def unlink(self, user_id: UUID, device_id: UUID) -> bool:
        """With its push token and what was on its way to it. False if there is no such device, registered or not."""
        return await self.database.as_user(user_id).fetch_one(_UNLINK, {"device_id": device_id}) is not None

    async def note_heartbeat(self, user_id: UUID, device_id: UUID, vitals: Vitals) -> datetime | None:
        """When it was noted, by PostgreSQL's clock; None if no such device has registered. A row of history is added
        where the status changes, and where the last one is some minutes old.
        """
        parameters = {**asdict(vitals), "device_id": device_id, "minutes": HISTORY_MINUTES}
        row = await self.database.as_user(user_id).fetch_one(_LOCK_ONE + _NOTE_HEARTBEAT, parameters)
        return row[0] if row else None

    async def note_visibility(self, user_id: UUID, device_id: UUID, *, is_visible: bool) -> bool:
        """Whether the device may be reached through the relay; one that may not is offline, as it says itself. False if
        no such device has registered.
        """
        parameters = {"device_id": device_id, "is_visible": is_visible}
        return await self.database.as_user(user_id).fetch_one(_LOCK_ONE + _NOTE_VISIBILITY, parameters) is not None

    async def note_project(self, user_id: UUID, device_id: UUID, directory: str) -> bool:
        """`capabilities.activeProjectDirectory`. False if no such device has registered."""
        parameters = {"device_id": device_id, "directory": directory}
        return await self.database.as_user(user_id).fetch_one(_NOTE_PROJECT, parameters) is not None


def _write_json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


_COLUMNS: LiteralString = """
    device_id, device_name, device_type, platform, platform_version, app_version, status, last_heartbeat, cpu_usage,
    memory_usage, disk_space_gb, active_jobs, capabilities, relay_eligible, coalesce(local_ips, '[]'),
    coalesce(available_ports, '[]'), created_at, updated_at
"""

# Each lock is a statement of its own, so that the next one sees what was written while it was waited for.
_LOCK_ALL: LiteralString = "SELECT pg_advisory_xact_lock(hashtextextended('devices:' || %(user_id)s, 0));"
_LOCK_ONE: LiteralString = """
    SELECT FROM devices WHERE user_id = app_user_id() AND device_id = %(device_id)s FOR NO KEY UPDATE;
"""

# A device that is known from a sign-in or a push token alone takes its place when it registers.
_REGISTER: LiteralString = """
    WITH before AS (
        SELECT status FROM devices
        WHERE user_id = app_user_id() AND device_id = %(device_id)s AND registered_at IS NOT NULL
    ), registered AS (
        INSERT INTO devices (
            user_id, device_id, device_name, device_type, platform, platform_version, app_version, local_ips, public_ip,
            available_ports, relay_eligible, capabilities, status, last_heartbeat, registered_at
        )
        VALUES (
            app_user_id(), %(device_id)s, %(device_name)s, %(device_type)s, %(platform)s, %(platform_version)s,
            %(app_version)s, %(local_ips)s::jsonb, %(public_ip)s::inet, %(available_ports)s::jsonb,
            %(relay_eligible)s, %(capabilities)s::jsonb, CASE WHEN %(relay_eligible)s THEN 'online' ELSE 'offline' END,
            CASE WHEN %(device_type)s = 'desktop' THEN now() END, now()
        )
        ON CONFLICT (user_id, device_id) DO UPDATE SET
            device_name = excluded.device_name, device_type = excluded.device_type, platform = excluded.platform,
            platform_version = excluded.platform_version, app_version = excluded.app_version,
            local_ips = excluded.local_ips, public_ip = excluded.public_ip, available_ports = excluded.available_ports,
            relay_eligible = excluded.relay_eligible, capabilities = excluded.capabilities, status = excluded.status,
            last_heartbeat = coalesce(excluded.last_heartbeat, devices.last_heartbeat),
            registered_at = coalesce(devices.registered_at, excluded.registered_at), updated_at = now()
        RETURNING *
    )
    INSERT INTO device_presence_history (user_id, device_id, status)
    SELECT registered.user_id, registered.device_id, registered.status FROM registered LEFT JOIN before ON true
    WHERE registered.device_type = 'desktop' AND registered.status IS DISTINCT FROM before.status;
"""

# What a device tells sets `updated_at`, and so does the sweep, for all that it finds silent at once. A new device
# refers to its user's row, which is locked by now: the end of an account, which takes all devices, waits or has won.
_MAKE_ROOM: LiteralString = """
    DELETE FROM devices WHERE user_id = app_user_id() AND device_id IN (
        SELECT device_id FROM devices
        WHERE user_id = app_user_id() AND registered_at IS NOT NULL AND device_id <> %(device_id)s
        ORDER BY updated_at DESC, last_heartbeat DESC NULLS LAST, device_id OFFSET %(most)s - 1
    );
"""

_LIST: LiteralString = f"""
    SELECT {_COLUMNS} FROM devices
    WHERE user_id = app_user_id() AND device_type = 'desktop' AND registered_at IS NOT NULL
    ORDER BY last_heartbeat DESC NULLS LAST, created_at DESC, device_id
"""  # noqa: S608 - made of constants

_FIND: LiteralString = f"""
    SELECT {_COLUMNS} FROM devices
    WHERE user_id = app_user_id() AND device_id = %(device_id)s AND registered_at IS NOT NULL
"""  # noqa: S608 - made of constants

_UNLINK: LiteralString = """
    DELETE FROM devices WHERE user_id = app_user_id() AND device_id = %(device_id)s RETURNING 1
"""

_NOTE_HEARTBEAT: LiteralString = """
    WITH before AS (
        SELECT user_id, device_id, status FROM devices
        WHERE user_id = app_user_id() AND device_id = %(device_id)s AND registered_at IS NOT NULL
    ), noted AS (
        UPDATE devices SET
            status = %(status)s, last_heartbeat = now(), updated_at = now(), active_jobs = %(active_jobs)s,
            cpu_usage = coalesce(%(cpu_usage)s::numeric, cpu_usage),
            memory_usage = coalesce(%(memory_usage)s::numeric, memory_usage),
            disk_space_gb = coalesce(%(disk_space_gb)s::bigint, disk_space_gb)
        FROM before WHERE devices.user_id = before.user_id AND devices.device_id = before.device_id
        RETURNING devices.*
    ), history AS (
        INSERT INTO device_presence_history (
            user_id, device_id, status, cpu_usage, memory_usage, disk_space_gb, active_jobs
        )
        SELECT noted.user_id, noted.device_id, noted.status, cpu_usage, memory_usage, disk_space_gb, active_jobs
        FROM noted JOIN before USING (user_id, device_id)
        WHERE noted.status <> before.status OR NOT EXISTS (
            SELECT FROM device_presence_history AS earlier
            WHERE earlier.user_id = noted.user_id AND earlier.device_id = noted.device_id
              AND earlier.at > now() - make_interval(mins => %(minutes)s)
        )
    )
    SELECT last_heartbeat FROM noted
"""

_NOTE_VISIBILITY: LiteralString = """
    WITH before AS (
        SELECT user_id, device_id, status FROM devices
        WHERE user_id = app_user_id() AND device_id = %(device_id)s AND registered_at IS NOT NULL
    ), noted AS (
        UPDATE devices SET
            relay_eligible = %(is_visible)s, updated_at = now(),
            status = CASE WHEN %(is_visible)s THEN devices.status ELSE 'offline' END
        FROM before WHERE devices.user_id = before.user_id AND devices.device_id = before.device_id
        RETURNING devices.*
    ), history AS (
        INSERT INTO device_presence_history (user_id, device_id, status)
        SELECT noted.user_id, noted.device_id, noted.status
        FROM noted JOIN before USING (user_id, device_id) WHERE noted.status <> before.status
    )
    SELECT 1 FROM noted
"""

_NOTE_PROJECT: LiteralString = """
    UPDATE devices SET
        capabilities = CASE WHEN jsonb_typeof(capabilities) = 'object' THEN capabilities ELSE '{}' END
            || jsonb_build_object('activeProjectDirectory', %(directory)s::text),
        updated_at = now()
    WHERE user_id = app_user_id() AND device_id = %(device_id)s AND registered_at IS NOT NULL
    RETURNING 1
"""
