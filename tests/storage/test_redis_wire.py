"""A connection of one's own on a real Redis: also one with a password behind a Unix socket, that hangs or dies."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import trio
from coredis.exceptions import ResponseError

from storage.errors import RedisUnavailable
from storage.redis import LuaScript, Redis, command, open_redis
from storage.redis_wire import Wire, open_wire
from tests.storage.redis_server import RedisServer
from tests.storage.rubbish_redis import CUT, RubbishRedis, open_rubbish_redis

ALL_BYTES = bytes(range(256)) * 1000
RUBBISH = (b"$x\r\n", b"\r\n", b"#\r\n", b"-\xff\r\n", b"?\r\n", b"$10\r\nhalf" + CUT, CUT, b"HTTP/1.1 400\r\n\r\n")
ECHO = LuaScript("return {KEYS[1], ARGV[1], ARGV[2]}")


@pytest.fixture
async def wire(client: Redis) -> AsyncIterator[Wire]:
    async with open_wire(client) as wire:
        yield wire


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


async def test_a_command_is_answered_byte_by_byte(wire: Wire) -> None:
    await wire.ask("SET", "key", ALL_BYTES)
    assert await wire.ask("GET", "key") == ALL_BYTES


async def test_a_script_runs_though_redis_does_not_know_it_yet(wire: Wire) -> None:
    await wire.ask("SCRIPT", "FLUSH")
    for _ in range(2):
        assert await wire.run(ECHO, ["a"], [1, b"\r\n"]) == [b"a", b"1", b"\r\n"]


async def test_each_of_many_who_ask_at_once_gets_the_answer_to_what_was_asked(wire: Wire) -> None:
    found: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        found[number] = await wire.ask("ECHO", number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert found == {number: str(number).encode() for number in range(20)}


async def test_an_answer_that_was_not_waited_for_is_not_taken_for_the_next(wire: Wire) -> None:
    with trio.move_on_after(0.02) as waiting:
        await wire.ask("XREAD", "BLOCK", 300, "STREAMS", "nothing", "0")
    assert waiting.cancelled_caught
    assert await wire.ask("ECHO", "this") == b"this"


async def test_what_redis_refuses_is_told_and_the_connection_goes_on(wire: Wire) -> None:
    before = await wire.ask("CLIENT", "ID")
    with pytest.raises(RedisUnavailable) as raised:
        await wire.ask("NONSENSE")
    assert isinstance(raised.value.__cause__, ResponseError)
    assert await wire.ask("CLIENT", "ID") == before


async def test_a_connection_that_was_cut_is_made_anew(wire: Wire, redis_url: str) -> None:
    own = await wire.ask("CLIENT", "ID")
    with redis.Redis.from_url(redis_url) as killer:
        killer.client_kill_filter(_id=str(own))
    with pytest.raises(RedisUnavailable):
        await wire.ask("PING")
    assert await wire.ask("CLIENT", "ID") != own


@pytest.fixture
async def rubbish() -> AsyncIterator[RubbishRedis]:
    async with open_rubbish_redis() as server:
        yield server


@pytest.mark.parametrize("answer", RUBBISH)
async def test_rubbish_is_no_answer_and_the_connection_ends_with_it(rubbish: RubbishRedis, answer: bytes) -> None:
    async with open_redis(rubbish.url) as client, open_wire(client) as wire:
        assert await wire.ask("PING") == b"PONG"
        connections = rubbish.connections
        rubbish.answers.append(answer)
        with pytest.raises(RedisUnavailable):
            await wire.ask("PING")
        assert await wire.ask("PING") == b"PONG"
        assert rubbish.connections == connections + 1


@pytest.mark.parametrize("answer", RUBBISH)
async def test_rubbish_is_no_answer_for_the_client_either(rubbish: RubbishRedis, answer: bytes) -> None:
    async with open_redis(rubbish.url) as client:
        rubbish.answers.append(answer)
        with pytest.raises(RedisUnavailable):
            await command(client.ping())
        assert await command(client.ping())


async def test_nothing_stays_connected_after_the_block(client: Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as looker:
        async with open_wire(client) as wire:
            own = await wire.ask("CLIENT", "ID")
            assert own in [int(one["id"]) for one in looker.client_list()]
        with trio.fail_after(2):
            while own in [int(one["id"]) for one in looker.client_list()]:
                await trio.sleep(0.01)


async def test_the_password_and_the_database_are_those_of_the_client(server: RedisServer) -> None:
    async with open_redis(f"{server.url}?db=3") as client, open_wire(client) as wire:
        await client.set("key", b"there")
        assert await wire.ask("GET", "key") == b"there"


async def test_redis_may_die_and_come_back(server: RedisServer) -> None:
    async with open_redis(server.url) as client, open_wire(client) as wire:
        await wire.ask("PING")
        server.kill()
        for _ in range(2):
            with pytest.raises(RedisUnavailable):
                await wire.ask("PING")
        server.start()
        assert await wire.ask("PING") == b"PONG"


async def test_a_redis_that_hangs_is_waited_for_until_the_deadline(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_redis(server.url) as client, open_wire(client) as wire:
        await wire.ask("PING")
        monkeypatch.setattr("storage.redis.COMMAND_SECONDS", 0.05)
        server.hang()
        with pytest.raises(RedisUnavailable):
            await wire.ask("PING")
        server.go_on()
        monkeypatch.undo()
        assert await wire.ask("PING") == b"PONG"
