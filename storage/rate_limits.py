"""Rate limits in Redis: one script a request, which looks up what the request needs to know, and draws on its budgets.

A window slides in twelfths: what was drawn in a twelfth counts until the whole of it is a window old. So no window of
that length, wherever it begins, has more than the limit. Either every budget has room and all are drawn on, or none is.

Time is Redis's clock. If it is set back a little, what was drawn counts for longer; if it is set by more than a window,
forwards or back, budgets begin afresh, and nobody waits for the clock to come back to where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.redis import LuaScript, Redis

TOMBSTONE = b"-"
"""A looked-up value that ends the matter: what was revoked or deleted draws on nobody's budget."""
TWELFTHS = 12
"""What is drawn counts for its window and the rest of its twelfth: up to 13/12 of a window."""


@dataclass(frozen=True, slots=True)
class Draw:
    """`cost` units of what `key` may have. A cost above the limit counts as the limit: it waits for a full budget."""

    key: str
    limit: int
    window_seconds: float
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the budget that is nearest to its end: its limit, what is left, and the seconds until it is whole again.

    `retry_after_seconds` is 0 if granted, else the time after which the same draw has room, if nobody else draws
    meanwhile. `drawn_at` says when, in milliseconds by Redis's clock, for whoever gives back; 0 if Redis was not asked.
    """

    is_granted: bool
    budget: int
    """Which of the draws it is about, counted from 0."""
    limit: int
    remaining: int
    reset_seconds: float
    retry_after_seconds: float
    drawn_at: int


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Every method is one round trip, and raises RedisUnavailable; then it is not known whether the script ran. All
    keys of a call share a hash tag. A key ends when nothing of its budget counts any more, and has 14 fields at most,
    26 after the clock was set back.
    """

    redis: Redis

    async def take(
        self, draws: Sequence[Draw], lookups: Sequence[str] = ()
    ) -> tuple[list[bytes | None], Verdict | None]:
        """The values of `lookups`, and whether there was room. No verdict, and no draw, if a value is TOMBSTONE."""
        return await self._take(draws, lookups, (), 0)

    async def take_or_give_back(self, draws: Sequence[Draw], drawn: Sequence[Draw], drawn_at: int) -> Verdict:
        """Draw, or, if there is no room, give back what was drawn elsewhere for the same purpose at that time. At least
        one draw.
        """
        _, verdict = await self._take(draws, (), drawn, drawn_at)
        if verdict is None:
            raise ValueError("there is no verdict on no draw")
        return verdict

    async def adjust(self, draws: Sequence[Draw], drawn_at: int, by: int) -> None:
        """Correct draws made at that time. More is drawn now, whether there is room or not; less is given back where it
        was drawn, unless that has left the window, and never more than was drawn there.
        """
        keys = [draw.key for draw in draws]
        await _ADJUST.run(self.redis, keys, [drawn_at, by, *map(_window_ms, draws)])

    async def _take(
        self, draws: Sequence[Draw], lookups: Sequence[str], drawn: Sequence[Draw], drawn_at: int
    ) -> tuple[list[bytes | None], Verdict | None]:
        counted = [*draws, *drawn]
        numbers = [number for draw in counted for number in (draw.limit, _window_ms(draw), draw.cost)]
        keys = [*lookups, *(draw.key for draw in counted)]
        args: list[int | bytes] = [len(lookups), len(draws), TOMBSTONE, drawn_at, *numbers]
        values, row = await _TAKE.run(self.redis, keys, args)
        return values, _read_verdict(row) if row else None


def _window_ms(draw: Draw) -> int:
    return max(TWELFTHS, round(draw.window_seconds * 1000))


def _read_verdict(row: list[Any]) -> Verdict:
    is_granted, budget, limit, remaining, reset, retry_after, drawn_at = row
    return Verdict(is_granted == 1, budget - 1, limit, remaining, reset / 1000, retry_after / 1000, drawn_at)


# A budget is a hash: the number of a twelfth, counted from the epoch, and what was drawn in it.
_BUDGETS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function field(twelfth) return string.format('%d', twelfth) end

