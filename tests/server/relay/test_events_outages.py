"""Events while Redis is away, or a connection to it is lost, and what is made good when it is back."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing
from coredis.tokens import PureToken

import server.relay.events
from storage.errors import RedisUnavailable
from storage.event_stream import Bounds
from tests.server.relay.event_house import ANN, Device, Process, build_device, open_process, open_processes
from tests.storage.redis_server import RedisServer


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.go_on()
    server.kill()


async def test_what_a_lost_connection_has_swallowed_is_made_good_in_order(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other), other.join(phone):
        ids = [await one.publish(desktop) for _ in range(5)]
        await phone.wait_ids(5)
        for _ in range(10):
            await kill_listeners(one)
            ids += [await one.publish(desktop) for _ in range(20)]
        assert await phone.wait_ids(len(ids)) == ids
    assert "event-replay-gap" not in await phone.take_types()


async def test_who_has_missed_more_than_is_kept_is_told_of_the_gap(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url, bounds=Bounds(most_entries=10)) as (one, other), other.join(phone):
        first = await one.publish(desktop)
        await phone.wait_ids(1)
        go_on = await stop_listening(other)
        await kill_listeners(one)
        ids = [await one.publish(desktop) for _ in range(30)]
        go_on.set()
        assert await phone.wait_ids(11) == [first, *ids[-10:]]
    assert await phone.take_types() == ["noted", "event-replay-gap", *["noted"] * 10]


async def test_a_redis_that_was_emptied_makes_a_gap_and_numbers_go_on_increasing(redis_url: str) -> None:
    desktop, phone, late = build_device("desktop"), build_device(), build_device()
    async with open_process(redis_url) as one, one.join(phone):
        before = await one.publish(desktop)
        await one.redis.flushall()
        after = await one.publish(desktop)
        assert after > before
        assert await phone.wait_ids(2) == [before, after]
        assert await phone.take_types() == ["noted", "event-replay-gap", "noted"]
        async with one.join(late, before):
            assert await late.take_types() == ["event-replay-gap", "noted"]


async def test_who_comes_with_a_number_of_a_history_that_is_lost_is_told_so(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        last = await one.publish(desktop)
        async with one.join(phone, last + 1000):
            assert await phone.take_types() == ["event-replay-gap", "noted"]


async def test_while_redis_is_away_devices_here_hear_of_it_and_others_when_it_is_back(own_redis: RedisServer) -> None:
    desktop, phone, tablet = build_device("desktop"), build_device(), build_device()
    async with (
        open_processes(own_redis.url) as (one, other),
        one.join(phone),
        other.join(tablet),
    ):
        await one.publish(desktop, {"n": 0})
        await tablet.wait_ids(1)
        own_redis.kill()
        for n in range(1, 4):
            with pytest.raises(RedisUnavailable):
                await one.publish(desktop, {"n": n})
        assert [payload["n"] for payload in await phone.take_payloads()] == [0, 1, 2, 3]
        assert len(await phone.take_ids()) == 1
        own_redis.start()
        await tablet.wait_ids(4)
        later = await one.publish(desktop, {"n": 4})
        await tablet.wait_ids(5)
        await phone.take()
    assert numbers(tablet) == [0, 1, 2, 3, 4]
    assert numbers(phone) == [0, 1, 2, 3, 4]
    assert (await tablet.take_ids())[-1] == later


async def test_who_comes_while_redis_is_away_gets_what_was_missed_when_it_is_back(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other):
        ids = [await one.publish(desktop) for _ in range(100)]
        other.stream.be_away(is_away=True)
        async with other.join(phone, ids[3]):
            assert await phone.take() == []
            ids += [await one.publish(desktop) for _ in range(5)]
            other.stream.be_away(is_away=False)
            assert await phone.wait_ids(101) == ids[4:]
            ids.append(await one.publish(desktop))
            assert await phone.wait_ids(102) == ids[4:]


async def test_who_registers_anew_while_redis_is_away_hears_what_comes_from_then_on(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other):
        await one.publish(desktop)
        other.stream.be_away(is_away=True)
        async with other.join(phone):
            ids = [await one.publish(desktop) for _ in range(5)]
            other.stream.be_away(is_away=False)
            assert await phone.wait_ids(5) == ids


async def test_what_has_waited_for_redis_comes_before_what_is_published_after_it(redis_url: str) -> None:
    desktop, tablet = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other), other.join(tablet):
        one.stream.be_away(is_away=True)
        for n in (1, 2):
            with pytest.raises(RedisUnavailable):
                await one.publish(desktop, {"n": n})
        one.stream.be_away(is_away=False)
        with suppress(RedisUnavailable):  # a Redis that has kept somebody waiting is not asked at once
            await one.publish(desktop, {"n": 3})
        await tablet.wait_ids(3)
    assert numbers(tablet) == [1, 2, 3]


async def test_an_event_that_redis_took_and_did_not_confirm_is_not_kept_twice(redis_url: str) -> None:
    desktop, phone, tablet = build_device("desktop"), build_device(), build_device()
    async with open_processes(redis_url) as (one, other), one.join(phone), other.join(tablet):
        one.stream.be_away(is_away=True)
        with pytest.raises(RedisUnavailable):
            await one.publish(desktop, {"n": 1})
        (line,) = one.events._late._lines.values()
        late = line.events[0]
        await other.stream.append(ANN, late.track, late.body, late.token)
        one.stream.be_away(is_away=False)
        with suppress(RedisUnavailable):
            await one.publish(desktop, {"n": 2})
        await tablet.wait_ids(2)
        await phone.wait_ids(1)
    assert numbers(tablet) == [1, 2]
    assert numbers(phone) == [1, 2]


async def test_a_redis_that_hangs_does_not_hold_up_who_publishes_again_and_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.relay.events, "COMMAND_SECONDS", 0.1)
    monkeypatch.setattr(server.relay.events, "AWAY_ANSWER_SECONDS", 0.1)
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(own_redis.url) as one, one.join(phone):
        own_redis.hang()
        started = trio.current_time()
        for n in range(20):
            with pytest.raises(RedisUnavailable):
                await one.publish(desktop, {"n": n})
        assert trio.current_time() - started < 1
        own_redis.go_on()
        with trio.fail_after(10):
            while not await one.events.find_last(ANN):
                await trio.sleep(0.01)
        assert await phone.take_types() == ["noted"] * 20


async def test_who_only_listens_is_sent_away_while_redis_is_away(own_redis: RedisServer) -> None:
    watcher = build_device()
    async with open_process(own_redis.url) as one:
        own_redis.kill()
        with pytest.raises(RedisUnavailable):
            async with one.events.watch(ANN, watcher.member.outbox, None, lambda _: True):
                pass


async def test_nobody_knows_the_last_event_while_redis_is_away(redis_url: str) -> None:
    async with open_process(redis_url) as one:
        one.stream.be_away(is_away=True)
        assert await one.events.find_last(ANN) is None


async def test_a_large_event_that_cannot_be_fetched_is_a_gap_as_soon_as_redis_answers(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other), other.join(phone):
        other.stream.be_away(is_away=True)
        await one.publish(desktop, {"much": "x" * 300_000})
        await trio.testing.wait_all_tasks_blocked(0.1)
        other.stream.be_away(is_away=False)
        await phone.wait_type("event-replay-gap")


async def test_a_slow_device_gets_a_long_replay_page_by_page(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        ids = [await one.publish(desktop, {"much": "x" * 100_000}) for _ in range(150)]
        has_joined = trio.Event()

        async def join() -> None:
            async with one.join(phone, ids[0]):
                has_joined.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            most = 0
            while not has_joined.is_set():
                await trio.testing.wait_all_tasks_blocked(0.001)
                most = max(most, phone.member.outbox.waiting_bytes)
                await phone.take()
            ids.append(await one.publish(desktop))
            assert await phone.take_ids() == ids[1:]
            nursery.cancel_scope.cancel()
    assert 1_000_000 < most < 8_000_000


def numbers(device: Device) -> list[int]:
    told = [frame["payload"] for frame in device.frames]
    return [one["payload"]["n"] for one in told if one["eventType"] == "noted"]


async def kill_listeners(process: Process) -> None:
    """The connections of all processes that listen."""
    await process.redis.client_kill(type_=PureToken.PUBSUB)


async def stop_listening(process: Process) -> trio.Event:
    """Until the event is set."""
    stops, go_on = trio.Event(), trio.Event()

    async def stop(_: UUID, __: bytes) -> None:
        stops.set()
        await go_on.wait()

    process.channels.hear("stop", stop)
    await process.device_events.tell(ANN, "stop")
    await stops.wait()
    return go_on
