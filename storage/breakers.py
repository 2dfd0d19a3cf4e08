"""The circuit breakers of all processes, in Redis.

What came of the calls is counted, in tenths of a window. Enough failures open a breaker for a while: an opening, known
by its end in Redis's milliseconds. After that the breaker is half-open: one call is let through to probe the provider,
and what comes of it closes the breaker or begins a longer opening.

Every decision is one script, so that it is made once, whole, and by one clock, which is Redis's. All keys expire. They
share one hash tag, so that a script may count a failure and enter the opening into the list that everybody reads, also
on Redis Cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from storage.redis import LuaScript, Redis, milliseconds

Breaker = tuple[str, str]
"""A provider's code, and a model id of ours."""

_OPENINGS_KEY = "{breakers}:open"
"""A sorted set: of every breaker that is not closed, when its opening ends."""


def outcomes_key(breaker: Breaker) -> str:
    """A hash: for a tenth of a window, `<its number>f` failures and `<its number>s` successes."""
    return f"{{breakers}}:outcomes:{_name(breaker)}"


def probe_key(breaker: Breaker) -> str:
    """There while a call probes the provider."""
    return f"{{breakers}}:probe:{_name(breaker)}"


def streak_key(breaker: Breaker) -> str:
    """How often the breaker has opened since it was last closed."""
    return f"{{breakers}}:streak:{_name(breaker)}"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """A breaker opens when a window has this many failures, and they are no less than this share of its outcomes."""

    window_seconds: float = 30
    min_failures: int = 5
    min_failure_share: float = 0.5
    cooldown_seconds: float = 15
    """How long the first opening lasts; each further one twice as long,"""
    max_cooldown_seconds: float = 120
    """but no longer than this, whatever the provider asks for."""
    probe_seconds: float = 20
    """How long others wait for what comes of a probe, before one of them tries."""
    forget_seconds: float = 600
    """A breaker whose opening ended this long ago, and which nobody has used since, is closed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a breaker stands. `opening` is 0 while it is closed. `open_seconds` is what is left of the opening: 0 when
    half-open.
    """

    opening: int = 0
    open_seconds: float = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A breaker's standing after an outcome was told, and whether this very outcome has turned it."""

    standing: Standing
    has_turned: bool


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """Whether this call may probe the provider. Whoever does has `probe_seconds` left to tell what came of it."""

    standing: Standing
    is_granted: bool
    probe_seconds: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came of the calls of the last window; nothing of those before the breaker last opened."""

    successes: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class BreakerTable:
    """Every method is one round trip, and raises RedisUnavailable; then it is not known whether the script ran."""

    redis: Redis
    settings: BreakerSettings = BreakerSettings()

    async def exchange(self, successes: Mapping[Breaker, int]) -> dict[Breaker, Standing]:
        """Count the successes since the last exchange, and read which breakers are not closed."""
        keys = [_OPENINGS_KEY, *map(outcomes_key, successes)]
        args = [milliseconds(self.settings.forget_seconds), milliseconds(self.settings.window_seconds)]
        rows = await _run(self.redis, _EXCHANGE, keys, [*args, *successes.values()])
        return {_read_name(name): _read_standing(opening, left) for name, opening, left in rows}

    async def read_outcomes(self, breakers: Sequence[Breaker]) -> dict[Breaker, Outcomes]:
        """Of those that have any."""
        keys = [outcomes_key(breaker) for breaker in breakers]
        rows = await _run(self.redis, _OUTCOMES, keys, [milliseconds(self.settings.window_seconds)])
        return {breakers[place - 1]: Outcomes(successes, failures) for place, successes, failures in rows}

    async def note_failure(
        self, breaker: Breaker, opening: int, successes: int, retry_after_seconds: float = 0
    ) -> Verdict:
        """Count a failure, and the successes before it that no exchange has told of.

        `opening` is the one that the call was let through to probe, 0 for any other call. While a breaker is not closed
        the probe alone counts: what fails then was sent before.
        """
        rules = self.settings
        pause = max(rules.cooldown_seconds, min(retry_after_seconds, rules.max_cooldown_seconds))
        times = (rules.window_seconds, rules.cooldown_seconds, rules.max_cooldown_seconds, pause)
        counts = (successes, rules.min_failures, str(rules.min_failure_share))
        row = await self._tell(_FAILURE, breaker, opening, *counts, *map(milliseconds, times))
        return _read_verdict(row)

    async def note_probe_success(self, breaker: Breaker, opening: int) -> Verdict:
        """Close the breaker, if `opening` is still its last."""
        return _read_verdict(await self._tell(_SUCCESS, breaker, opening))

    async def ask_for_probe(self, breaker: Breaker) -> ProbeAnswer:
        """The place of the one call that may probe the provider, if it is free."""
        row = await self._tell(_PROBE, breaker, milliseconds(self.settings.probe_seconds))
        opening, left, is_granted, probe_left = row
        return ProbeAnswer(_read_standing(opening, left), is_granted == 1, probe_left / 1000)

    async def _tell(self, script: LuaScript, breaker: Breaker, *args: str | int) -> list[Any]:
        keys = [_OPENINGS_KEY, outcomes_key(breaker), probe_key(breaker), streak_key(breaker)]
        forget = milliseconds(self.settings.forget_seconds)
        return await _run(self.redis, script, keys, [_name(breaker), forget, *args])


async def _run(redis: Redis, script: LuaScript, keys: Sequence[str], args: Sequence[str | int]) -> list[Any]:
    return cast(list[Any], await script.run(redis, keys, args))


def _name(breaker: Breaker) -> str:
    provider, model = breaker
    return f"{provider}/{model}"


def _read_name(name: bytes) -> Breaker:
    """No provider's code has a slash; many models have."""
    provider, _, model = name.decode().partition("/")
    return provider, model


