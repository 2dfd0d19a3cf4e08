"""The mends of coredis's pool, each beside the pool as it is: when upstream mends it, the test says so."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from coredis._concurrency import Queue
from coredis.exceptions import ConnectionError
from coredis.pool import ConnectionPool

from storage.coredis_fixes import Pool, Slots

# coredis leaves channels to the garbage collector when it cannot connect.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture
async def deaf_port() -> AsyncIterator[int]:
    """Takes connections and never answers: a Redis that is loading, or whose machine has just died."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("pool_type", "left"), [(ConnectionPool, 0), (Pool, 3)])
async def test_a_slot_survives_those_who_leave_while_connecting(
    pool_type: type[ConnectionPool[Any]], left: int, deaf_port: int
) -> None:
    pool = pool_type.from_url(f"redis://127.0.0.1:{deaf_port}", max_connections=3, timeout=5, connect_timeout=5)
    async with pool:
        for _ in range(3):
            with suppress(ConnectionError), trio.move_on_after(0.05):  # coredis takes being cancelled for that
                await pool.get_connection()
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
