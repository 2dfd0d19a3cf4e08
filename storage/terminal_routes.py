"""Which terminals are bound, in Redis: by which device, and which process has their bytes.

A hash for each user, whose fields are `<desktop>/<session>`. What decides is the owner's memory; a record says where
that is, and, where it is gone, who is to be told. It is the owner's: nobody else changes it, but whoever has the
desktop's connection may claim it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from storage.redis import LuaScript, Redis, command, milliseconds

MEMORY_SECONDS = 86_400
"""After the last change of any of a user's terminals."""
MAX_ROUTES = 100
"""Of a user; of more, the one goes that was changed longest ago."""


@dataclass(frozen=True, slots=True)
class TerminalRecord:
    """`device_id` has it bound, by `binding` of `connection_id`, which `instance` serves. `epoch` says which owner is
    the newer one. `is_whole`: everything has gone to the device, and nothing needs the owner's memory.
    """

    producer_id: UUID
    session_id: str
    owner: str
    device_id: UUID
    connection_id: UUID
    instance: str
    binding: int
    epoch: int = 0
    is_whole: bool = False


class _Kept(msgspec.Struct):
    owner: str
    device_id: UUID
    connection_id: UUID
    instance: str
    binding: int
    epoch: int
    is_whole: bool


def terminals_key(user_id: UUID) -> str:
    return f"{{{user_id}}}:terminals"


# A record that its script changes carries `at`, by Redis's clock. Integers stay below 10^14, which cjson keeps exact.
_SAVE = LuaScript(
    """
local key, field, record, memory, most = KEYS[1], ARGV[1], cjson.decode(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local was = redis.call('HGET', key, field)
if was and cjson.decode(was).owner ~= record.owner then return 0 end
local time = redis.call('TIME')
record.at = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', key, field, cjson.encode(record))
redis.call('PEXPIRE', key, memory)
if redis.call('HLEN', key) > most then
    local found, oldest, oldest_at = redis.call('HGETALL', key), nil, nil
    for i = 1, #found, 2 do
        local at = cjson.decode(found[i + 1]).at
        if found[i] ~= field and (not oldest_at or at < oldest_at) then oldest, oldest_at = found[i], at end
    end
    redis.call('HDEL', key, oldest)
end
return 1
"""
)

_CLAIM = LuaScript(
    """
local key, start, owner, memory = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local rows, found = {}, redis.call('HGETALL', key)
for i = 1, #found, 2 do
    if string.sub(found[i], 1, #start) == start then
        rows[#rows + 1], rows[#rows + 2] = found[i], found[i + 1]
        local record = cjson.decode(found[i + 1])
        record.owner, record.is_whole = owner, false
        redis.call('HSET', key, found[i], cjson.encode(record))
    end
end
redis.call('PEXPIRE', key, memory)
return rows
"""
)

_DROP = LuaScript(
    """
local was = redis.call('HGET', KEYS[1], ARGV[1])
if not was or cjson.decode(was).owner ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
)


@dataclass(frozen=True, slots=True)
class TerminalRoutes:
    """Every method raises RedisUnavailable; then it is not known whether it was done. All are safe to repeat; but
    whoever claims again is told as the owner itself.
    """

    redis: Redis

    async def save(self, user_id: UUID, record: TerminalRecord) -> bool:
        """False, and nothing is changed, if there is a record that is not the owner's."""
        kept = _Kept(
            record.owner,
            record.device_id,
            record.connection_id,
            record.instance,
            record.binding,
            record.epoch,
            record.is_whole,
        )
        field = _name_field(record.producer_id, record.session_id)
        limits = (milliseconds(MEMORY_SECONDS), MAX_ROUTES)
        args = (field, msgspec.json.encode(kept), *limits)
        return bool(await _SAVE.run(self.redis, [terminals_key(user_id)], args))

    async def claim(self, user_id: UUID, producer_id: UUID, owner: str) -> Sequence[TerminalRecord]:
        """All of a desktop's are the owner's from now on. Returned as they were before: whose memory is to be asked."""
        args = (f"{producer_id}/", owner, milliseconds(MEMORY_SECONDS))
        rows = await _CLAIM.run(self.redis, [terminals_key(user_id)], args)
        return [_read(field, value) for field, value in zip(rows[::2], rows[1::2], strict=True)]

    async def list(self, user_id: UUID) -> Sequence[TerminalRecord]:
        found = await command(self.redis.hgetall(terminals_key(user_id)))
        return [_read(field, value) for field, value in found.items()]

    async def find(self, user_id: UUID, producer_id: UUID, session_id: str) -> TerminalRecord | None:
        field = _name_field(producer_id, session_id)
        value = await command(self.redis.hget(terminals_key(user_id), field))
        return None if value is None else _read(field.encode(), value)

    async def drop(self, user_id: UUID, producer_id: UUID, session_id: str, owner: str) -> bool:
        """False if it is not the owner's."""
        field = _name_field(producer_id, session_id)
        return bool(await _DROP.run(self.redis, [terminals_key(user_id)], [field, owner]))


def _name_field(producer_id: UUID, session_id: str) -> str:
    return f"{producer_id}/{session_id}"


def _read(field: bytes, value: bytes) -> TerminalRecord:
    producer_id, _, session_id = field.decode().partition("/")
    kept = msgspec.json.decode(value, type=_Kept)
    return TerminalRecord(
        UUID(producer_id),
        session_id,
        kept.owner,
        kept.device_id,
        kept.connection_id,
        kept.instance,
        kept.binding,
        kept.epoch,
        kept.is_whole,
    )
