"""Streams of letters on a real Redis: whole batches, bounded bytes, and a stream that nobody but its owner makes."""

from collections.abc import AsyncIterator, Sequence

import pytest
import redis
import trio

from storage.redis import Redis
from storage.redis_wire import Wire, open_wire
from storage.relay_streams import READ_ENTRIES, START, Arrived, Entry, RelayStreams, letters_key, size_key

ALL_BYTES = Entry(b'["a"]', bytes(range(256)))
OTHER = Entry(b'["b"]', b"")


@pytest.fixture
async def wire(client: Redis) -> AsyncIterator[Wire]:
    async with open_wire(client) as wire:
        yield wire


@pytest.fixture
async def streams(wire: Wire) -> RelayStreams:
    streams = RelayStreams(wire)
    await streams.keep("here")
    return streams


def entries(arrived: Sequence[Arrived]) -> list[Entry]:
    return [one.entry for one in arrived]


async def read_size(client: Redis) -> int:
    return int(await client.get(size_key("here")) or b"-1")


async def test_what_is_added_is_read_in_order_and_byte_by_byte(streams: RelayStreams) -> None:
    assert await streams.add("here", [ALL_BYTES, OTHER]) == "added"
    assert await streams.add("here", [ALL_BYTES]) == "added"
    assert entries(await streams.read("here", START, 1)) == [ALL_BYTES, OTHER, ALL_BYTES]


async def test_reading_goes_on_after_a_position(streams: RelayStreams) -> None:
    await streams.add("here", [ALL_BYTES, OTHER, ALL_BYTES])
    first, second, _ = await streams.read("here", START, 1)
    assert entries(await streams.read("here", first.position, 1)) == [OTHER, ALL_BYTES]
    assert entries(await streams.read("here", second.position, 1)) == [ALL_BYTES]


async def test_reading_waits_for_what_is_to_come(streams: RelayStreams, client: Redis) -> None:
    found: list[Entry] = []

    async def read() -> None:
        found.extend(entries(await streams.read("here", START, 2)))

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(0.01)
            async with open_wire(client) as other:
                await RelayStreams(other).add("here", [OTHER])
    assert found == [OTHER]


async def test_reading_ends_after_a_time(streams: RelayStreams) -> None:
    assert await streams.read("here", START, 0.01) == []


async def test_a_read_brings_no_more_than_fits_into_memory(streams: RelayStreams) -> None:
    await streams.add("here", [OTHER] * (READ_ENTRIES + 1))
    assert len(await streams.read("here", START, 1)) == READ_ENTRIES


async def test_nothing_is_added_where_nobody_reads(streams: RelayStreams, client: Redis) -> None:
    assert await streams.add("nowhere", [OTHER]) == "missing"
    await streams.remove("here")
    assert await streams.add("here", [OTHER]) == "missing"
    assert await client.dbsize() == 0


async def test_a_stream_is_made_once(streams: RelayStreams, client: Redis) -> None:
    await streams.add("here", [OTHER])
    assert not await streams.keep("here")
    assert entries(await streams.read("here", START, 1)) == [OTHER]
    await client.flushall()
    assert await streams.keep("here")
    assert await streams.read("here", START, 0.01) == []


async def test_what_was_read_is_dropped_and_its_room_is_free_again(streams: RelayStreams, client: Redis) -> None:
    await streams.add("here", [ALL_BYTES, OTHER, ALL_BYTES])
    _, second, third = await streams.read("here", START, 1)
    read_bytes = ALL_BYTES.size_bytes + OTHER.size_bytes
    for _ in range(2):
        await streams.trim("here", second.position, read_bytes)
        assert await read_size(client) == ALL_BYTES.size_bytes
    assert entries(await streams.read("here", START, 1)) == [ALL_BYTES]
    await streams.trim("here", third.position, 1)
    assert await read_size(client) == 0
    assert await streams.add("here", [OTHER]) == "added"


async def test_a_full_stream_takes_nothing_until_it_is_read(wire: Wire) -> None:
    streams = RelayStreams(wire, full_bytes=2 * ALL_BYTES.size_bytes)
    await streams.keep("here")
    assert await streams.add("here", [ALL_BYTES, ALL_BYTES, ALL_BYTES]) == "added"
    assert await streams.add("here", [OTHER]) == "full"
    *_, last = await streams.read("here", START, 1)
    await streams.trim("here", last.position, 3 * ALL_BYTES.size_bytes)
    assert await streams.add("here", [OTHER]) == "added"


async def test_the_stream_of_a_process_that_is_gone_vanishes(client: Redis, wire: Wire) -> None:
    streams = RelayStreams(wire, expiry_seconds=0.05)
    await streams.keep("here")
    await streams.add("here", [OTHER])
    *_, last = await streams.read("here", START, 1)
    await streams.trim("here", last.position, 1)
    await trio.sleep(0.06)
    assert await client.exists([letters_key("here"), size_key("here")]) == 0
    assert await streams.add("here", [OTHER]) == "missing"


async def test_its_keys_share_a_hash_tag(streams: RelayStreams, redis_url: str) -> None:
    await streams.add("here", [OTHER])
    with redis.Redis.from_url(redis_url) as looker:
        assert {key.decode() for key in looker.keys("*")} == {letters_key("here"), size_key("here")}
        assert all(looker.pttl(key) > 0 for key in (letters_key("here"), size_key("here")))
    assert size_key("here").startswith(letters_key("here"))


def test_what_a_letter_says_is_in_no_repr() -> None:
    assert "secret" not in repr(Entry(b"secret", b"secret"))
