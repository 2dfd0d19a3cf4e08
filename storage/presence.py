"""Which devices are connected at this moment, in Redis: by whom, since when, and until when if nothing more is heard.

A user's devices are the fields of one hash, which a script reads and writes whole; it stays for a day after the last of
them was heard of, so that a device that comes back is known. An index of all links says when each is to be looked at:
as it lies in another slot of Redis Cluster, a link is entered there first, and nothing but the sweep takes it out. It
names the connection, so an entry that is late, or too many, is found to be nobody's and goes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID

import msgspec
from coredis.tokens import PureToken

from storage.device_events import events_channel
from storage.errors import RedisUnavailable
from storage.presence_scripts import (
    ABANDON,
    ADD_DUE,
    CLAIM_DUE,
    DROP,
    ENTER,
    EXPIRE,
    LEAVE,
    LIST,
    READ_AGE,
    SET_DUE,
    SET_VISIBLE,
    TELL_SILENT,
    TOUCH,
)
from storage.redis import LuaScript, Redis, command, milliseconds

ClientType = Literal["desktop", "mobile", "other"]
Standing = Literal["kept", "lost", "replaced", "dropped"]
"""What has become of a connection's link. `lost`: it has expired, or Redis has forgotten it, and perhaps an older
connection has come first since; it may be resumed. `replaced`: the device has a newer connection, or had one.
`dropped`: the device was unlinked.
"""

MEMORY_SECONDS = 86_400
MAX_KNOWN = 200
"""Devices of one user that Redis remembers; of more, those that are not linked go, the oldest first."""
CLAIM_SECONDS = 15
"""For so long a sweep has what it claimed for itself. If it is gone, another looks again: nothing is told twice."""


@dataclass(frozen=True, slots=True)
class Link:
    """A device's connection. `connection_id` is its fence: what an older connection of the device says counts no more.
    Times are milliseconds since 1970, by Redis's clock; `fresh_at` is when the device last registered anew.
    """

    device_id: UUID
    connection_id: UUID
    instance: str
    client_type: ClientType
    device_name: str
    is_visible: bool
    connected_at: int = 0
    last_seen_at: int = 0
    fresh_at: int = 0


@dataclass(frozen=True, slots=True)
class Entered:
    """`replaced` is the link of another connection that was there. `away_seconds`: for how long the device had no link;
    0 if it had one, None if it had none within the last day. Both tell nothing unless the link was `kept`.
    """

    standing: Standing
    link: Link
    replaced: Link | None = None
    away_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """A device that was connected and is no more; told to exactly one who asks."""

    user_id: UUID
    link: Link


@dataclass(frozen=True, slots=True)
class Expired:
    """`is_all` is false if more may be due."""

    gone: Sequence[Gone]
    is_all: bool


class _Told(msgspec.Struct, array_like=True):
    """Of a link, what no script looks at."""

    instance: str
    client_type: ClientType
    device_name: str
    fresh_at: int = 0


class _Due(NamedTuple):
    user_id: UUID
    device_id: str
    connection_id: str

    @property
    def member(self) -> str:
        return f"{self.user_id}/{self.device_id}/{self.connection_id}"


def presence_key(user_id: UUID) -> str:
    """A hash: for each device its link, or what is known of its last one."""
    return f"{{{user_id}}}:presence"


def announced_key(user_id: UUID, device_id: UUID) -> str:
    return f"{{{user_id}}}:announced:{device_id}"


def due_key() -> str:
    """A sorted set: of the links of all users, when each is to be looked at."""
    return "{links}:due"


def since_key() -> str:
    """Since when Redis knows of links."""
    return "{links}:since"


@dataclass(frozen=True, slots=True)
class PresenceTable:
    """Every method raises RedisUnavailable; then it is not known whether its script ran. What peers see of a device is
    told to them in the same step: `online`, `offline`, or `disconnected` where the device itself ended its connection,
    or its process is gone. That a link has changed is told to every process that has a socket of the user.
    """

    redis: Redis
    ttl_seconds: float = 90

    async def enter(self, user_id: UUID, link: Link) -> Entered:
        """The link of a connection that has just been opened: the device's from now on. Two round trips."""
        return await self._enter(user_id, link, 0)

    async def resume(self, user_id: UUID, link: Link, open_seconds: float) -> Entered:
        """The link of a connection that has been open for so long, and was lost, or perhaps never entered: it is the
        device's again, unless that has or had a newer one, or was unlinked. Safe to repeat.
        """
        return await self._enter(user_id, link, milliseconds(open_seconds))

    async def touch(self, user_id: UUID, link: Link) -> Standing:
        """The device has shown life: its link, as it was entered, holds for another TTL if it is this connection's."""
        standing = await self._run(TOUCH, user_id, str(link.device_id), str(link.connection_id), link.connected_at)
        return cast(Standing, standing.decode())

    async def set_visible(self, user_id: UUID, device_id: UUID, connection_id: UUID, *, is_visible: bool) -> bool:
        """False if the link is not this connection's."""
        return bool(await self._run(SET_VISIBLE, user_id, str(device_id), str(connection_id), int(is_visible)))

    async def leave(self, user_id: UUID, device_id: UUID, connection_id: UUID) -> bool:
        """False if the link is not this connection's: then the device is not gone."""
        return bool(await self._run(LEAVE, user_id, str(device_id), str(connection_id)))

    async def abandon(self, user_id: UUID, device_id: UUID, connection_id: UUID) -> bool:
        """The link's process is gone. Should it be there nevertheless, it may resume the link. False if the link is not
        this connection's.
        """
        return bool(await self._run(ABANDON, user_id, str(device_id), str(connection_id)))

    async def drop(self, user_id: UUID, device_id: UUID) -> bool:
        """Whatever the connection; it cannot be resumed. False if there was no link."""
        return bool(await self._run(DROP, user_id, str(device_id)))

    async def list(self, user_id: UUID) -> Mapping[UUID, Link]:
        """Those that live, by device."""
        links = [_read_link(row) for row in await self._run(LIST, user_id)]
        return {link.device_id: link for link in links}

    async def expire(self, limit: int) -> Expired:
        """Drop links whose time is over, of whichever users: each is returned once, whoever asks, in all processes.
        Looks at so many of those that are due. If Redis goes away meanwhile, those that were dropped are returned.
        """
        claim, due = await self._claim_due(limit)
        gone: list[Gone] = []
        by_user: dict[UUID, list[_Due]] = defaultdict(list)
        for one in due:
            by_user[one.user_id].append(one)
        try:
            for user_id, links in by_user.items():
                gone += await self._expire(user_id, links, claim)
        except RedisUnavailable:
            if not gone:
                raise
            return Expired(gone, is_all=True)
        return Expired(gone, is_all=len(due) < limit)

    async def tell_silent(self, user_id: UUID, device_id: UUID, heard_at: datetime) -> bool:
        """Tell that a device without a link is offline. False, and nothing is told, if it has one, or if the end of one
        was told after it was last heard of.
        """
        heard_ms = int(heard_at.timestamp() * 1000)
        return bool(await self._run(TELL_SILENT, user_id, str(device_id), heard_ms))

    async def is_settled(self) -> bool:
        """Redis has known of links for longer than one holds. Where it was started anew and empty, devices need that
        long to be known again: until then nobody may be called silent.
        """
        age_ms = await READ_AGE.run(self.redis, [since_key()], [self._memory_ms])
        return bool(age_ms > self.ttl_seconds * 1000)

    async def claim_announcement(self, user_id: UUID, device_id: UUID, seconds: float) -> bool:
        """Whoever gets it may tell that the device is back; nobody else for so long."""
        key, expiry_ms = announced_key(user_id, device_id), milliseconds(seconds)
        return bool(await command(self.redis.set(key, b"", condition=PureToken.NX, px=expiry_ms)))

    @property
    def _memory_ms(self) -> int:
        return milliseconds(max(MEMORY_SECONDS, 2 * self.ttl_seconds))

    async def _enter(self, user_id: UUID, link: Link, open_ms: int) -> Entered:
        device_id, connection_id = str(link.device_id), str(link.connection_id)
        member = _Due(user_id, device_id, connection_id).member
        await ADD_DUE.run(self.redis, [due_key()], [milliseconds(self.ttl_seconds), self._memory_ms, member])
        told = msgspec.json.encode(_Told(link.instance, link.client_type, link.device_name, link.fresh_at))
        entry = (int(link.is_visible), told, link.connected_at, open_ms, MAX_KNOWN)
        return _read_entered(link, await self._run(ENTER, user_id, device_id, connection_id, *entry))

    async def _claim_due(self, limit: int) -> tuple[int, Sequence[_Due]]:
        args = [limit, milliseconds(CLAIM_SECONDS), self._memory_ms]
        claim, members = await CLAIM_DUE.run(self.redis, [due_key()], args)
        return claim, [_read_due(member) for member in members]

    async def _expire(self, user_id: UUID, links: Sequence[_Due], claim: int) -> Sequence[Gone]:
        pairs = [part for link in links for part in (link.device_id, link.connection_id)]
        rows = await self._run(EXPIRE, user_id, *pairs)
        gone = [Gone(user_id, _read_link(row[1])) for row in rows if len(row) > 1]
        due = [part for link, row in zip(links, rows, strict=True) for part in (link.member, row[0])]
        try:
            await SET_DUE.run(self.redis, [due_key()], [claim, *due])
        except RedisUnavailable:  # they are due again soon, and found to be nobody's
            if not gone:
                raise
        return gone

    async def _run(self, script: LuaScript, user_id: UUID, *args: str | int | bytes) -> Any:
        always = (events_channel(user_id), self._memory_ms, milliseconds(self.ttl_seconds))
        return await script.run(self.redis, [presence_key(user_id)], [*always, *args])


def _read_entered(link: Link, row: Sequence[Any]) -> Entered:
    standing, *rest = row
    if not rest:
        return Entered(cast(Standing, standing.decode()), link)
    connected_at, away_ms, replaced = rest
    return Entered(
        "kept",
        replace(link, connected_at=connected_at),
        None if replaced is None else _read_link(replaced),
        None if away_ms < 0 else away_ms / 1000,
    )


def _read_link(row: Sequence[Any]) -> Link:
    device_id, connection_id, seen_at, is_visible, connected_at, told = row
    rest = msgspec.json.decode(told, type=_Told)
    return Link(
        device_id=UUID(device_id.decode()),
        connection_id=UUID(connection_id.decode()),
        instance=rest.instance,
        client_type=rest.client_type,
        device_name=rest.device_name,
        is_visible=is_visible == 1,
        connected_at=connected_at,
        last_seen_at=seen_at,
        fresh_at=rest.fresh_at,
    )


def _read_due(member: bytes) -> _Due:
    user_id, device_id, connection_id = member.decode().split("/")
    return _Due(UUID(user_id), device_id, connection_id)
