"""What a device resumes its place on the relay with: one session each, known by an id and a token that only it has.

A user's are the fields of one hash in Redis, by device; they outlive sockets and servers, and end a day after a device
was last heard of. The token itself is kept nowhere.
"""

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from storage.redis import LuaScript, Redis, command, milliseconds

LIFE_SECONDS = 86_400.0
MAX_SESSIONS = 200
"""Of one user. For one more, the one that ends first goes."""
ID_CHARACTERS, TOKEN_CHARACTERS = 32, 48
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class RelaySession:
    """`fresh_at` ranks desktops: when the device registered anew, in milliseconds since 1970 by Redis's clock."""

    id: str
    fresh_at: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    session: RelaySession
    resume_token: str = field(repr=False)


class _Kept(msgspec.Struct, array_like=True):
    """As the scripts write it."""

    id: str
    token_hash: str
    fresh_at: int
    expires_at: int

    def __repr__(self) -> str:
        return "_Kept()"


def relay_sessions_key(user_id: UUID) -> str:
    return f"{{{user_id}}}:relay-sessions"


@dataclass(frozen=True, slots=True)
class RelaySessions:
    """Every method raises RedisUnavailable; then it is not known whether its script ran."""

    redis: Redis
    life_seconds: float = LIFE_SECONDS

    async def create(self, user_id: UUID, device_id: UUID) -> NewSession:
        """The device's from now on; the one before it is over."""
        session_id, token = make_text(ID_CHARACTERS), make_text(TOKEN_CHARACTERS)
        life_ms = milliseconds(self.life_seconds)
        args: list[str | int | bytes] = [str(device_id), session_id, _hash(token), life_ms, MAX_SESSIONS]
        fresh_at, expires_at = await _CREATE.run(self.redis, [relay_sessions_key(user_id)], args)
        return NewSession(RelaySession(session_id, fresh_at, _as_datetime(expires_at)), token)

    async def resume(self, user_id: UUID, device_id: UUID, session_id: str, token: str) -> RelaySession | None:
        """With its new end; None unless all of it is right. Safe to repeat."""
        found = await command(self.redis.hget(relay_sessions_key(user_id), str(device_id)))
        if found is None:
            return None
        kept = msgspec.json.decode(found, type=_Kept)
        if not (_is_same(_hash(kept.id), _hash(session_id)) & _is_same(kept.token_hash, _hash(token))):
            return None
        expires_at = await self.extend(user_id, device_id, kept.id)
        return None if expires_at is None else RelaySession(kept.id, kept.fresh_at, expires_at)

    async def extend(self, user_id: UUID, device_id: UUID, session_id: str) -> datetime | None:
        """Its new end; None if the session is over, or the device has another one."""
        args: list[str | int | bytes] = [str(device_id), session_id, milliseconds(self.life_seconds)]
        expires_at = await _EXTEND.run(self.redis, [relay_sessions_key(user_id)], args)
        return _as_datetime(expires_at) if expires_at else None

    async def drop(self, user_id: UUID, device_id: UUID) -> None:
        """The device registers anew next time."""
        await command(self.redis.hdel(relay_sessions_key(user_id), [str(device_id)]))

    async def drop_all(self, user_id: UUID) -> None:
        await command(self.redis.delete([relay_sessions_key(user_id)]))


def make_unkept(now: datetime, life_seconds: float = LIFE_SECONDS) -> NewSession:
    """For a device that registers while Redis is away: it looks like any other, and cannot be resumed."""
    fresh_at = milliseconds(now.timestamp())
    expires_at = _as_datetime(fresh_at + milliseconds(life_seconds))
    return NewSession(RelaySession(make_text(ID_CHARACTERS), fresh_at, expires_at), make_text(TOKEN_CHARACTERS))


def make_text(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _is_same(one: str, other: str) -> bool:
    """Takes as long wherever they differ: https://docs.python.org/3/library/hmac.html#hmac.compare_digest"""
    return hmac.compare_digest(one, other)


def _as_datetime(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


_CLOCK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local key = KEYS[1]
"""

# What a script writes as JSON has no number of more than 14 digits: cjson would round it.
_CREATE = LuaScript(
    _CLOCK
    + """
local device, id, hash, life, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local function keep(id, hash, fresh_at, expires_at)
    redis.call('HSET', key, device, string.format('["%s","%s",%.0f,%.0f]', id, hash, fresh_at, expires_at))
    redis.call('PEXPIRE', key, life)
end
keep(id, hash, now, now + life)
local excess = redis.call('HLEN', key) - most
if excess > 0 then
    local found, rows = redis.call('HGETALL', key), {}
    for i = 1, #found, 2 do
        if found[i] ~= device then rows[#rows + 1] = {found[i], cjson.decode(found[i + 1])[4]} end
    end
    table.sort(rows, function(one, other) return one[2] < other[2] end)
    for i = 1, math.min(excess, #rows) do redis.call('HDEL', key, rows[i][1]) end
end
return {now, now + life}
"""
)

_EXTEND = LuaScript(
    _CLOCK
    + """
local device, id, life = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = redis.call('HGET', key, device)
if not found then return 0 end
local was = cjson.decode(found)
if was[1] ~= id then return 0 end
if was[4] <= now then
    redis.call('HDEL', key, device)
    return 0
end
redis.call('HSET', key, device, string.format('["%s","%s",%.0f,%.0f]', id, was[2], was[3], now + life))
redis.call('PEXPIRE', key, life)
return now + life
"""
)
