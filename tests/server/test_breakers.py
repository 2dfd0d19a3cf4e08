"""The breakers as two processes see them: they agree, one probes for all, and no call waits long for Redis."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import trio
import trio.testing

import server.breakers
from server.breakers import SharedBreakers
from storage.breakers import Breaker, BreakerSettings, BreakerTable, Outcomes, Standing, outcomes_key
from storage.redis import Redis, open_redis
from tests.storage.redis_server import RedisServer

ONE = ("openai", "openai/gpt-x")
QUICK = BreakerSettings(window_seconds=5, cooldown_seconds=0.05, max_cooldown_seconds=60, probe_seconds=5)
HASTY = BreakerSettings(window_seconds=5, cooldown_seconds=0.05, max_cooldown_seconds=60, probe_seconds=0.3)
PATIENT = BreakerSettings(window_seconds=5)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that may be stopped."""
    running = RedisServer(tmp_path)
    yield running
    running.kill()


def views(client: Redis, settings: BreakerSettings = QUICK, count: int = 2) -> list[SharedBreakers]:
    return [SharedBreakers(BreakerTable(client, settings)) for _ in range(count)]


async def fail(view: SharedBreakers, times: int = 5, retry_after_seconds: float | None = None) -> None:
    for _ in range(times):
        await view.note_failure(*ONE, retry_after_seconds)


def count_scripts(redis_url: str) -> int:
    """How many Redis has run: each asks it once for the time."""
    with redis.Redis.from_url(redis_url) as looker:
        return int(looker.info("commandstats")["cmdstat_time"]["calls"])


async def wait_for_state(view: SharedBreakers, state: str) -> None:
    with trio.fail_after(5):
        while view.state(*ONE) != state:
            await trio.sleep(0.005)


async def open_and_wait(*all_views: SharedBreakers) -> None:
    """All of them know that the breaker is half-open."""
    await fail(all_views[0])
    for view in all_views:
        await view.refresh()
        await wait_for_state(view, "half_open")


async def test_who_sees_it_open_knows_at_once_and_the_others_after_a_refresh(client: Redis) -> None:
    here, there = views(client, PATIENT)
    assert await here.admit(*ONE)
    assert here.state(*ONE) == "closed"
    await fail(here)
    assert here.state(*ONE) == "open"
    assert not await here.admit(*ONE)
    assert await there.admit(*ONE)
    await there.refresh()
    assert there.state(*ONE) == "open"
    assert not await there.admit(*ONE)
    assert await there.admit("openai", "another")


async def test_failures_of_all_processes_count_together(client: Redis) -> None:
    here, there = views(client, PATIENT)
    await fail(here, 3)
    await fail(there, 1)
    assert (here.state(*ONE), there.state(*ONE)) == ("closed", "closed")
    await fail(there, 1)
    assert (here.state(*ONE), there.state(*ONE)) == ("closed", "open")


async def test_successes_of_all_processes_count_too(client: Redis) -> None:
    here, there = views(client, PATIENT)
    for view in (here, there):
        for _ in range(3):
            await view.note_success(*ONE)
    await there.refresh()
    await fail(here, 5)
    assert here.state(*ONE) == "closed"
    await fail(here, 1)
    assert here.state(*ONE) == "open"


async def test_successes_are_told_once(client: Redis, redis_url: str) -> None:
    [view] = views(client, PATIENT, 1)
    for _ in range(3):
        await view.note_success(*ONE)
    await view.refresh()
    await view.refresh()
    await view.note_success(*ONE)
    await fail(view, 1)
    await view.refresh()
    with redis.Redis.from_url(redis_url, decode_responses=True) as looker:
        found = looker.hgetall(outcomes_key(ONE))
    assert sum(int(value) for field, value in found.items() if field.endswith("s")) == 4


