"""Pushes while everything around them breaks: none is lost, and none that was acknowledged is sent again."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import trio

from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.push_scene import Phone, add_phone, find_deliveries, notify, wait_none_due
from tests.push_stand_in import (
    Accept,
    Book,
    Cut,
    GoAway,
    Held,
    Push,
    PushStandIn,
    ResetStream,
    Say,
    Step,
    open_push_stand_in,
    refuse_apns,
    refuse_fcm,
)
from tests.storage.redis_server import RedisServer

Scene = tuple[PushStandIn, Cloche, Customer, list[Phone]]


@asynccontextmanager
async def open_scene(stores: Stores, phones: int = 4) -> AsyncIterator[Scene]:
    """A desktop and phones of one user, with Apple and a server. Its lease is short: what was claimed on a connection
    to PostgreSQL that broke before it said so is sent when that is over.
    """
    async with open_push_stand_in() as push:
        settings = {**push.apns_settings, "PUSH_LEASE_SECONDS": "5"}
        async with open_cloche(stores, settings=settings) as cloche:
            desktop = await cloche.make_customer()
            yield push, cloche, desktop, [await add_phone(cloche, desktop) for _ in range(phones)]


async def tell(cloche: Cloche, desktop: Customer, jobs: int, phones: int) -> None:
    """So many notifications, one after the other."""
    for job in range(jobs):
        assert await notify(cloche, desktop, jobId=f"job-{job}") == phones


def build_wanted(phones: list[Phone], jobs: int) -> set[tuple[str, str]]:
    return {(phone.token, f"job_completed:job-{job}") for phone in phones for job in range(jobs)}


async def check_exactly_once(book: Book, wanted: set[tuple[str, str]]) -> None:
    """What the server has noted the stand-in, in this process, books when it has a turn."""
    with trio.move_on_after(5):
        await book.wait_until(lambda seen: set(seen.count_acknowledged()) >= wanted)
    counts = book.count_acknowledged()
    assert {each: count for each, count in counts.items() if count > 1} == {}
    assert set(counts) == wanted
    assert book.refused == []


@pytest.mark.parametrize(
    ("step", "is_looked_at"),
    [(Cut(), True), (ResetStream(7), False), (GoAway("Shutdown"), False)],
    ids=["cut", "refused", "goaway"],
)
async def test_what_was_under_way_when_the_connection_or_its_stream_broke_arrives_all_the_same(
    stores: Stores, step: Step, is_looked_at: bool
) -> None:
    """What APNs says it has not looked at goes out again at once: that is no attempt."""
    async with open_scene(stores, phones=10) as (push, cloche, desktop, phones):
        push.apns.script.by_number[25] = step
        await tell(cloche, desktop, 5, 10)
        await wait_none_due(cloche)
        await check_exactly_once(push.apns.book, build_wanted(phones, 5))
        assert push.apns.violations == []
        attempts = {attempts for _, _, attempts in find_deliveries(cloche)}
        assert attempts == ({1, 2} if is_looked_at else {1})


async def test_what_was_stored_while_apns_could_not_be_reached_arrives_once_it_can_be(stores: Stores) -> None:
    async with open_scene(stores, phones=1) as (push, cloche, desktop, phones):
        push.apns.is_away = True
        await tell(cloche, desktop, 1, 1)
        with trio.fail_after(5):
            while not push.apns.connections:
                await trio.sleep(0.01)
        push.apns.is_away = False
        await wait_none_due(cloche)
        await check_exactly_once(push.apns.book, build_wanted(phones, 1))


KILL_CONNECTIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def test_connections_to_postgresql_are_killed_while_pushes_are_under_way(stores: Stores) -> None:
    async with open_scene(stores) as (push, cloche, desktop, phones):
        push.apns.script.otherwise = lambda _: Held(0.01)
        await tell(cloche, desktop, 20, 4)
        with trio.move_on_after(0.5):
            while True:
                cloche.query(KILL_CONNECTIONS)
                await trio.sleep(0.01)
        await wait_none_due(cloche, 30)
        await check_exactly_once(push.apns.book, build_wanted(phones, 20))


async def test_what_apns_has_taken_while_postgresql_is_away_is_remembered_until_it_can_be_noted(stores: Stores) -> None:
    async with open_scene(stores) as (push, cloche, desktop, phones):
        held = trio.Event()
        push.apns.script.otherwise = lambda _: Held(held)
        await tell(cloche, desktop, 5, 4)
        await push.apns.book.wait_received(4)
        limit_connections(cloche, 0)
        cloche.query(KILL_CONNECTIONS)
        held.set()
        await cloche.wait_logged("pushes could not be claimed or noted")
        assert push.apns.book.acknowledged
        limit_connections(cloche, -1)
        await wait_none_due(cloche)
        await check_exactly_once(push.apns.book, build_wanted(phones, 5))


def limit_connections(cloche: Cloche, count: int) -> None:
    """Of the server: superusers may come in all the same. -1 is no limit."""
    words = f"EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT {count}', current_database())"
    with psycopg.connect(cloche.owner_database_url) as connection:
        connection.execute(f"DO $$ BEGIN {words}; END $$".encode())


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.kill()


async def test_pushes_do_not_need_redis(stores: Stores, own_redis: RedisServer) -> None:
    async with open_scene(replace(stores, redis_url=own_redis.url)) as (push, cloche, desktop, phones):
        held = trio.Event()
        push.apns.script.otherwise = lambda _: Held(held)
        await tell(cloche, desktop, 10, 4)
        await push.apns.book.wait_received(1)
        own_redis.kill()
        held.set()
        await wait_none_due(cloche)
        await check_exactly_once(push.apns.book, build_wanted(phones, 10))


def misbehave(chance: random.Random, rare: list[Step], often: list[Step]) -> Callable[[Push], Step]:
    """Of a hundred pushes four are put off and one waits a little; of five hundred one breaks something."""

    def choose(_: Push) -> Step:
        draw = chance.random()
        if draw < 0.002:
            return chance.choice(rare)
        if draw < 0.012:
            return Held(chance.uniform(0.0, 0.1))
        return chance.choice(often) if draw < 0.052 else Accept()

    return choose


def script_faults(push: PushStandIn) -> None:
    chance = random.Random(7)  # noqa: S311 - a test that can be repeated
    page = Say(502, b"<html>")
    rare: list[Step] = [Cut(), GoAway("Shutdown"), ResetStream(2), ResetStream(7)]
    often: list[Step] = [refuse_apns(503, "ServiceUnavailable"), refuse_apns(429, "TooManyRequests"), page]
    push.apns.script.otherwise = misbehave(chance, rare, often)
    push.fcm.script.otherwise = misbehave(chance, [Cut()], [refuse_fcm(503, "UNAVAILABLE", "UNAVAILABLE"), page])


async def deliver_amid_faults(stores: Stores, phones: int, androids: int, jobs: int, seconds: float) -> None:
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        desktop = await cloche.make_customer()
        apples = [await add_phone(cloche, desktop) for _ in range(phones)]
        others = [await add_phone(cloche, desktop, platform="android") for _ in range(androids)]
        script_faults(push)
        started = trio.current_time()
        await tell(cloche, desktop, jobs, phones + androids)
        await wait_none_due(cloche, seconds)
        await check_exactly_once(push.apns.book, build_wanted(apples, jobs))
        await check_exactly_once(push.fcm.book, build_wanted(others, jobs))
        assert {state for _, state, _ in find_deliveries(cloche)} == {"sent"}
        assert (len(push.apns.provider_tokens), len(push.fcm.assertions)) == (1, 1)
        assert push.apns.violations == []
        print_summary([push.apns.book, push.fcm.book], trio.current_time() - started)


def print_summary(books: list[Book], seconds: float) -> None:
    acknowledged = sum(len(book.acknowledged) for book in books)
    asked, cut = sum(len(book.received) for book in books), sum(len(book.cut) for book in books)
    print(f"{acknowledged} pushes in {seconds:.1f} s: {asked} requests, {cut} without an answer")


async def test_a_thousand_pushes_amid_faults_are_each_acknowledged_once(stores: Stores) -> None:
    await deliver_amid_faults(stores, phones=40, androids=10, jobs=20, seconds=30)


@pytest.mark.soak
async def test_ten_thousand_pushes_amid_faults_are_each_acknowledged_once(stores: Stores) -> None:
    await deliver_amid_faults(stores, phones=80, androids=20, jobs=100, seconds=300)
