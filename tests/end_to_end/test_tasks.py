"""The server inside the test's own Trio run, where its tasks can be counted."""

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import hypercorn.config
import hypercorn.trio
import pytest
import trio

from proxy.provider import load_providers
from server.asgi import Application
from server.config import read_config
from tests.end_to_end.cloche import Cloche, Customer, Stores, build_environment
from tests.end_to_end.test_leaving import cut_one, read_number, says_and_waits
from tests.fakes import RecordedRequest, Step, open_fake_upstream

STREAMS = 120

pytestmark = pytest.mark.usefixtures("bare_logs")  # the application sets up the logs of its process


@asynccontextmanager
async def open_inside(stores: Stores, upstream_url: str) -> AsyncIterator[Cloche]:
    """It has no process of its own: only its port and its accounts can be used."""
    application = Application(read_config(build_environment(stores, upstream_url, {}), load_providers()))
    settings = hypercorn.config.Config()
    settings.bind = ["127.0.0.1:0"]
    stopping = trio.Event()
    serve = partial(hypercorn.trio.serve, cast(Any, application), settings, shutdown_trigger=stopping.wait)
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(serve)
        port = int(binds[0].rpartition(":")[2])
        yield Cloche(port, cast(Any, None), stores.database_url, stores.owner_database_url)
        stopping.set()


async def test_streams_that_were_cut_leave_no_task(stores: Stores) -> None:
    """The first storm opens what stays open: connections to the stores. After the second there is not one task more."""
    chance = random.Random(5)  # noqa: S311 - a test that can be repeated
    plans = [chance.choice([0, 1, 3, 8]) for _ in range(STREAMS)]

    def respond(request: RecordedRequest) -> Iterable[Step]:
        return says_and_waits(plans[read_number(request)])

    async with open_fake_upstream(respond) as upstream, open_inside(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        await storm(cloche, customer, plans, chance)
        before = await wait_steady(cloche)
        await storm(cloche, customer, plans, chance)
        after = await wait_steady(cloche)
        print(f"{before} tasks before {STREAMS} streams were cut, {after} after")
        assert after == before
        assert upstream.open_connections == 0
        cloche.check_accounts()


async def storm(cloche: Cloche, customer: Customer, plans: list[int], chance: random.Random) -> None:
    left_at = [0.0] * len(plans)
    async with trio.open_nursery() as nursery:
        for number, plan in enumerate(plans):
            nursery.start_soon(cut_one, cloche, customer, number, plan, chance.uniform(0, 0.5), left_at)


async def wait_steady(cloche: Cloche) -> int:
    """The number of tasks once nothing holds money and it has not changed for a while."""
    await cloche.wait_settled()
    tasks, seen = 0, 0
    with trio.fail_after(10):
        while seen < 10:
            await trio.sleep(0.05)
            now = trio.lowlevel.current_statistics().tasks_living
            tasks, seen = now, seen + 1 if now == tasks else 0
    return tasks
