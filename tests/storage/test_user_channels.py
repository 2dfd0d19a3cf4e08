"""What concerns users, heard from a real Redis, also across outages."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis
import trio
import trio.testing

from storage import user_channels
from storage.device_events import events_channel
from storage.errors import RedisUnavailable
from storage.user_channels import Told, UserChannels, open_user_channels
from tests.storage.redis_server import RedisServer

ANN, BOB = uuid4(), uuid4()


class Ear:
    """What is heard, as it comes."""

    def __init__(self, channels: UserChannels) -> None:
        self.channels = channels
        self._send, self._heard = trio.open_memory_channel[Told](1000)

    async def listen(self) -> None:
        while True:
            await self._send.send(await self.channels.wait_told())

    async def hear(self) -> Told:
        with trio.fail_after(10):
            return await self._heard.receive()

    async def hear_messages(self, count: int) -> list[bytes]:
        """So many of them, and nothing else."""
        messages = [(await self.hear()).message for _ in range(count)]
        assert None not in messages
        return [message for message in messages if message is not None]


@asynccontextmanager
async def open_ear(redis_url: str) -> AsyncIterator[Ear]:
    async with open_user_channels(redis_url) as channels, trio.open_nursery() as nursery:
        ear = Ear(channels)
        nursery.start_soon(ear.listen)
        nursery.start_soon(channels.keep_alive)
        await wait_connected(channels)
        yield ear
        nursery.cancel_scope.cancel()


async def wait_connected(channels: UserChannels) -> None:
    with trio.fail_after(10):
        while channels._line is None:
            await trio.sleep(0.005)


@pytest.fixture
def speaker(redis_url: str) -> "Iterator[redis.Redis]":
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.go_on()
    server.kill()


def say(client: "redis.Redis", user_id: UUID, message: bytes) -> int:
    """How many listen."""
    return int(client.publish(events_channel(user_id), message))


def count_listeners(client: "redis.Redis", user_id: UUID) -> int:
    ((_, count),) = client.pubsub_numsub(events_channel(user_id))
    return int(count)


def kill_listeners(client: "redis.Redis") -> None:
    client.client_kill_filter(_type="pubsub")


async def test_who_is_subscribed_hears_from_then_on_what_is_told_of_that_user(
    redis_url: str, speaker: "redis.Redis"
) -> None:
    async with open_ear(redis_url) as ear:
        say(speaker, ANN, b"too early")
        assert await ear.channels.subscribe(ANN)
        say(speaker, BOB, b"of another")
        for n in range(100):
            say(speaker, ANN, b"%d" % n)
        assert await ear.hear_messages(100) == [b"%d" % n for n in range(100)]


async def test_who_is_subscribed_no_more_hears_nothing(redis_url: str, speaker: "redis.Redis") -> None:
    async with open_ear(redis_url) as ear:
        await ear.channels.subscribe(ANN)
        await ear.channels.subscribe(BOB)
        ear.channels.unsubscribe(ANN)
        with trio.fail_after(5):
            while count_listeners(speaker, ANN):
                await trio.sleep(0.005)
        say(speaker, BOB, b"of another")
        assert await ear.hear() == Told(BOB, b"of another")


async def test_who_comes_and_goes_and_comes_again_at_once_hears(redis_url: str, speaker: "redis.Redis") -> None:
    async with open_ear(redis_url) as ear, trio.open_nursery() as nursery:
        for n in range(50):
            with trio.move_on_after(0):
                await ear.channels.subscribe(ANN)
            ear.channels.unsubscribe(ANN)
            assert await ear.channels.subscribe(ANN)
            assert say(speaker, ANN, b"%d" % n) == 1
            ear.channels.unsubscribe(ANN)
        nursery.cancel_scope.cancel()


async def test_who_has_gone_before_being_confirmed_is_not_taken_for_subscribed(
    redis_url: str, speaker: "redis.Redis"
) -> None:
    async with open_ear(redis_url) as ear:
        with trio.move_on_after(0):
            await ear.channels.subscribe(ANN)
        ear.channels.unsubscribe(ANN)
        await ear.channels.subscribe(BOB)  # what was asked before has been answered
        assert not ear.channels.is_subscribed(ANN)
        assert await ear.channels.subscribe(ANN)
        assert say(speaker, ANN, b"here") == 1


async def test_two_who_subscribe_at_once_are_both_confirmed(redis_url: str, speaker: "redis.Redis") -> None:
    confirmed: list[bool] = []

    async def subscribe() -> None:
        confirmed.append(await ear.channels.subscribe(ANN))

    async with open_ear(redis_url) as ear:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(subscribe)
        say(speaker, ANN, b"once")
        assert await ear.hear_messages(1) == [b"once"]
    assert confirmed == [True] * 3


async def test_after_a_lost_connection_everybody_is_told_that_something_may_be_missing(
    redis_url: str, speaker: "redis.Redis"
) -> None:
    async with open_ear(redis_url) as ear:
        await ear.channels.subscribe(ANN)
        await ear.channels.subscribe(BOB)
        kill_listeners(speaker)
        assert {(await ear.hear()).user_id, (await ear.hear()).user_id} == {ANN, BOB}
        say(speaker, ANN, b"again")
        assert await ear.hear_messages(1) == [b"again"]


async def test_thousands_of_users_are_subscribed_again(redis_url: str, speaker: "redis.Redis") -> None:
    users = {uuid4() for _ in range(2_000)} | {ANN}
    async with open_ear(redis_url) as ear:
        await ear.channels.subscribe(ANN)
        for user in users:
            ear.channels._users[events_channel(user).encode()] = user
        kill_listeners(speaker)
        assert {(await ear.hear()).user_id for _ in users} == users


async def test_a_user_who_comes_while_redis_is_away_hears_when_it_is_back(own_redis: RedisServer) -> None:
    async with open_ear(own_redis.url) as ear:
        own_redis.kill()
        with trio.fail_after(5):
            while ear.channels._line is not None:
                await trio.sleep(0.005)
        assert not await ear.channels.subscribe(ANN)
        assert not ear.channels.is_subscribed(ANN)
        own_redis.start()
        assert await ear.hear() == Told(ANN, None)
        assert ear.channels.is_subscribed(ANN)


async def test_a_connection_that_is_dead_and_does_not_know_it_is_found(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_channels, "PING_SECONDS", 0.01)
    monkeypatch.setattr("storage.redis.COMMAND_SECONDS", 0.2)
    async with open_ear(own_redis.url) as ear:
        await ear.channels.subscribe(ANN)
        own_redis.hang()
        with trio.fail_after(5):
            while ear.channels._line is not None:
                await trio.sleep(0.005)
        own_redis.go_on()
        assert await ear.hear() == Told(ANN, None)


async def test_who_does_not_keep_up_loses_the_connection_and_no_memory(
    redis_url: str, speaker: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_channels, "MOST_BYTES", 100_000)
    async with open_user_channels(redis_url) as channels, trio.open_nursery() as nursery:
        nursery.start_soon(channels.subscribe, ANN)
        await trio.testing.wait_all_tasks_blocked()
        assert await channels.wait_told() == Told(ANN, None)
        for _ in range(30):
            say(speaker, ANN, b"x" * 10_000)
        line = channels._line
        assert line is not None
        with trio.fail_after(5):
            while line.connection.statistics.bytes_read < 300_000:
                await trio.sleep(0.005)
        with trio.fail_after(5):
            assert await channels.wait_told() == Told(ANN, None)
        for n in range(300):  # what we count is less than what comes, and that is found out
            say(speaker, ANN, b"%d" % n)
            assert await channels.wait_told() == Told(ANN, b"%d" % n)


async def test_a_place_in_the_pool_is_not_lost_with_a_connection(redis_url: str, speaker: "redis.Redis") -> None:
    async with open_ear(redis_url) as ear:
        await ear.channels.subscribe(ANN)
        for _ in range(6):  # it has four
            kill_listeners(speaker)
            assert await ear.hear() == Told(ANN, None)


async def test_an_outage_is_logged_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_channels, "LONGEST_PAUSE_SECONDS", 0.01)
    async with open_ear(own_redis.url) as ear:
        own_redis.kill()
        with trio.fail_after(5):
            while ear.channels._failures < 5:
                await trio.sleep(0.005)
    warned = [record for record in caplog.records if record.name == "storage.user_channels"]
    assert len(warned) == 1


async def test_a_redis_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match="REDIS_URL"):
        async with open_user_channels(f"unix://{tmp_path}/nobody.sock"):
            pass
