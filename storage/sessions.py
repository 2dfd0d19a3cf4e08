"""What is known of a caller's token between requests: whether it was revoked, and who its user is.

Redis remembers both for half a minute, so that a request costs one round trip there and none to PostgreSQL; PostgreSQL
knows for good. What was revoked or deleted leaves a tombstone in Redis at once, which no reader that was slower writes
over.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from storage.accounts import Accounts, User
from storage.device_events import events_channel
from storage.rate_limits import TOMBSTONE
from storage.redis import LuaScript, Redis, session_key, user_key

REMEMBERED_SECONDS = 30
TOMBSTONE_SECONDS = 120
"""Longer than any reader takes that began before the stone was set, and longer than what is remembered. For so long
nobody comes back under an id that was deleted here, which only another region's tokens could name.
"""
LIVE = b"+"


@dataclass(frozen=True, slots=True)
class Sessions:
    """A session is what one sign-in, or one token that was made without, may do: known by `revocation_id`."""

    redis: Redis
    accounts: Accounts

    def lookups(self, user_id: UUID, revocation_id: UUID) -> list[str]:
        """What to look up in Redis for a token; `read` understands the values."""
        return [session_key(user_id, revocation_id), user_key(user_id)]

    def read(self, values: Sequence[bytes | None]) -> User | None:
        """The user, if Redis remembers both that the session lives and who it is."""
        session, user = values
        return None if session != LIVE or user is None else msgspec.json.decode(user, type=User)

    async def find(self, user_id: UUID, revocation_id: UUID, auth_time: datetime) -> User | None:
        """As PostgreSQL knows it: None if the session was revoked, or nobody is behind it any more."""
        return await self.accounts.find_caller(user_id, revocation_id, auth_time)

    async def remember(self, user_id: UUID, revocation_id: UUID, user: User) -> None:
        """For the next requests. Writes over nothing, so over no tombstone."""
        keys = self.lookups(user_id, revocation_id)
        await _REMEMBER.run(self.redis, keys, [REMEMBERED_SECONDS, LIVE, msgspec.json.encode(user)])

    async def forget_user(self, user_id: UUID) -> None:
        """The user has changed: the next request reads it anew. A reader that is under way may still remember the user
        as it was, for REMEMBERED_SECONDS at most. A tombstone stays.
        """
        await _FORGET.run(self.redis, [user_key(user_id)], [TOMBSTONE])

    async def bury(self, keys: Iterable[str]) -> None:
        """Set tombstones, after PostgreSQL has been told, and tell it to whoever holds a socket by one of these keys.
        One by one: the keys may be of several users.
        """
        for key in keys:
            channel = events_channel(UUID(key[1:].partition("}")[0]))
            await _BURY.run(self.redis, [key], [TOMBSTONE, TOMBSTONE_SECONDS, channel, f"ended {key}"])


_REMEMBER = LuaScript("""
for i, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[i + 1], 'NX', 'EX', ARGV[1])
end
""")

_BURY = LuaScript("""
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
""")

_FORGET = LuaScript("if redis.call('GET', KEYS[1]) ~= ARGV[1] then redis.call('DEL', KEYS[1]) end")
