"""Links of sockets that have ended, through their grace."""

from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from server.relay.departures import Departures


def build_stack(closed: list[str], gate: trio.Event, error: Exception | None = None) -> AsyncExitStack:
    async def close() -> None:
        await gate.wait()
        if error is not None:
            raise error
        closed.append("closed")

    stack = AsyncExitStack()
    stack.push_async_callback(close)
    return stack


async def test_nobody_waits_for_a_grace_that_the_process_sees_to() -> None:
    departures, closed, gate = Departures(), list[str](), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(departures.keep_leaving)
        await wait_all_tasks_blocked()
        for _ in range(3):
            await departures.take(build_stack(closed, gate))
        assert (departures.waiting, closed) == (3, [])
        gate.set()
        await wait_all_tasks_blocked()
        assert (departures.waiting, closed) == (0, ["closed"] * 3)
        nursery.cancel_scope.cancel()


async def test_without_the_loop_it_is_waited_for() -> None:
    departures, closed, gate = Departures(), list[str](), trio.Event()
    gate.set()
    await departures.take(build_stack(closed, gate))
    assert closed == ["closed"]


async def test_one_that_fails_is_told_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    departures, closed, gate = Departures(), list[str](), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(departures.keep_leaving)
        await wait_all_tasks_blocked()
        await departures.take(build_stack(closed, gate, ValueError("ours")))
        await departures.take(build_stack(closed, gate))
        gate.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (departures.waiting, closed) == (0, ["closed"])
    assert "was not given back" in caplog.text
