"""The client for Redis: deadlines that hold, outages that heal, and no secret in an error."""

import gc
import random
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
import trio

import storage.redis
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.redis import LuaScript, Redis, budget_key, check_redis, command, open_redis, session_key, user_key
from tests.storage.redis_server import PASSWORD, QUOTED, RedisServer

WRONG = "hunter2"
DEADLINE_SECONDS = 0.3


@pytest.fixture(autouse=True)
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", DEADLINE_SECONDS)
    yield
    gc.collect()  # what warns, warns here


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.kill()


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(server.url) as client:
        yield client


async def assert_refused_in_time(client: Redis) -> None:
    with trio.fail_after(2 * DEADLINE_SECONDS), pytest.raises(RedisUnavailable):
        await command(client.ping())


async def assert_whole(client: Redis) -> None:
    """More callers at once than there are connections are all answered."""
    async with trio.open_nursery() as nursery:
        for _ in range(storage.redis.MAX_CONNECTIONS * 3):
            nursery.start_soon(command, client.ping())


async def test_commands_are_answered(client: Redis) -> None:
    await command(client.set("key", b"value"))
    assert await command(client.get("key")) == b"value"


def test_keys_of_a_user_share_a_hash_tag() -> None:
    user_id, session_id = UUID(int=1), UUID(int=2)
    keys = [session_key(user_id, session_id), user_key(user_id), budget_key(str(user_id), "reads")]
    assert all(key.startswith(f"{{{user_id}}}:") for key in keys)
    assert len(set(keys)) == 3
    assert session_key(user_id, session_id) != session_key(user_id, user_id)


async def test_a_script_runs_also_where_redis_has_been_started_anew(client: Redis) -> None:
    script = LuaScript("return {KEYS[1], ARGV[1] + 1}")
    for _ in range(2):
        assert await script.run(client, ["key"], [41]) == [b"key", 42]
    await command(client.script_flush())
    assert await script.run(client, ["key"], [41]) == [b"key", 42]


async def test_a_script_that_gets_no_answer_says_so(server: RedisServer, client: Redis) -> None:
    server.hang()
    with trio.fail_after(2 * DEADLINE_SECONDS), pytest.raises(RedisUnavailable):
        await LuaScript("return 1").run(client, [], [])
    server.go_on()


async def test_a_hanging_redis_is_refused_within_the_deadline_and_used_again(
    server: RedisServer, client: Redis
) -> None:
    server.hang()
    await assert_refused_in_time(client)
    server.go_on()
    assert await command(client.ping())


async def test_a_redis_that_hangs_while_many_connect_loses_no_connection_for_ever(
    server: RedisServer, client: Redis
) -> None:
    """More callers than connections, several times over, none of which gets through its handshake."""
    server.hang()
    client.connection_pool.disconnect()
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for _ in range(storage.redis.MAX_CONNECTIONS * 3):
                nursery.start_soon(assert_refused_in_time, client)
    server.go_on()
    await assert_whole(client)


async def test_callers_cancelled_at_random_leave_the_client_whole(client: Redis) -> None:
    draw = random.Random(1)  # noqa: S311 # the same moments in every run

    async def call(number: int) -> None:
        with suppress(RedisUnavailable), trio.move_on_after(draw.random() / 100):
            assert await command(client.echo(str(number))) == str(number).encode()

    for _ in range(15):
        client.connection_pool.disconnect()
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(call, number)
    await assert_whole(client)


async def test_a_redis_that_restarts_is_found_again(server: RedisServer, client: Redis) -> None:
    for _ in range(2 * storage.redis.MAX_CONNECTIONS):
        server.kill()
        await assert_refused_in_time(client)
        server.start()
        with trio.fail_after(2 * DEADLINE_SECONDS):
            assert await command(client.ping())


async def test_leaving_does_not_wait_for_a_redis_that_hangs(server: RedisServer) -> None:
    with trio.fail_after(5):
        async with open_redis(server.url) as client:
            server.hang()
            await assert_refused_in_time(client)


async def test_an_error_reply_is_ours(client: Redis) -> None:
    await command(client.set("text", b"x"))
    with pytest.raises(RedisUnavailable):
        await command(client.incr("text"))


async def test_a_redis_that_only_reads_does_not_pass_the_check(server: RedisServer, client: Redis) -> None:
    await check_redis(client)
    server.fill()
    await command(client.ping())
    with pytest.raises(RedisUnavailable):
        await check_redis(client)
    server.make_room()
    await check_redis(client)


async def test_what_the_block_raises_comes_out_as_it_is(server: RedisServer) -> None:
    with pytest.raises(DatabaseUnavailable, match="gone") as caught:
        async with open_redis(server.url):
            raise DatabaseUnavailable("gone") from ValueError("why")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_several_errors_stay_together(server: RedisServer) -> None:
    with pytest.RaisesGroup(DatabaseUnavailable, ValueError):
        async with open_redis(server.url):
            raise ExceptionGroup("two", [DatabaseUnavailable(), ValueError()])


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{WRONG}@127.0.0.1:1",
        f"redis://:{WRONG}/x@127.0.0.1:6379",
        f"redis://:x@127.0.0.1:{WRONG}",
        f"redis://{WRONG}@[::1",
        "redis://",
        f"unix://:{WRONG}@/nowhere/redis.sock",
        f"rediss://:{WRONG}@127.0.0.1:1",
    ],
)
async def test_an_address_that_is_wrong_says_so_and_keeps_the_password(url: str) -> None:
    with pytest.raises(RedisUnavailable, match="REDIS_URL") as caught:
        async with open_redis(url):
            raise AssertionError
    assert WRONG not in "".join(traceback.format_exception(caught.value))


async def test_a_wrong_password_says_so_and_shows_neither(server: RedisServer) -> None:
    with pytest.raises(RedisUnavailable, match="password in REDIS_URL") as caught:
        async with open_redis(server.url.replace(QUOTED, WRONG)):
            raise AssertionError
    shown = "".join(traceback.format_exception(caught.value))
    assert WRONG not in shown
    assert PASSWORD not in shown


async def test_a_redis_that_hangs_at_the_start_is_reported(server: RedisServer) -> None:
    server.hang()
    with trio.fail_after(2), pytest.raises(RedisUnavailable, match="REDIS_URL"):
        async with open_redis(server.url):
            raise AssertionError
