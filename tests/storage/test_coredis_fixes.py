"""The mends of coredis's pool, each beside the pool as it is: when upstream mends it, the test says so."""

from typing import Any

import pytest
import trio
import trio.testing
from coredis._concurrency import Queue
from coredis.connection import BaseConnection
from coredis.pool import ConnectionPool

from storage.coredis_fixes import Pool, Slots


@pytest.mark.parametrize(("pool_type", "left"), [(ConnectionPool, 0), (Pool, 3)])
async def test_a_slot_survives_those_who_leave_while_connecting(
    pool_type: type[ConnectionPool[Any]], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They leave before the connection's task has begun, where a storm of callers finds them by the thousand."""

    async def construct_slowly(_pool: object) -> BaseConnection:
        await trio.sleep_forever()

    monkeypatch.setattr(ConnectionPool, "_construct_connection", construct_slowly)
    pool = pool_type.from_url("redis://127.0.0.1:1", max_connections=3, timeout=5)
    async with pool:
        for _ in range(3):
            with trio.move_on_after(0.01) as leaving:
                await pool.get_connection()
            assert leaving.cancelled_caught
        assert len(pool._available_connections) == left


@pytest.mark.parametrize(("queue_type", "is_served"), [(Queue, False), (Slots, True)])
async def test_a_slot_goes_to_the_next_when_the_first_in_the_queue_has_left(
    queue_type: type[Queue[str]], is_served: bool, autojump_clock: trio.testing.MockClock
) -> None:
    queue = queue_type(1)
    await queue.get()
    with trio.move_on_after(1):
        await queue.get()
    got: list[str | None] = []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            got.append(await queue.get())

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        queue.put_nowait("slot")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert got == (["slot"] if is_served else [])


async def test_whoever_is_woken_and_cancelled_at_once_wakes_the_next() -> None:
    queue: Slots[str] = Slots(1)
    await queue.get()
    got: list[str | None] = []

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await queue.get())

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        for scope in (first, second):
            nursery.start_soon(wait, scope)
            await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        queue.put_nowait("slot")
        await trio.testing.wait_all_tasks_blocked()
        second.cancel()
    assert got == ["slot"]
