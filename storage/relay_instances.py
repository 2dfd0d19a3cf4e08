"""Which processes live: a sorted set in Redis that each renews every so often, by Redis's own clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.redis import LuaScript, Redis, milliseconds

REMEMBERED_TIMES = 20
"""An instance that has ended without a word stays in the set for so many times its expiry."""


@dataclass(frozen=True, slots=True)
class Census:
    """`left_seconds`: for how long the instance that asks would still have counted as living; 0 or less if it had
    expired, None if nobody knew of it. `living`: for how long each is to count as living if it renews no more.
    """

    left_seconds: float | None
    living: Mapping[str, float]


def instances_key() -> str:
    return "relay:instances"


@dataclass(frozen=True, slots=True)
class RelayInstances:
    """Every method raises RedisUnavailable, and is safe to repeat."""

    redis: Redis
    expiry_seconds: float = 10

    async def renew(self, instance: str) -> Census:
        """It lives from now on until its expiry. Who lives, itself too."""
        args: list[str | int | bytes] = [instance, milliseconds(self.expiry_seconds), REMEMBERED_TIMES]
        left_ms, living = await _RENEW.run(self.redis, [instances_key()], args)
        return Census(None if left_ms is None else left_ms / 1000, _read_living(living))

    async def leave(self, instance: str) -> None:
        """It is gone at once."""
        await _LEAVE.run(self.redis, [instances_key()], [instance])


def _read_living(row: Sequence[bytes | int]) -> Mapping[str, float]:
    names, left_ms = row[::2], row[1::2]
    return {bytes(name).decode(): int(left) / 1000 for name, left in zip(names, left_ms, strict=True)}


_RENEW = LuaScript(
    """
local key, instance, expiry, times = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = redis.call('ZSCORE', key, instance)
redis.call('ZADD', key, now + expiry, instance)
redis.call('ZREMRANGEBYSCORE', key, '-inf', now - expiry * times)
redis.call('PEXPIRE', key, expiry * times)
local living = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES')
for i = 2, #living, 2 do living[i] = tonumber(living[i]) - now end
return {was and tonumber(was) - now or false, living}
"""
)

_LEAVE = LuaScript("return redis.call('ZREM', KEYS[1], ARGV[1])")
