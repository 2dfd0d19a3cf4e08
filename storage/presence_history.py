"""What devices were like over time, and the end of it: those that are gone are offline, and old rows go."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from storage.postgres import Database

DeviceKey = tuple[UUID, UUID]
"""A user, and a device of its."""

FIRST: DeviceKey = (UUID(int=0), UUID(int=0))


@dataclass(frozen=True, slots=True)
class SilentDevice:
    user_id: UUID
    device_id: UUID
    last_heartbeat: datetime

    @property
    def key(self) -> DeviceKey:
        return (self.user_id, self.device_id)


@dataclass(frozen=True, slots=True)
class PresenceHistory:
    """The operator's alone: it spans users. Every method may be repeated."""

    database: Database

    async def mark_offline(self, devices: Collection[DeviceKey], silent_seconds: float = 0) -> set[DeviceKey]:
        """Offline, with no jobs and a row of history: those that are not yet and have not been heard of for so long.
        Says which: over all processes each is said to one.
        """
        users, ids = [user_id for user_id, _ in devices], [device_id for _, device_id in devices]
        parameters = {"users": users, "devices": ids, "silent": silent_seconds}
        return set(await self.database.as_operator("mark devices offline").fetch(_MARK_OFFLINE, parameters))

    async def find_silent(
        self, silent_seconds: float, limit: int, after: DeviceKey = FIRST
    ) -> Sequence[SilentDevice]:
        """Devices that said they were there and have not been heard of for so long, in the order of their keys."""
        user_id, device_id = after
        parameters = {"silent": silent_seconds, "limit": limit, "user": user_id, "device": device_id}
        rows = await self.database.as_operator("find silent devices").fetch(_FIND_SILENT, parameters)
        return [SilentDevice(*row) for row in rows]

    async def purge(self, older_than_days: int, limit: int = 1000) -> int:
        """Says how many rows went, at most the limit."""
        parameters = {"days": older_than_days, "limit": limit}
        return len(await self.database.as_operator("purge presence history").fetch(_PURGE, parameters))


# Rows are locked in one order, whoever marks them: no deadlock.
_MARK_OFFLINE: LiteralString = """
    WITH gone AS MATERIALIZED (
        SELECT devices.user_id, devices.device_id
        FROM devices
        JOIN unnest(%(users)s::uuid[], %(devices)s::uuid[]) AS asked (user_id, device_id) USING (user_id, device_id)
        WHERE status <> 'offline'
          AND (last_heartbeat IS NULL OR last_heartbeat <= now() - make_interval(secs => %(silent)s))
        ORDER BY devices.user_id, devices.device_id
        FOR NO KEY UPDATE OF devices
    ), changed AS (
        UPDATE devices SET status = 'offline', active_jobs = 0, updated_at = now()
        FROM gone WHERE devices.user_id = gone.user_id AND devices.device_id = gone.device_id
        RETURNING devices.user_id, devices.device_id, status, cpu_usage, memory_usage, disk_space_gb, active_jobs
    ), noted AS (
        INSERT INTO device_presence_history
            (user_id, device_id, status, cpu_usage, memory_usage, disk_space_gb, active_jobs)
        SELECT * FROM changed
    )
    SELECT user_id, device_id FROM changed
"""

_FIND_SILENT: LiteralString = """
    SELECT user_id, device_id, last_heartbeat FROM devices
    WHERE status <> 'offline' AND last_heartbeat < now() - make_interval(secs => %(silent)s)
      AND (user_id, device_id) > (%(user)s, %(device)s)
    ORDER BY user_id, device_id LIMIT %(limit)s
"""

_PURGE: LiteralString = """
    DELETE FROM device_presence_history
    WHERE id IN (SELECT id FROM device_presence_history
                 WHERE at < now() - make_interval(days => %(days)s) ORDER BY at LIMIT %(limit)s)
    RETURNING id
"""