-- What still counts is in parts; what does not, or was drawn by a clock that has been set by a window since, is old.
local function open_budget(key, window)
    local size = window / 12
    local budget = {key = key, size = size, twelfth = math.floor(now / size), used = 0, parts = {}, old = {}}
    local found = redis.call('HGETALL', key)
    for n = 1, #found, 2 do
        local twelfth, count = tonumber(found[n]), tonumber(found[n + 1])
        if math.abs(twelfth - budget.twelfth) > 12 then
            budget.old[#budget.old + 1] = found[n]
        else
            budget.used = budget.used + count
            budget.parts[#budget.parts + 1] = {twelfth = twelfth, count = count}
        end
    end
    return budget
end

local function wait_for_end_of(budget, twelfth)
    return math.max(1, math.ceil((twelfth + 13) * budget.size - now))
end

-- Milliseconds until so much of what was drawn counts no more.
local function wait_for(budget, wanted)
    table.sort(budget.parts, function(a, b) return a.twelfth < b.twelfth end)
    for _, part in ipairs(budget.parts) do
        wanted = wanted - part.count
        if wanted <= 0 then return wait_for_end_of(budget, part.twelfth) end
    end
    return 0
end

local function draw(budget, cost)
    redis.call('HINCRBY', budget.key, field(budget.twelfth), cost)
    redis.call('PEXPIRE', budget.key, wait_for_end_of(budget, budget.twelfth))
    if #budget.old > 0 then redis.call('HDEL', budget.key, unpack(budget.old)) end
end

local function give_back(key, window, drawn_at, cost)
    local at = field(math.floor(drawn_at / (window / 12)))
    local drawn = tonumber(redis.call('HGET', key, at) or 0)
    if drawn > cost then
        redis.call('HINCRBY', key, at, -cost)
    elseif drawn > 0 then
        redis.call('HDEL', key, at)
    end
end
"""

_TAKE = LuaScript(
    _BUDGETS
    + """
local lookups, draws, tombstone, drawn_at = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local values = {}
if lookups > 0 then
    values = redis.call('MGET', unpack(KEYS, 1, lookups))
    for _, value in ipairs(values) do
        if value == tombstone then return {values, {}} end
    end
end
if draws == 0 then return {values, {}} end

-- Key, limit, window and cost of the i-th, counted on through what may be given back.
local function numbers(i)
    return KEYS[lookups + i], tonumber(ARGV[3 * i + 2]), tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4])
end

local budgets, refused, longest = {}, nil, 0
for i = 1, draws do
    local key, limit, window, cost = numbers(i)
    local budget = open_budget(key, window)
    budget.limit, budget.cost = limit, math.min(cost, limit)
    budgets[i] = budget
    local excess = budget.used + budget.cost - limit
    local wait = excess > 0 and wait_for(budget, excess) or 0
    if wait > longest then refused, longest = i, wait end
end

if refused then
    for i = draws + 1, #KEYS - lookups do
        local key, _, window, cost = numbers(i)
        give_back(key, window, drawn_at, cost)
    end
    local budget = budgets[refused]
    local left = math.max(0, budget.limit - budget.used)
    return {values, {0, refused, budget.limit, left, wait_for(budget, budget.used), longest, now}}
end

local nearest, least = 1, 2
for i, budget in ipairs(budgets) do
    draw(budget, budget.cost)
    budget.left = budget.limit - budget.used - budget.cost
    if budget.left / budget.limit < least then nearest, least = i, budget.left / budget.limit end
end
local budget = budgets[nearest]
return {values, {1, nearest, budget.limit, budget.left, wait_for_end_of(budget, budget.twelfth), 0, now}}
"""
)

_ADJUST = LuaScript(
    _BUDGETS
    + """
local drawn_at, by = tonumber(ARGV[1]), tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
    local window = tonumber(ARGV[i + 2])
    if by > 0 then
        draw(open_budget(key, window), by)
    else
        give_back(key, window, drawn_at, -by)
    end
end
return 1
"""
)
