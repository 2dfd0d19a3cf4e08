"""Many pairs of devices that are cut off all the time: nothing is lost, reordered, or answered twice."""

import math
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID, uuid4

import msgspec
import pytest
import trio

from storage.accounts import Accounts
from storage.postgres import open_database
from tests.end_to_end.cloche import (
    PROJECT,
    Cloche,
    Stores,
    build_environment,
    open_cloche,
    show,
    start_preloaded,
    stop,
    wait_ready,
)
from tests.end_to_end.relay_crowd import Found, Plan, run_crowd

PAIRS = 500
CLIENT_PROCESSES = 2


async def make_owners(stores: Stores, count: int) -> list[UUID]:
    async with open_database(stores.database_url, size=2) as database:
        return [(await Accounts(database).make_user(f"{uuid4()}@example.com")).id for _ in range(count)]


def report(found: Found) -> None:
    """What came of it, and how long calls took that were answered."""
    print(*found.slow, sep="\n")
    latencies = sorted(found.latencies_ms)
    for name, count in sorted(found.counts.items()):
        print(f"{count:>9} {name}")
    if latencies:
        p50, p99 = (latencies[math.ceil(len(latencies) * share) - 1] for share in (0.5, 0.99))
        print(f"calls: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def check(found: Found) -> None:
    report(found)
    assert found.wrong == [], "\n".join(found.wrong[:20])
    assert found.counts["calls answered"] > 0


@pytest.mark.parametrize("count", [1, 2])
async def test_thirty_pairs_that_are_cut_off_all_the_time_lose_nothing(stores: Stores, count: int) -> None:
    async with open_cloche(stores) as first, open_more(stores, count - 1) as others:
        plan = Plan(
            urls=[cloche.url for cloche in (first, *others)],
            owners=await make_owners(stores, 30),
            seconds=5,
            call_seconds=0.3,
            event_seconds=0.3,
            terminal_seconds=0.2,
            cut_seconds=2,
        )
        check(await run_crowd(plan))


@asynccontextmanager
async def open_more(stores: Stores, count: int) -> AsyncIterator[Sequence[Cloche]]:
    if not count:
        yield []
        return
    async with open_cloche(stores) as cloche:
        yield [cloche]


@pytest.mark.soak
async def test_a_thousand_devices_on_one_server_lose_nothing_while_they_are_cut_off(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        before = rss_mebibytes(cloche)
        found = await run_crowds(stores, [cloche.url], seconds=75)
        print(f"memory of the server: {before:.0f} MiB, then {rss_mebibytes(cloche):.0f} MiB")
        check(found)
        await check_sockets_are_gone(cloche)


@pytest.mark.soak
async def test_a_thousand_devices_on_two_servers_lose_nothing_although_one_is_killed(stores: Stores) -> None:
    """And started again, twice."""
    async with open_cloche(stores) as first, open_cloche(stores) as second, trio.open_nursery() as nursery:
        nursery.start_soon(kill_now_and_then, stores, second, [30.0, 30.0])
        check(await run_crowds(stores, [first.url, second.url], seconds=90))
        nursery.cancel_scope.cancel()
        await check_sockets_are_gone(first)


async def run_crowds(stores: Stores, urls: list[str], seconds: float) -> Found:
    """In processes of their own: a device costs as much as the server does for it. As much as two cores can bear: where
    Redis's answers are three seconds late, for we are, an event may come after newer ones.
    """
    owners = await make_owners(stores, PAIRS)
    together = Found()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENT_PROCESSES):
            mine = owners[number::CLIENT_PROCESSES]
            plan = Plan(
                urls=urls,
                owners=mine,
                seed=number,
                seconds=seconds,
                call_seconds=4,
                event_seconds=4,
                terminal_seconds=4,
                most_away_seconds=3,
                is_gentle=False,
                ramp_seconds=10,
            )
            nursery.start_soon(run_elsewhere, plan, together)
    return together


async def run_elsewhere(plan: Plan, together: Found) -> None:
    command = [sys.executable, "-m", "tests.end_to_end.relay_crowd"]
    done = await trio.run_process(command, stdin=msgspec.json.encode(plan), capture_stdout=True, cwd=PROJECT)
    found = msgspec.json.decode(done.stdout, type=Found)
    together.wrong += found.wrong
    together.slow += found.slow
    together.latencies_ms += found.latencies_ms
    for name, count in found.counts.items():
        together.counts[name] = together.counts.get(name, 0) + count


async def kill_now_and_then(stores: Stores, cloche: Cloche, pauses: Sequence[float]) -> None:
    """With -9; another process has its port three seconds later."""
    environment = build_environment(stores, "http://127.0.0.1:9", {"SERVER_URL": cloche.url})
    with NamedTemporaryFile(suffix=".log") as log:
        try:
            for pause in pauses:
                await trio.sleep(pause)
                cloche.kill()
                await trio.sleep(3)
                cloche.process = start_preloaded(environment, cloche.port, log.file)
                await wait_ready(cloche.port, cloche.process)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(stop, cloche.process)
            show(Path(log.name))


async def check_sockets_are_gone(cloche: Cloche) -> None:
    with trio.fail_after(10):
        while cloche.open_sockets() > 5:
            await trio.sleep(0.1)


def rss_mebibytes(cloche: Cloche) -> float:
    pages = int(Path(f"/proc/{cloche.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1024 / 1024
