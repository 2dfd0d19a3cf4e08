"""Logins under way, in Redis: what the browser and the app have to find each other by, for a few minutes."""

from dataclasses import dataclass, field
from typing import cast

import msgspec

from storage.redis import LuaScript, Redis, command

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
    """Every method raises RedisUnavailable: sign-in is closed without Redis."""

    redis: Redis

    async def put_state(self, state: str, login: LoginState) -> None:
        """For STATE_SECONDS."""
        await command(self.redis.set(state_key(state), msgspec.json.encode(login), ex=STATE_SECONDS))

    async def finish(self, state: str, code: str | None, error: str | None) -> bool:
        """What the issuer says of a login, left for its app for STATE_SECONDS in the place of an older result. False if
        the state is unknown, over, or was used: it counts once.

        The state goes and the result comes in one step: a browser that leaves meanwhile loses no login.
        """
        value = await command(self.redis.get(state_key(state)))
        if value is None:
            return False
        login = msgspec.json.decode(value, type=LoginState)
        result = msgspec.json.encode(LoginResult(login.csrf, code, error))
        keys = [state_key(state), result_key(login.pid)]
        return bool(await _FINISH.run(self.redis, keys, [result, STATE_SECONDS]))

    async def read_result(self, pid: str) -> LoginResult | None:
        """None while there is none. The first reading leaves it for GRACE_SECONDS more; later ones prolong nothing."""
        value = cast(bytes | None, await _READ.run(self.redis, [result_key(pid)], [GRACE_SECONDS * 1000]))
        return None if value is None else msgspec.json.decode(value, type=LoginResult)

    async def claim_token(self, token_hash: str, device_id: str, seconds: float) -> bool:
        """Whether this device may sign in with the issuer's token: the first that asks may, again and again, and nobody
        else for as long as `seconds` after that.
        """
        milliseconds = max(1, round(seconds * 1000))
        return bool(await _CLAIM.run(self.redis, [claim_key(token_hash)], [device_id, milliseconds]))


def state_key(state: str) -> str:
    """With the tag of results, so that one script can touch both on Redis Cluster."""
    return f"{{login}}:state:{state}"


def result_key(pid: str) -> str:
    return f"{{login}}:result:{pid}"


def claim_key(token_hash: str) -> str:
    return f"login:claim:{token_hash}"


_FINISH = LuaScript("""
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return 1
""")

_READ = LuaScript("""
local value, grace = redis.call('GET', KEYS[1]), tonumber(ARGV[1])
if value and redis.call('PTTL', KEYS[1]) > grace then redis.call('PEXPIRE', KEYS[1], grace) end
return value
""")

_CLAIM = LuaScript("""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
""")
