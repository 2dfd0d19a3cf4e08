"""Letters on their way between processes: a stream in Redis for each process that reads one.

A process makes its own stream and keeps it alive; nobody else does, so that what is sent to one that is gone is known
not to arrive. Beside it stands how many bytes it holds, for streams are bounded in bytes and Redis does not count them.
https://redis.io/docs/latest/develop/data-types/streams/
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.redis import LuaScript, milliseconds
from storage.redis_wire import Wire

FULL_BYTES = 64 * 1024 * 1024
"""Nothing more is added to a stream that holds so much: its process has stopped reading for now."""
READ_ENTRIES = 64
START = "0-0"
"""The position before everything."""

Outcome = Literal["added", "missing", "full"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A header, and bytes as they are. Of letters whose contents are nobody's business."""

    header: bytes = field(repr=False)
    blob: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return len(self.header) + len(self.blob)


@dataclass(frozen=True, slots=True)
class Arrived:
    """`position` is the entry's own: reading goes on after it."""

    position: str
    entry: Entry


def letters_key(instance: str) -> str:
    return f"{{relay:{instance}}}"


def size_key(instance: str) -> str:
    return f"{{relay:{instance}}}:bytes"


@dataclass(frozen=True, slots=True)
class RelayStreams:
    """Every method raises RedisUnavailable; then it is not known whether it was done."""

    wire: Wire
    expiry_seconds: float = 60
    full_bytes: int = FULL_BYTES

    async def keep(self, instance: str) -> bool:
        """The stream lives from now on until its expiry. True if it had to be made: what was in it is lost. Safe to
        repeat.
        """
        return bool(await self._run(_KEEP, instance, milliseconds(self.expiry_seconds)))

    async def add(self, instance: str, entries: Sequence[Entry]) -> Outcome:
        """All of them, in order, or none."""
        parts = [part for entry in entries for part in (entry.header, entry.blob)]
        outcome: bytes = await self._run(_ADD, instance, self.full_bytes, *parts)
        return "added" if outcome == b"added" else "full" if outcome == b"full" else "missing"

    async def read(self, instance: str, position: str, wait_seconds: float) -> Sequence[Arrived]:
        """Those after the position, as soon as there are any; none after the time, which is well below that of a
        command. Whoever else uses the wire waits meanwhile.
        """
        wait = ("BLOCK", milliseconds(wait_seconds))
        streams = ("STREAMS", letters_key(instance), position)
        found = await self.wire.ask("XREAD", "COUNT", READ_ENTRIES, *wait, *streams)
        return [_read_row(*row) for rows in (found or {}).values() for row in rows]

    async def trim(self, instance: str, position: str, size_bytes: int) -> None:
        """Drop what stands up to the position, which is so many bytes. Safe to repeat."""
        await self._run(_TRIM, instance, _find_next(position), size_bytes)

    async def remove(self, instance: str) -> None:
        await self.wire.ask("DEL", letters_key(instance), size_key(instance))

    async def _run(self, script: LuaScript, instance: str, *args: str | int | bytes) -> Any:
        return await self.wire.run(script, [letters_key(instance), size_key(instance)], args)


def _read_row(position: bytes, values: Sequence[bytes]) -> Arrived:
    fields = dict(zip(values[::2], values[1::2], strict=True))
    return Arrived(position.decode(), Entry(fields.get(b"h", b""), fields.get(b"b", b"")))


def _find_next(position: str) -> str:
    """The smallest that is greater."""
    milliseconds_, _, number = position.partition("-")
    return f"{milliseconds_}-{int(number) + 1}"


_KEEP = LuaScript(
    """
local is_made = redis.call('EXISTS', KEYS[1]) == 0
if is_made then
    redis.call('XADD', KEYS[1], '*', 'h', '')
    redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
    redis.call('SET', KEYS[2], 0)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return is_made and 1 or 0
"""
)

_ADD = LuaScript(
    """
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return 'missing' end
local size = tonumber(redis.call('GET', KEYS[2]) or 0)
if size >= tonumber(ARGV[1]) then return 'full' end
for i = 2, #ARGV, 2 do
    redis.call('XADD', KEYS[1], '*', 'h', ARGV[i], 'b', ARGV[i + 1])
    size = size + #ARGV[i] + #ARGV[i + 1]
end
redis.call('SET', KEYS[2], size, 'PX', left)
return 'added'
"""
)

# What is dropped twice counts once; and whatever went wrong, an empty stream holds nothing.
_TRIM = LuaScript(
    """
if redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1]) == 0 then return 0 end
local size = tonumber(redis.call('GET', KEYS[2]) or 0) - tonumber(ARGV[2])
if size < 0 or redis.call('XLEN', KEYS[1]) == 0 then size = 0 end
redis.call('SET', KEYS[2], size, 'KEEPTTL')
return 1
"""
)