def _read_standing(opening: int, left_ms: int) -> Standing:
    return Standing(opening, left_ms / 1000)


def _read_verdict(row: list[Any]) -> Verdict:
    opening, left_ms, has_turned = row
    return Verdict(_read_standing(opening, left_ms), has_turned == 1)


_NOW = """
local function read_clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function find_opening(key, name, now, forget)
    local opening = tonumber(redis.call('ZSCORE', key, name) or 0)
    return now < opening + forget and opening or 0
end
"""

_COUNT = """
local function count(key, kind, number, now, window)
    local tenth = math.floor(now / (window / 10))
    local counted = redis.call('HINCRBY', key, string.format('%d%s', tenth, kind), number)
    redis.call('PEXPIRE', key, window)
    if counted > number then return end  -- the tenth has begun before
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if tonumber(string.sub(field, 1, -2)) <= tenth - 10 then redis.call('HDEL', key, field) end
    end
end
"""

_EXCHANGE = LuaScript(
    _NOW
    + _COUNT
    + """
local forget, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = read_clock()
for i = 2, #KEYS do
    count(KEYS[i], 's', tonumber(ARGV[i + 1]), now, window)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - forget)
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local rows = {}
for i = 1, #found, 2 do
    local opening = tonumber(found[i + 1])
    rows[#rows + 1] = {found[i], opening, math.max(0, opening - now)}
end
return rows
"""
)

_OUTCOMES = LuaScript(
    _NOW
    + """
local oldest = math.floor(read_clock() / (tonumber(ARGV[1]) / 10)) - 10
local rows = {}
for i, key in ipairs(KEYS) do
    local found, sums = redis.call('HGETALL', key), {s = 0, f = 0}
    for j = 1, #found, 2 do
        local kind = string.sub(found[j], -1)
        if tonumber(string.sub(found[j], 1, -2)) > oldest then sums[kind] = sums[kind] + tonumber(found[j + 1]) end
    end
    if sums.s + sums.f > 0 then rows[#rows + 1] = {i, sums.s, sums.f} end
end
return rows
"""
)

_FAILURE = LuaScript(
    _NOW
    + _COUNT
    + """
local openings, outcomes, probe, streak = unpack(KEYS)
local name, forget, probed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local successes, min_failures, min_share = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local window, cooldown = tonumber(ARGV[7]), tonumber(ARGV[8])
local max_cooldown, min_pause = tonumber(ARGV[9]), tonumber(ARGV[10])
local now = read_clock()

local function may_stay_closed()
    count(outcomes, 'f', 1, now, window)
    if successes > 0 then count(outcomes, 's', successes, now, window) end
    local found, sums = redis.call('HGETALL', outcomes), {f = 0, s = 0}
    for i = 1, #found, 2 do
        local kind = string.sub(found[i], -1)
        sums[kind] = sums[kind] + tonumber(found[i + 1])
    end
    return sums.f < min_failures or sums.f < min_share * (sums.f + sums.s)
end

local opening = find_opening(openings, name, now, forget)
if opening > 0 and opening ~= probed then
    return {opening, math.max(0, opening - now), 0}
end
if opening == 0 and may_stay_closed() then
    return {0, 0, 0}
end
local times = redis.call('INCR', streak)
local pause = math.max(min_pause, math.min(cooldown * 2 ^ (times - 1), max_cooldown))
redis.call('ZADD', openings, now + pause, name)
redis.call('PEXPIRE', openings, max_cooldown + forget)
redis.call('PEXPIRE', streak, pause + forget)
redis.call('DEL', outcomes, probe)
return {now + pause, pause, 1}
"""
)

_SUCCESS = LuaScript(
    _NOW
    + """
local openings, outcomes, probe, streak = unpack(KEYS)
local name, forget, probed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = read_clock()
local opening = find_opening(openings, name, now, forget)
if opening ~= probed then
    return {opening, math.max(0, opening - now), 0}
end
redis.call('ZREM', openings, name)
redis.call('DEL', probe, streak)
return {0, 0, 1}
"""
)

_PROBE = LuaScript(
    _NOW
    + """
local openings, outcomes, probe, streak = unpack(KEYS)
local name, forget, probe_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = read_clock()
local opening = find_opening(openings, name, now, forget)
if opening == 0 or now < opening then
    return {opening, math.max(0, opening - now), 0, 0}
end
if redis.call('SET', probe, '1', 'NX', 'PX', probe_ms) then
    return {opening, 0, 1, probe_ms}
end
return {opening, 0, 0, redis.call('PTTL', probe)}
"""
)
