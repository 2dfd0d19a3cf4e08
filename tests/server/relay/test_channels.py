"""What concerns users, brought to whoever listens in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from server.relay.channels import Channels, open_channels
from storage.device_events import DeviceEvents, events_channel
from storage.redis import open_redis
from storage.user_channels import Told, UserChannels

ANN, BOB = uuid4(), uuid4()


class Subscriptions(UserChannels):
    """Without a Redis: what is told is what a test tells."""

    def __init__(self) -> None:
        self.subscribed: set[UUID] = set()
        self.tell, self._told = trio.open_memory_channel[Told](100)

    async def subscribe(self, user_id: UUID) -> bool:
        self.subscribed.add(user_id)
        await trio.lowlevel.checkpoint()
        return True

    def unsubscribe(self, user_id: UUID) -> None:
        self.subscribed.remove(user_id)

    def is_subscribed(self, user_id: UUID) -> bool:
        return user_id in self.subscribed

    async def wait_told(self) -> Told:
        return await self._told.receive()

    async def keep_alive(self) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def run(channels: Channels) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for loop in channels.loops:
            nursery.start_soon(loop)
        yield
        nursery.cancel_scope.cancel()


async def tell(subscriptions: Subscriptions, *messages: bytes | None) -> None:
    for message in messages:
        subscriptions.tell.send_nowait(Told(ANN, message))
    await trio.testing.wait_all_tasks_blocked()


async def test_each_kind_comes_to_its_listeners_in_order() -> None:
    heard: list[tuple[str, UUID, bytes]] = []

    async def hear_event(user_id: UUID, said: bytes) -> None:
        heard.append(("event", user_id, said))

    async def hear_links(user_id: UUID, said: bytes) -> None:
        heard.append(("links", user_id, said))

    subscriptions = Subscriptions()
    channels = Channels(subscriptions)
    channels.hear("event", hear_event)
    channels.hear("links", hear_links)
    channels.hear("links", hear_event)
    async with run(channels):
        await tell(subscriptions, b"event 1 2 {x y}", b"links", b"unknown thing", b"event ")
    assert heard == [
        ("event", ANN, b"1 2 {x y}"),
        ("links", ANN, b""),
        ("event", ANN, b""),
        ("event", ANN, b""),
    ]


async def test_a_listener_that_fails_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    async def fail(_: UUID, __: bytes) -> None:
        raise RuntimeError("broken")

    async def hear(_: UUID, said: bytes) -> None:
        heard.append(said)

    subscriptions = Subscriptions()
    channels = Channels(subscriptions)
    channels.hear("event", fail)
    channels.hear("event", hear)
    async with run(channels):
        await tell(subscriptions, b"event 1", b"event 2")
    assert heard == [b"1", b"2"]
    assert len(caplog.records) == 2


async def test_who_may_have_missed_something_is_told_to_all_who_ask() -> None:
    lost: list[UUID] = []

    async def fail(_: UUID) -> None:
        raise RuntimeError("broken")

    async def hear_lost(user_id: UUID) -> None:
        lost.append(user_id)

    subscriptions = Subscriptions()
    channels = Channels(subscriptions)
    channels.hear_lost(fail)
    channels.hear_lost(hear_lost)
    async with run(channels):
        await tell(subscriptions, None)
    assert lost == [ANN]


async def test_a_user_is_subscribed_until_the_last_has_left() -> None:
    subscriptions = Subscriptions()
    channels = Channels(subscriptions)
    async with channels.keep(ANN):
        async with channels.keep(ANN), channels.keep(BOB):
            assert subscriptions.subscribed == {ANN, BOB}
        assert subscriptions.subscribed == {ANN}
    assert subscriptions.subscribed == set()


async def test_it_is_known_whether_a_user_is_heard_of() -> None:
    channels = Channels(Subscriptions())
    async with channels.keep(ANN):
        assert channels.hears(ANN)
        assert not channels.hears(BOB)


async def test_who_is_cancelled_while_being_subscribed_leaves_nothing() -> None:
    subscriptions = Subscriptions()
    channels = Channels(subscriptions)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with channels.keep(ANN):
            pytest.fail("it was cancelled")
    assert subscriptions.subscribed == set()


async def test_with_a_redis_who_is_kept_hears_what_others_tell(redis_url: str) -> None:
    heard: list[tuple[UUID, bytes]] = []
    has_heard = trio.Event()

    async def hear(user_id: UUID, said: bytes) -> None:
        heard.append((user_id, said))
        has_heard.set()

    async with open_redis(redis_url) as redis, open_channels(redis_url) as channels, run(channels):
        channels.hear("ended", hear)
        async with channels.keep(ANN):
            with trio.fail_after(5):
                while not (await redis.pubsub_numsub(events_channel(ANN)))[events_channel(ANN).encode()]:
                    await trio.sleep(0.005)
                await DeviceEvents(redis).tell(ANN, "ended", b"a key")
                await has_heard.wait()
    assert heard == [(ANN, b"a key")]