async def test_one_call_of_all_processes_probes_and_its_success_closes(client: Redis, redis_url: str) -> None:
    here, there = views(client)
    await open_and_wait(here, there)
    admitted: list[SharedBreakers] = []
    before = count_scripts(redis_url)

    async def call(view: SharedBreakers) -> None:
        if await view.admit(*ONE):
            admitted.append(view)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(call, here)
            nursery.start_soon(call, there)
    assert count_scripts(redis_url) == before + 2
    [prober] = admitted
    assert not await here.admit(*ONE)
    assert not await there.admit(*ONE)
    await prober.note_success(*ONE)
    assert prober.state(*ONE) == "closed"
    for view in (here, there):
        await view.refresh()
        assert view.state(*ONE) == "closed"
        assert await view.admit(*ONE)


async def test_a_probe_that_fails_opens_again_for_all(client: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    here, there = views(client)
    await open_and_wait(here, there)
    assert await here.admit(*ONE)
    await there.note_failure(*ONE)  # one that was sent before: it says nothing of the probe
    assert here.state(*ONE) == "half_open"
    await here.note_failure(*ONE, 30)
    assert here.state(*ONE) == "open"
    await there.refresh()
    assert there.state(*ONE) == "open"
    seconds = [getattr(record, "seconds", None) for record in caplog.records]
    assert seconds == [0.05, 30]


async def test_who_was_refused_a_probe_asks_again_when_its_place_is_free(client: Redis) -> None:
    here, there = views(client, HASTY)
    await open_and_wait(here, there)
    assert await here.admit(*ONE)
    assert not await there.admit(*ONE)
    await trio.sleep(0.31)
    assert await there.admit(*ONE)


async def test_a_refused_probe_is_not_asked_for_again_and_again(client: Redis, redis_url: str) -> None:
    here, there = views(client)
    await open_and_wait(here, there)
    assert await here.admit(*ONE)
    assert not await there.admit(*ONE)
    before = count_scripts(redis_url)
    for _ in range(50):
        assert not await there.admit(*ONE)
    await there.refresh()
    assert not await there.admit(*ONE)
    assert count_scripts(redis_url) == before + 1


async def test_healthy_calls_ask_redis_nothing(client: Redis, redis_url: str) -> None:
    [view] = views(client, count=1)
    with redis.Redis.from_url(redis_url) as looker:
        before = looker.info("stats")["total_commands_processed"]
        for _ in range(100):
            assert await view.admit(*ONE)
            await view.note_success(*ONE)
        assert looker.info("stats")["total_commands_processed"] == before + 1


@dataclass(frozen=True, slots=True)
class SlowTable(BreakerTable):
    """Its answers are under way for a while."""

    arrive: trio.Event = field(default_factory=trio.Event)
    looks: list[Sequence[Breaker]] = field(default_factory=list)

    async def read_outcomes(self, breakers: Sequence[Breaker]) -> dict[Breaker, Outcomes]:
        self.looks.append(breakers)
        await self.arrive.wait()
        return await BreakerTable.read_outcomes(self, breakers)

    async def exchange(self, successes: Mapping[Breaker, int]) -> dict[Breaker, Standing]:
        standings = await BreakerTable.exchange(self, successes)
        await self.arrive.wait()
        return standings


async def test_what_a_call_turned_is_newer_than_a_table_read_before(client: Redis) -> None:
    table = SlowTable(client, PATIENT)
    view = SharedBreakers(table)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(view.refresh)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await fail(view)
        table.arrive.set()
    assert view.state(*ONE) == "open"
    await view.refresh()
    assert view.state(*ONE) == "open"


async def test_a_provider_that_asks_for_time_gets_it(client: Redis) -> None:
    [view] = views(client, count=1)
    await fail(view, retry_after_seconds=0.6)
    await trio.sleep(0.1)
    assert view.state(*ONE) == "open"
    await wait_for_state(view, "half_open")


async def test_the_loop_keeps_the_view_fresh(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.breakers, "REFRESH_SECONDS", 0.01)
    here, there = views(client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.keep_fresh)
        await fail(here)
        await wait_for_state(there, "open")
        await wait_for_state(here, "half_open")
        assert await here.admit(*ONE)
        await here.note_success(*ONE)
        await wait_for_state(there, "closed")
        nursery.cancel_scope.cancel()


async def test_calls_go_on_while_redis_hangs_and_only_the_first_waits(own_redis: RedisServer) -> None:
    async with open_redis(own_redis.url) as client:
        [view] = views(client, count=1)
        await open_and_wait(view)
        own_redis.hang()
        with trio.fail_after(2 * server.breakers.ANSWER_SECONDS):
            assert await view.admit(*ONE)
        assert view.state(*ONE) == "closed"
        with trio.fail_after(server.breakers.ANSWER_SECONDS / 2):
            await fail(view, 20)
            await view.note_success(*ONE)
        assert await view.admit(*ONE)
        own_redis.go_on()
        await view.refresh()
        assert view.state(*ONE) == "half_open"
        assert await view.admit(*ONE)


async def test_many_calls_that_fail_at_once_wait_together_for_a_redis_that_hangs(own_redis: RedisServer) -> None:
    async with open_redis(own_redis.url) as client:
        [view] = views(client, count=1)
        own_redis.hang()
        with trio.fail_after(2 * server.breakers.ANSWER_SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(view.note_failure, *ONE)
        own_redis.go_on()


async def test_an_opening_ends_in_time_although_redis_is_gone(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_redis(own_redis.url) as client:
        [view] = views(client, count=1)
        await fail(view, retry_after_seconds=0.6)
        own_redis.kill()
        for _ in range(3):
            await view.refresh()
        assert caplog.text.count("are not shared for now") == 1
        assert not await view.admit(*ONE)
        await wait_for_state(view, "half_open")
        assert await view.admit(*ONE)
        assert await view.admit(*ONE)
        own_redis.start()
        await view.refresh()
        await fail(view)
        assert view.state(*ONE) == "open"


async def test_a_client_that_leaves_while_its_call_asks_for_the_probe_leaves_the_next_to_ask(
    own_redis: RedisServer,
) -> None:
    async with open_redis(own_redis.url) as client:
        [view] = views(client, HASTY, 1)
        await open_and_wait(view)
        own_redis.hang()
        with trio.move_on_after(0.05) as leaving:
            await view.admit(*ONE)
        assert leaving.cancelled_caught
        own_redis.go_on()
        await trio.sleep(0.31)  # the question may have come through: then its place is kept for so long
        assert await view.admit(*ONE)


async def test_outcomes_are_those_of_all_processes(client: Redis) -> None:
    here, there = views(client, PATIENT)
    for _ in range(3):
        await there.note_success(*ONE)
    await there.refresh()
    await fail(here, 1)
    assert await here.read_outcomes([ONE]) == {ONE: Outcomes(3, 1)}


async def test_many_who_look_at_once_ask_redis_once_a_second(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.breakers, "REFRESH_SECONDS", 0.1)
    table = SlowTable(client, PATIENT)
    view = SharedBreakers(table)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(view.read_outcomes, [ONE])
        await trio.testing.wait_all_tasks_blocked(0.01)
        table.arrive.set()
    assert len(table.looks) == 1
    await fail(view, 1)
    with trio.fail_after(5):
        while await view.read_outcomes([ONE]) != {ONE: Outcomes(0, 1)}:
            await trio.sleep(0.01)
    assert len(table.looks) == 2


async def test_nothing_is_known_of_outcomes_while_redis_hangs_and_calls_are_not_told_of_it(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.breakers, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(server.breakers, "REFRESH_SECONDS", 0.01)
    async with open_redis(own_redis.url) as client:
        [view] = views(client, PATIENT, 1)
        own_redis.hang()
        assert await view.read_outcomes([ONE]) is None
        own_redis.go_on()
        await fail(view)
        assert view.state(*ONE) == "open"
        with trio.fail_after(5):
            while await view.read_outcomes([ONE]) is None:
                await trio.sleep(0.01)
