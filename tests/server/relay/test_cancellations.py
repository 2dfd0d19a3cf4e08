"""Calls that are cancelled by way of another process, over a real Redis."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from server.relay.cancellations import Cancellations, CancelLetter
from server.relay.liveness import Tempo
from server.running_calls import RunningCalls
from storage.errors import RedisUnavailable
from tests.server.relay.audience import ANN, BOB
from tests.server.relay.bridges import QUICK, Process, open_process, standing_still, wait_until
from tests.server.test_running_calls import Call
from tests.storage.redis_server import RedisServer


@dataclass(frozen=True, slots=True)
class Place:
    """A process, with the calls that it runs."""

    process: Process
    running: RunningCalls
    cancellations: Cancellations

    def run(self, call: Call) -> Call:
        self.running.note_started(call)
        return call


@asynccontextmanager
async def open_place(redis_url: str, tempo: Tempo = QUICK) -> AsyncIterator[Place]:
    async with open_process(redis_url, tempo) as process, trio.open_nursery() as nursery:
        running = RunningCalls()
        cancellations = Cancellations(running, process.bridge)
        for loop in cancellations.loops:
            nursery.start_soon(loop)
        yield Place(process, running, cancellations)
        nursery.cancel_scope.cancel()


@dataclass(eq=False, slots=True)
class SlowCall(Call):
    """Takes until `may_end` to be settled."""

    may_end: trio.Event = field(default_factory=trio.Event)
    asked: trio.Event = field(default_factory=trio.Event)

    async def cancel(self) -> bool:
        self.asked.set()
        await self.may_end.wait()
        return True


class FaultyCall(Call):
    async def cancel(self) -> bool:
        raise ValueError("it cannot be")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.kill()


async def test_who_runs_the_call_ends_it_and_says_so(redis_url: str) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url) as other, open_place(redis_url) as third:
        call = other.run(Call())
        third.run(Call())
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, call.request_id) is True
            assert call.was_cancelled
            assert await asking.cancellations.ask_others(ANN, call.request_id) is False


async def test_if_nobody_runs_it_that_is_known_as_soon_as_all_have_answered(redis_url: str) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url), open_place(redis_url):
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, uuid4()) is None


async def test_a_process_alone_knows_at_once(redis_url: str) -> None:
    async with open_place(redis_url) as asking:
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, uuid4()) is None


async def test_a_foreign_call_goes_on_whoever_asks(redis_url: str) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url) as other:
        call = other.run(Call())
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(BOB, call.request_id) is None
        assert not call.was_cancelled


async def test_a_call_that_ends_slowly_keeps_no_other_from_ending(redis_url: str) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url) as other, trio.open_nursery() as nursery:
        slow, quick = SlowCall(), other.run(Call())
        other.run(slow)
        nursery.start_soon(asking.cancellations.ask_others, ANN, slow.request_id)
        await slow.asked.wait()
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, quick.request_id) is True
            slow.may_end.set()


async def test_a_fault_of_one_call_is_logged_and_the_next_one_ends(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url) as other:
        faulty, sound = other.run(FaultyCall()), other.run(Call())
        with trio.move_on_after(0.3) as scope:
            await asking.cancellations.ask_others(ANN, faulty.request_id)
        assert scope.cancelled_caught
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, sound.request_id) is True
    assert "a call could not be cancelled" in caplog.text


async def test_who_is_gone_is_waited_for_no_longer(redis_url: str) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url) as other, trio.open_nursery() as nursery:
        call = SlowCall()
        other.run(call)
        told: list[bool | None] = []

        async def ask() -> None:
            told.append(await asking.cancellations.ask_others(ANN, call.request_id))

        nursery.start_soon(ask)
        await call.asked.wait()
        with standing_still(other.process):
            await wait_until(lambda: told)
        assert told == [None]
        call.may_end.set()


async def test_a_process_that_has_just_come_is_asked_too(redis_url: str) -> None:
    slow = Tempo(renew_seconds=60, expiry_seconds=600)
    async with open_place(redis_url, slow) as asking, open_place(redis_url, slow) as newcomer:
        assert newcomer.process.name not in asking.process.bridge._liveness.others
        call = newcomer.run(Call())
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, call.request_id) is True


async def test_without_redis_nobody_can_be_asked(own_redis: RedisServer) -> None:
    async with open_place(own_redis.url) as asking:
        own_redis.kill()
        with trio.fail_after(10), pytest.raises(RedisUnavailable):
            await asking.cancellations.ask_others(ANN, uuid4())


async def test_a_letter_that_comes_twice_or_late_is_no_harm(redis_url: str) -> None:
    async with open_place(redis_url) as asking, open_place(redis_url) as other:
        call = other.run(Call())
        for _ in range(2):
            assert asking.process.bridge.send(other.process.name, ANN, "cancel", CancelLetter(7, call.request_id))
        await wait_until(lambda: call.was_cancelled)
        with trio.fail_after(5):
            assert await asking.cancellations.ask_others(ANN, uuid4()) is None


async def test_a_call_of_this_process_is_ended_in_the_background_and_of_another_nothing_is(redis_url: str) -> None:
    async with open_place(redis_url) as place:
        faulty, call = place.run(FaultyCall()), place.run(Call())
        await trio.testing.wait_all_tasks_blocked(0.01)
        for call_id in (uuid4(), faulty.request_id, call.request_id):
            place.cancellations.end_call(call_id)
        with trio.fail_after(5):
            while not call.was_cancelled:
                await trio.sleep(0.005)
