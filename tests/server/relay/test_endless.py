"""Loops go on, whatever breaks them off."""

import logging

import pytest
import trio
from trio.testing import MockClock

from server.relay.endless import make_endless


async def test_a_loop_that_breaks_off_begins_anew_and_says_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    begun: list[int] = []
    goes_on = trio.Event()

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            async with trio.open_nursery():
                raise ValueError("a bug")
        goes_on.set()
        await trio.sleep_forever()

    for loop in make_endless([work]):
        nursery.start_soon(loop)
    with trio.fail_after(5):
        await goes_on.wait()
    assert begun == [0, 1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    nursery.cancel_scope.cancel()


async def test_a_loop_ends_with_who_runs_it() -> None:
    with trio.move_on_after(0) as over:
        for loop in make_endless([trio.sleep_forever]):
            await loop()
    assert over.cancelled_caught
