"""Events of a user's devices, as Redis keeps them: numbered in one sequence, for a day, for who was away meanwhile.

One script numbers an event, keeps it, lets the oldest go and tells it on the user's channel; so they are told in the
order of their numbers, and none is kept that is not told. A number is the time in microseconds, by Redis's clock, or
one more than the last: numbers go on increasing where Redis was started anew and empty, and stay below 2^53.

What is gone is remembered longer than what is kept: by the number of the last event that is not there any more, for
each of those that different listeners miss. Who has heard of an older one last has missed something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from uuid import UUID

from storage.device_events import events_channel
from storage.redis import LuaScript, Redis, command

Track = Literal["desktop", "others", "watchers"]
"""Whose an event is: a desktop's (which no desktop hears), another's, or for nobody but watchers."""
TRACKS: Sequence[Track] = ("desktop", "others", "watchers")

DAY_SECONDS = 86_400
FEW_ENTRIES = 64
"""A page of history."""
FEW_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one user. An event that is larger than `most_body_bytes` is told, and counts as gone at once: whoever was not
    there has missed it. `large_seconds`: so long a process may take to fetch one.
    """

    most_entries: int = 2_000
    most_bytes: int = 16 * 1024 * 1024
    most_body_bytes: int = 256 * 1024
    keep_seconds: int = DAY_SECONDS
    remember_seconds: int = 30 * DAY_SECONDS
    large_seconds: int = 60
    most_cursors: int = 300
    most_tellers: int = 300


class Appended(NamedTuple):
    """`previous` is the number of the event before it, 0 for the first."""

    id: int
    previous: int


class Teller(NamedTuple):
    """Which connection of a device tells an event, by the time of its beginning: who began later is the newer one."""

    device_id: UUID
    connected_at: int


class Entry(NamedTuple):
    id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of history, of which nothing is known up to `before`. `last` is the number of the last event, 0 if none
    is known; `gone` those of the last that are kept no more; `oldest` that of the first which is kept, if what was
    asked for is so old that one may want to know. `is_all`: there was nothing more when it was read.
    """

    last: int
    before: int
    gone: Mapping[Track, int]
    oldest: int
    entries: Sequence[Entry] = field(repr=False)
    is_all: bool


class EventMessage(NamedTuple):
    """What is told on the channel. `id` is 0 for an event that is not kept. Of a large one, the body is to be fetched
    by its `token`, which is empty otherwise.
    """

    id: int
    previous: int
    body: bytes
    token: str


def events_key(user_id: UUID) -> str:
    """A stream: the entry of event 7 is `7-0`."""
    return f"{{{user_id}}}:events"


def events_meta_key(user_id: UUID) -> str:
    """A hash: the last number, the size of what is kept; for each track its last number, and the last that is gone."""
    return f"{{{user_id}}}:events-meta"


def newest_key(user_id: UUID) -> str:
    """A hash: of those events of which only the newest is kept, its number."""
    return f"{{{user_id}}}:events-newest"


def large_event_key(user_id: UUID, token: str) -> str:
    return f"{{{user_id}}}:large-event:{token}"


def tellers_key(user_id: UUID) -> str:
    """A hash: the newest connection of each device that has told an event."""
    return f"{{{user_id}}}:event-tellers"


def cursors_key(user_id: UUID) -> str:
    """A hash: up to where each device has seen everything."""
    return f"{{{user_id}}}:cursors"


def read_message(said: bytes) -> EventMessage:
    """Without the message's kind."""
    number, previous, body = said.split(b" ", 2)
    token = body[1:].decode() if body.startswith(b"@") else ""
    return EventMessage(int(number), int(previous), body, token)


