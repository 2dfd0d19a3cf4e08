"""Logins under way, in Redis: what the browser and the app have to find each other by, for a few minutes."""

from dataclasses import dataclass, field
from typing import cast

import msgspec
from coredis.commands.script import Script

from storage.redis import Redis, command

STATE_SECONDS = 600
GRACE_SECONDS = 30
"""How long a result stays after it was read for the first time: an answer that is lost loses no login."""


@dataclass(frozen=True, slots=True)
class LoginState:
    """What `state` stands for while the browser is at the issuer. `pid` is the app's polling id, as it was sent."""

    pid: str
    csrf: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoginResult:
    """What the app polls for: a code, or why there is none."""

    csrf: str = field(repr=False)
    code: str | None = field(default=None, repr=False)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LoginStates:
    """Every method is one round trip, and raises RedisUnavailable: sign-in is closed without Redis."""

    redis: Redis

    async def put_state(self, state: str, login: LoginState) -> None:
        """For STATE_SECONDS."""
        await command(self.redis.set(state_key(state), msgspec.json.encode(login), ex=STATE_SECONDS))

    async def take_state(self, state: str) -> LoginState | None:
        """Once only, atomically: None if it is unknown, over, or was taken."""
        value = await command(self.redis.getdel(state_key(state)))
        return None if value is None else msgspec.json.decode(value, type=LoginState)

    async def put_result(self, pid: str, result: LoginResult) -> None:
        """For STATE_SECONDS. Replaces an older one, and gives it a life of its own."""
        await command(self.redis.set(result_key(pid), msgspec.json.encode(result), ex=STATE_SECONDS))

    async def read_result(self, pid: str) -> LoginResult | None:
        """None while there is none. The first reading leaves it for GRACE_SECONDS more; later ones prolong nothing."""
        value = cast(bytes | None, await command(_READ([result_key(pid)], [GRACE_SECONDS * 1000], client=self.redis)))
        return None if value is None else msgspec.json.decode(value, type=LoginResult)

    async def claim_token(self, token_hash: str, device_id: str, seconds: float) -> bool:
        """Whether this device may sign in with the issuer's token: the first that asks may, again and again, and nobody
        else for as long as `seconds` after that.
        """
        milliseconds = max(1, round(seconds * 1000))
        return await command(_CLAIM([claim_key(token_hash)], [device_id, milliseconds], client=self.redis)) == 1


def state_key(state: str) -> str:
    return f"login:state:{state}"


def result_key(pid: str) -> str:
    return f"login:result:{pid}"


def claim_key(token_hash: str) -> str:
    return f"login:claim:{token_hash}"


_READ: Script[bytes] = Script(
    script="""
local value, grace = redis.call('GET', KEYS[1]), tonumber(ARGV[1])
if value and redis.call('PTTL', KEYS[1]) > grace then redis.call('PEXPIRE', KEYS[1], grace) end
return value
"""
)

_CLAIM: Script[bytes] = Script(
    script="""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""
)
