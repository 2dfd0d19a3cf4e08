"""An outage of Redis: noticed once, told once, and nobody waits for what is known to be away."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from server.outage import PAUSE_SECONDS, PROBE_SECONDS, Outage
from storage.errors import RedisUnavailable


def ask(outage: Outage, *, is_up: bool) -> None:
    """As a command that is answered, or fails, at once. Raises RedisUnavailable."""
    with outage.watch():
        if not is_up:
            raise RedisUnavailable("gone")


@pytest.fixture
async def outage(autojump_clock: MockClock) -> Outage:
    """One that is on."""
    outage = Outage()
    with pytest.raises(RedisUnavailable, match="gone"):
        ask(outage, is_up=False)
    return outage


async def ask_slowly(outage: Outage, answer: trio.Event, *, is_up: bool = True) -> None:
    with outage.watch():
        await answer.wait()
        if not is_up:
            raise RedisUnavailable("gone")


async def start(nursery: trio.Nursery, call: Callable[[], Awaitable[None]]) -> None:
    """Begin it, and see it wait."""
    nursery.start_soon(call)
    await trio.testing.wait_all_tasks_blocked()


async def test_while_redis_answers_it_is_asked(autojump_clock: MockClock) -> None:
    outage = Outage()
    for _ in range(3):
        ask(outage, is_up=True)
    assert not outage.is_on


async def test_for_a_while_after_a_failure_nobody_asks(outage: Outage, autojump_clock: MockClock) -> None:
    assert outage.is_on
    await trio.sleep(PAUSE_SECONDS * 0.9)
    with pytest.raises(RedisUnavailable, match="Redis is away"):
        ask(outage, is_up=True)
    assert outage.is_on


async def test_then_one_asks_and_its_answer_opens_everything(outage: Outage, autojump_clock: MockClock) -> None:
    await trio.sleep(PAUSE_SECONDS)
    ask(outage, is_up=True)
    assert not outage.is_on
    ask(outage, is_up=True)


async def test_a_failure_of_the_one_that_asks_begins_the_pause_again(
    outage: Outage, autojump_clock: MockClock
) -> None:
    await trio.sleep(PAUSE_SECONDS)
    for message in ("gone", "Redis is away"):
        with pytest.raises(RedisUnavailable, match=message):
            ask(outage, is_up=False)


async def test_while_one_asks_nobody_else_waits(outage: Outage, autojump_clock: MockClock) -> None:
    answer = trio.Event()
    await trio.sleep(PAUSE_SECONDS)
    async with trio.open_nursery() as nursery:
        await start(nursery, lambda: ask_slowly(outage, answer))
        for _ in range(5):
            with pytest.raises(RedisUnavailable, match="Redis is away"):
                ask(outage, is_up=True)
        answer.set()
    assert not outage.is_on


async def test_the_one_that_asks_does_not_wait_long(outage: Outage, autojump_clock: MockClock) -> None:
    await trio.sleep(PAUSE_SECONDS)
    started_at = trio.current_time()
    with pytest.raises(RedisUnavailable, match="still away"):
        await ask_slowly(outage, trio.Event())
    assert trio.current_time() - started_at == pytest.approx(PROBE_SECONDS)
    with pytest.raises(RedisUnavailable, match="Redis is away"):
        ask(outage, is_up=True)


async def test_one_that_is_cancelled_while_it_asks_leaves_that_to_another(
    outage: Outage, autojump_clock: MockClock
) -> None:
    await trio.sleep(PAUSE_SECONDS)
    with trio.move_on_after(0.1):
        await ask_slowly(outage, trio.Event())
    await trio.sleep(PAUSE_SECONDS)
    ask(outage, is_up=True)
    assert not outage.is_on


async def test_a_late_answer_from_before_does_not_end_an_outage(autojump_clock: MockClock) -> None:
    """Its bytes had come before Redis went: it says nothing of now."""
    outage, answer = Outage(), trio.Event()
    async with trio.open_nursery() as nursery:
        await start(nursery, lambda: ask_slowly(outage, answer))
        with pytest.raises(RedisUnavailable):
            ask(outage, is_up=False)
        answer.set()
    assert outage.is_on


async def test_a_late_failure_from_before_does_not_begin_another(autojump_clock: MockClock) -> None:
    outage, answer = Outage(), trio.Event()

    async def fail_late() -> None:
        with pytest.raises(RedisUnavailable):
            await ask_slowly(outage, answer, is_up=False)

    async with trio.open_nursery() as nursery:
        await start(nursery, fail_late)
        with pytest.raises(RedisUnavailable):
            ask(outage, is_up=False)
        await trio.sleep(PAUSE_SECONDS)
        ask(outage, is_up=True)
        answer.set()
    assert not outage.is_on


async def test_what_only_reads_does_not_try_it_for_a_redis_that_is_full_answers_that(
    outage: Outage, autojump_clock: MockClock
) -> None:
    await trio.sleep(PAUSE_SECONDS)
    with pytest.raises(RedisUnavailable, match="Redis is away"), outage.watch(is_read=True):
        pytest.fail("it was asked")
    assert outage.is_on
    ask(outage, is_up=True)
    assert not outage.is_on


async def test_the_log_says_away_once_and_back_once(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    outage = Outage()
    for is_up in (True, False, False, False, True, True):
        with suppress(RedisUnavailable):
            ask(outage, is_up=is_up)
        await trio.sleep(PAUSE_SECONDS)
    told = [(record.levelno, record.message.partition(":")[0]) for record in caplog.records]
    assert told == [(logging.ERROR, "Redis is away"), (logging.WARNING, "Redis is back")]


async def test_an_error_that_is_not_of_redis_says_nothing_about_it(autojump_clock: MockClock) -> None:
    outage = Outage()
    with pytest.raises(ValueError, match="ours"), outage.watch():
        raise ValueError("ours")
    assert not outage.is_on