@dataclass(frozen=True, slots=True)
class EventStream:
    """Every method raises RedisUnavailable; then it is not known whether its script ran. Bodies are opaque, and do not
    begin with an `@`. A `token` names an event, for its whole life.
    """

    redis: Redis
    bounds: Bounds = Bounds()

    async def append(
        self,
        user_id: UUID,
        track: Track,
        body: bytes,
        token: str,
        *,
        newest_of: str = "",
        floor: int = 0,
        teller: Teller | None = None,
    ) -> Appended:
        """Keep an event and tell it. Of those that have the same `newest_of` only the newest is kept. Its number is
        greater than `floor`, which whoever asks has seen. It is 0, and nothing is done, if a newer connection than
        `teller` has told one: this would come after what is newer.
        """
        bounds = self.bounds
        keys = [events_key(user_id), events_meta_key(user_id), newest_key(user_id), large_event_key(user_id, token)]
        known = (events_channel(user_id), track, body, token, newest_of, floor)
        sizes = (bounds.most_entries, bounds.most_bytes, bounds.most_body_bytes)
        times = (bounds.keep_seconds, bounds.remember_seconds, bounds.large_seconds)
        fence = ("", 0) if teller is None else (str(teller.device_id), teller.connected_at)
        number, previous = await _APPEND.run(
            self.redis, [*keys, tellers_key(user_id)], [*known, *sizes, *times, *fence, bounds.most_tellers]
        )
        return Appended(number, previous)

    async def tell(self, user_id: UUID, body: bytes, token: str) -> None:
        """An event that is not kept and has no number."""
        if len(body) > self.bounds.most_body_bytes:
            key = large_event_key(user_id, token)
            await command(self.redis.set(key, body, ex=self.bounds.large_seconds))
            body = b"@" + token.encode()
        await command(self.redis.publish(events_channel(user_id), b"event 0 0 " + body))

    async def fetch_large(self, user_id: UUID, token: str) -> bytes | None:
        return await command(self.redis.get(large_event_key(user_id, token)))

    async def find_last(self, user_id: UUID) -> int:
        """The number of the last event, 0 if none is known."""
        return int(await command(self.redis.hget(events_meta_key(user_id), "last")) or 0)

    async def read(self, user_id: UUID, after: int) -> Page:
        """The events after that number, in order; not more than fit a page."""
        keys = [events_key(user_id), events_meta_key(user_id)]
        row = await _READ.run(self.redis, keys, [after, FEW_ENTRIES, FEW_BYTES])
        last, before, *gone, oldest, is_all, flat = row
        entries = [Entry(int(number[:-2]), body) for number, body in zip(flat[::2], flat[1::2], strict=True)]
        return Page(last, before, dict(zip(TRACKS, gone, strict=True)), oldest, entries, is_all=bool(is_all))

    async def note_cursors(self, user_id: UUID, cursors: Mapping[UUID, int]) -> None:
        """Up to where devices have seen everything; what is less than was known changes nothing."""
        pairs: list[str | int] = [part for device_id, cursor in cursors.items() for part in (str(device_id), cursor)]
        bounds = self.bounds
        await _NOTE_CURSORS.run(
            self.redis, [cursors_key(user_id)], [bounds.most_cursors, bounds.remember_seconds, *pairs]
        )

    async def find_cursor(self, user_id: UUID, device_id: UUID) -> int | None:
        cursor: Any = await command(self.redis.hget(cursors_key(user_id), str(device_id)))
        return None if cursor is None else int(cursor)


# A number has sixteen digits: `..` would write only fourteen of them.
_SHOW = """
local function show(number) return string.format('%.0f', number) end
"""

