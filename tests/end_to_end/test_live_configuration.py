"""A change of the configuration is seen by every process within a second, without a restart."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
import trio

from tests.end_to_end.asking import ask
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche

RUNTIME = "/api/config/desktop-runtime-config"
VIDEOS = "/public/onboarding"
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()"
CDN = "https://cdn.example.com"


@pytest.fixture
async def both(stores: Stores) -> AsyncIterator[list[Cloche]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_cloche(stores, CDN_BASE_URL=CDN)) for _ in range(2)]


@pytest.fixture
def owner(owner_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(owner_database_url, autocommit=True) as connection:
        yield connection


async def measure(is_seen: Callable[[], Any]) -> float:
    """The seconds until it is so."""
    started = trio.current_time()
    with trio.fail_after(5):
        while not await is_seen():
            await trio.sleep(0.02)
    return trio.current_time() - started


async def show_videos(servers: list[Cloche]) -> list[Any]:
    return [(await ask(server, VIDEOS)).json["videos"] for server in servers]


async def change_and_measure(servers: list[Cloche], owner: psycopg.Connection, path: str) -> float:
    row = json.dumps({"intro": path})
    owner.execute(
        "INSERT INTO configuration (key, value, updated_by) VALUES ('onboarding_videos', %s, 'test')"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [row],
    )

    async def is_seen() -> bool:
        return await show_videos(servers) == [{"intro": f"{CDN}/{path}"}] * 2

    return await measure(is_seen)


def list_listeners(owner: psycopg.Connection) -> set[int]:
    return {pid for (pid,) in owner.execute(LISTENERS)}


async def wait_listeners(owner: psycopg.Connection, but: set[int]) -> set[int]:
    with trio.fail_after(10):
        while len(found := list_listeners(owner) - but) < 2:
            await trio.sleep(0.02)
    return found


async def test_both_see_a_change_within_a_second_also_after_their_connections_were_killed(
    both: list[Cloche], owner: psycopg.Connection
) -> None:
    customer = await both[0].make_customer()
    first = await wait_listeners(owner, set())
    assert await change_and_measure(both, owner, "first") < 1
    assert await deactivate_and_measure(both, customer, owner) < 1
    for pid in first:
        owner.execute("SELECT pg_terminate_backend(%s)", [pid])
    await wait_listeners(owner, first)
    assert await change_and_measure(both, owner, "second") < 1


async def deactivate_and_measure(servers: list[Cloche], customer: Customer, owner: psycopg.Connection) -> float:
    """A model, which then goes from the document that the desktop starts with; the ETag tells."""
    before = [await ask(server, RUNTIME, customer.headers) for server in servers]
    assert before[0].headers["etag"] == before[1].headers["etag"]
    assert before[0].body == before[1].body
    model = json.loads(before[0].body)["providers"][0]["models"][0]["id"]
    owner.execute("UPDATE models SET status = 'inactive' WHERE id = %s", [model])

    async def is_seen() -> bool:
        after = [
            await ask(server, RUNTIME, {**customer.headers, "If-None-Match": before[0].headers["etag"]})
            for server in servers
        ]
        return all(answer.status == 200 and f'"{model}"'.encode() not in answer.body for answer in after)

    return await measure(is_seen)
