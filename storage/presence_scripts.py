"""What Redis does with links, each script whole and by Redis's own clock. `storage.presence` says what the keys are.

A script touches the records of one user, or the index of all links, which lies in another slot of Redis Cluster.
"""

from storage.device_events import TELL_STATUS
from storage.redis import LuaScript

_CLOCK = """
local function read_clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local now = read_clock()
"""

# A record: {connection, seen, ends, visible, since, link, gone, dropped}. `link` is there while the device is linked.
_RECORDS = (
    _CLOCK
    + """
local key, channel, memory, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
"""
    + TELL_STATUS
    + """
local function find(device)
    local value = redis.call('HGET', key, device)
    return value and cjson.decode(value)
end
local function keep(device, record)
    redis.call('HSET', key, device, cjson.encode(record))
    redis.call('PEXPIRE', key, memory)
end
local function tell_links()
    redis.call('PUBLISH', channel, 'links ')
end
local function part(device, record, status)
    record.link, record.gone = nil, now
    keep(device, record)
    tell_links()
    if record.visible then tell(device, status) end
end
local function pack(device, record)
    return {device, record.connection, record.seen, record.visible and 1 or 0, record.since, record.link}
end
"""
)

# The newest connection of a device has its link; `since` says which is newer, whatever Redis's clock does meanwhile.
ENTER = LuaScript(
    _RECORDS
    + """
local device, connection, visible, link = ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7]
local since, open_for, max_known = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local function forget_oldest()
    local past, found = {}, redis.call('HGETALL', key)
    for i = 1, #found, 2 do
        local record = cjson.decode(found[i + 1])
        if not record.link then past[#past + 1] = {found[i], record.seen} end
    end
    table.sort(past, function(one, other) return one[2] < other[2] end)
    for i = 1, math.min(#past, #found / 2 - max_known) do redis.call('HDEL', key, past[i][1]) end
end

local was = find(device)
local is_own = was and was.connection == connection
if is_own and since == 0 then since = was.since end
if since == 0 then since = now - open_for end
if was and open_for > 0 then
    if is_own and was.dropped then return {'dropped'} end
    if not is_own and was.since >= since then return {'replaced'} end
elseif was and not is_own then
    since = math.max(since, was.since + 1)
end
if was and was.link and was.ends <= now then part(device, was, 'offline') end
local is_linked = was and was.link
local was_visible = is_linked and was.visible or false
local is_same = is_linked and is_own and was_visible == visible and was.link == link
keep(device, {
    connection = connection, seen = now, ends = now + ttl, visible = visible, since = since, link = link
})
if not is_same then tell_links() end
if visible ~= was_visible then tell(device, visible and 'online' or 'offline') end
if redis.call('HLEN', key) > max_known then forget_oldest() end
local away = was and (is_linked and 0 or now - was.seen) or -1
return {'kept', since, away, is_linked and not is_own and pack(device, was) or false}
"""
)

TOUCH = LuaScript(
    _RECORDS
    + """
local device, connection, since = ARGV[4], ARGV[5], tonumber(ARGV[6])
local was = find(device)
if not was then return 'lost' end
if was.connection ~= connection then return was.since < since and 'lost' or 'replaced' end
if was.dropped then return 'dropped' end
if not was.link then return 'lost' end
was.seen, was.ends = now, now + ttl
keep(device, was)
return 'kept'
"""
)

SET_VISIBLE = LuaScript(
    _RECORDS
    + """
local device, connection, visible = ARGV[4], ARGV[5], ARGV[6] == '1'
local was = find(device)
if not (was and was.link and was.connection == connection) then return 0 end
local has_changed = was.visible ~= visible
was.visible = visible
keep(device, was)
if has_changed then
    tell_links()
    tell(device, visible and 'online' or 'offline')
end
return 1
"""
)

LEAVE = LuaScript(
    _RECORDS
    + """
local device, connection = ARGV[4], ARGV[5]
local was = find(device)
if not (was and was.link and was.connection == connection) then return 0 end
was.connection, was.seen = '', now
part(device, was, 'disconnected')
return 1
"""
)

# Its process is gone, and could not say so. Unlike one that has left, the connection may come back.
ABANDON = LuaScript(
    _RECORDS
    + """
local device, connection = ARGV[4], ARGV[5]
local was = find(device)
if not (was and was.link and was.connection == connection) then return 0 end
part(device, was, 'disconnected')
return 1
"""
)

DROP = LuaScript(
    _RECORDS
    + """
local device = ARGV[4]
local was = find(device)
if not was then return 0 end
local was_linked = was.link and 1 or 0
was.dropped = true
if was.link then
    was.seen = now
    part(device, was, 'offline')
else
    keep(device, was)
end
return was_linked
"""
)

LIST = LuaScript(
    _RECORDS
    + """
local rows, found = {}, redis.call('HGETALL', key)
for i = 1, #found, 2 do
    local record = cjson.decode(found[i + 1])
    if record.link and now < record.ends then rows[#rows + 1] = pack(found[i], record) end
end
return rows
"""
)

EXPIRE = LuaScript(
    _RECORDS
    + """
local rows = {}
for i = 4, #ARGV, 2 do
    local device, connection = ARGV[i], ARGV[i + 1]
    local was, row = find(device), {0}
    if was and was.link and was.connection == connection then
        if now < was.ends then
            row = {was.ends}
        else
            row = {0, pack(device, was)}
            part(device, was, 'offline')
        end
    end
    rows[#rows + 1] = row
end
return rows
"""
)

TELL_SILENT = LuaScript(
    _RECORDS
    + """
local device, heard_at = ARGV[4], tonumber(ARGV[5])
local was = find(device)
if was and (was.link or (was.gone or 0) >= heard_at) then return 0 end
tell(device, 'offline')
return 1
"""
)

ADD_DUE = LuaScript(
    _CLOCK
    + """
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

CLAIM_DUE = LuaScript(
    _CLOCK
    + """
local limit, lease, memory = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, limit)
for _, member in ipairs(members) do redis.call('ZADD', KEYS[1], now + lease, member) end
redis.call('PEXPIRE', KEYS[1], memory)
return {now + lease, members}
"""
)

# What has been entered anew since it was claimed stays as it is.
SET_DUE = LuaScript(
    """
local claim = tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
    local member, due = ARGV[i], ARGV[i + 1]
    if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) == claim then
        if due == '0' then redis.call('ZREM', KEYS[1], member) else redis.call('ZADD', KEYS[1], due, member) end
    end
end
return 1
"""
)

READ_AGE = LuaScript(
    _CLOCK
    + """
redis.call('SET', KEYS[1], now, 'NX')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return now - tonumber(redis.call('GET', KEYS[1]))
"""
)