# An entry: {number, {'track', track, 'newest_of', what, 'body', body}}. A stream that has expired is all gone. However
# much is to go, an event takes no more than some of it away: the next ones take the rest.
_APPEND = LuaScript(
    _SHOW
    + """
local stream, meta, newest, large = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, track, body, token, newest_of, floor = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local most_entries, most_bytes, most_body_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local keep_seconds, remember_seconds, large_seconds = ARGV[10], ARGV[11], ARGV[12]
local tellers, teller, since, most_tellers = KEYS[5], ARGV[13], tonumber(ARGV[14]), tonumber(ARGV[15])
local MOST_LEAVING = 64

if teller ~= '' then
    local newest_since = tonumber(redis.call('HGET', tellers, teller) or 0)
    if since < newest_since then return {0, 0} end
    if since > newest_since then
        if redis.call('HLEN', tellers) >= most_tellers then redis.call('DEL', tellers) end
        redis.call('HSET', tellers, teller, ARGV[14])
        redis.call('EXPIRE', tellers, keep_seconds)
    end
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local known = redis.call('HMGET', meta, 'last', 'bytes')
local last, bytes = tonumber(known[1] or 0), tonumber(known[2] or 0)
local id = math.max(now, last + 1, floor + 1)
local number = show(id)
local changes = {}
local function change(name, value)
    changes[#changes + 1] = name
    changes[#changes + 1] = value
end
if last == 0 then
    change('before', show(id - 1))
    for _, name in ipairs({'desktop', 'others', 'watchers'}) do change('gone:' .. name, show(id - 1)) end
elseif redis.call('EXISTS', stream) == 0 then
    bytes = 0
    for _, name in ipairs({'desktop', 'others', 'watchers'}) do
        local gone = redis.call('HGET', meta, 'last:' .. name)
        if gone then change('gone:' .. name, gone) end
    end
end
change('last', number)
change('last:' .. track, number)

local function remove(entry)
    redis.call('XDEL', stream, entry[1])
    bytes = bytes - #entry[2][6]
end
local function let_go(entry)
    remove(entry)
    local gone, what = string.sub(entry[1], 1, -3), entry[2][4]
    change('gone:' .. entry[2][2], gone)
    if what ~= '' and redis.call('HGET', newest, what) == gone then redis.call('HDEL', newest, what) end
end

if newest_of ~= '' then
    local former = redis.call('HGET', newest, newest_of)
    if former then
        local entry = redis.call('XRANGE', stream, former, former)[1]
        if entry then remove(entry) end
        redis.call('HDEL', newest, newest_of)
    end
end
local told = body
if #body > most_body_bytes then
    redis.call('SET', large, body, 'EX', large_seconds)
    change('gone:' .. track, number)
    told = '@' .. token
else
    redis.call('XADD', stream, number .. '-0', 'track', track, 'newest_of', newest_of, 'body', body)
    bytes = bytes + #body
    if newest_of ~= '' then redis.call('HSET', newest, newest_of, number) end
end

local too_old = show(math.max(0, now - keep_seconds * 1000000))
for _ = 1, MOST_LEAVING do
    local is_full = bytes > most_bytes or redis.call('XLEN', stream) > most_entries
    local entry = redis.call('XRANGE', stream, '-', is_full and '+' or too_old, 'COUNT', 1)[1]
    if not entry then break end
    let_go(entry)
end
change('bytes', show(bytes))
redis.call('HSET', meta, unpack(changes))
redis.call('EXPIRE', stream, keep_seconds)
redis.call('EXPIRE', newest, keep_seconds)
redis.call('EXPIRE', meta, remember_seconds)
redis.call('PUBLISH', channel, 'event ' .. number .. ' ' .. show(last) .. ' ' .. told)
return {id, last}
"""
)

# A stream that has expired is all gone.
_READ = LuaScript(
    _SHOW
    + """
local stream, meta = KEYS[1], KEYS[2]
local after, most_entries, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local of = redis.call('EXISTS', stream) == 1 and 'gone:' or 'last:'
local function find(name) return tonumber(redis.call('HGET', meta, name) or 0) end
local answer = {find('last'), find('before')}
local is_old = after > answer[1]
for _, track in ipairs({'desktop', 'others', 'watchers'}) do
    local gone = math.max(find(of .. track), find('gone:' .. track))
    answer[#answer + 1] = gone
    is_old = is_old or after < gone
end
local oldest = is_old and redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
answer[6] = oldest and tonumber(string.sub(oldest[1], 1, -3)) or 0

local found, bytes = redis.call('XRANGE', stream, show(after + 1), '+', 'COUNT', most_entries), 0
local flat = {}
for _, entry in ipairs(found) do
    local body = entry[2][6]
    bytes = bytes + #body
    if #flat > 0 and bytes > most_bytes then break end
    flat[#flat + 1] = entry[1]
    flat[#flat + 1] = body
end
answer[7] = (#found < most_entries and #flat == 2 * #found) and 1 or 0
answer[8] = flat
return answer
"""
)

_NOTE_CURSORS = LuaScript(
    """
local cursors, most, seconds = KEYS[1], tonumber(ARGV[1]), ARGV[2]
for i = 3, #ARGV, 2 do
    local device, cursor = ARGV[i], ARGV[i + 1]
    if tonumber(cursor) > tonumber(redis.call('HGET', cursors, device) or -1) then
        redis.call('HSET', cursors, device, cursor)
    end
end
redis.call('EXPIRE', cursors, seconds)
local excess = redis.call('HLEN', cursors) - most
if excess > 0 then
    local found, all = redis.call('HGETALL', cursors), {}
    for i = 1, #found, 2 do all[#all + 1] = {found[i], tonumber(found[i + 1])} end
    table.sort(all, function(one, other) return one[2] < other[2] end)
    for i = 1, excess do redis.call('HDEL', cursors, all[i][1]) end
end
return 1
"""
)
