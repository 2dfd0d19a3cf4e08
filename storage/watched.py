"""Whose events somebody watches, on whichever process, or has watched until a moment ago: one index of all users."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from storage.redis import LuaScript, Redis, milliseconds

WATCHED_SECONDS = 600
"""Who watches again within so long has missed nothing that is kept."""


def watched_key() -> str:
    """A sorted set: until when each counts as watched."""
    return "{watched}:until"


@dataclass(frozen=True, slots=True)
class WatchedUsers:
    """Both methods raise RedisUnavailable, and take one round trip."""

    redis: Redis
    seconds: float = WATCHED_SECONDS

    async def renew(self, users: Collection[UUID]) -> None:
        """They are watched right now."""
        if users:
            await _RENEW.run(self.redis, [watched_key()], [milliseconds(self.seconds), *map(str, users)])

    async def find(self, users: Collection[UUID]) -> set[UUID]:
        """Those of them that are watched."""
        if not users:
            return set()
        asked = list(users)
        numbers = await _FIND.run(self.redis, [watched_key()], [str(user) for user in asked])
        return {asked[number - 1] for number in numbers}


_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_RENEW = LuaScript(
    _CLOCK
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# One by one: unpacking thousands of arguments for one command would be refused.
_FIND = LuaScript(
    _CLOCK
    + """
local found = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return found end
for i = 1, #ARGV do
    local till = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if till and tonumber(till) > now then found[#found + 1] = i end
end
return found
"""
)
