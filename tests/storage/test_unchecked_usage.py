"""Whose turn it is to be checked: provisional charges that a provider can be asked about."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
import trio

from proxy.events import Usage
from storage.credits import Credits
from storage.postgres import Database, open_database
from storage.unchecked_usage import MAX_CHECKS, PAUSES_SECONDS, UncheckedUsage, UncheckedUsages
from tests.storage.calls import PRICE, USAGE, build_hold, build_settlement, make_user

CODES = ["openrouter"]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=4) as database:
            yield database


@pytest.fixture
def usages(database: Database) -> UncheckedUsages:
    return UncheckedUsages(database)


async def end_call(
    database: Database, upstream_id: str | None = "gen-1", code: str = "openrouter", *, provisional: bool = True
) -> UUID:
    """A call that a client left; its id."""
    hold = build_hold(await make_user(database, "10"))
    await Credits(database).hold(hold)
    settlement = build_settlement(hold, outcome="cancelled", provisional=provisional)
    await Credits(database).settle(replace(settlement, provider_code=code, upstream_id=upstream_id))
    return hold.id


def pass_time(owner_url: str, seconds: float, call_id: UUID | None = None) -> None:
    """For one call, or for all."""
    statement = "UPDATE usage SET next_check_at = next_check_at - %s * interval '1 second'"
    with psycopg.connect(owner_url) as owner:
        owner.execute(f"{statement} WHERE request_id = coalesce(%s, request_id)".encode(), [seconds, call_id])


async def test_a_charge_by_our_own_count_is_found_with_all_that_an_exact_one_needs(
    database: Database, usages: UncheckedUsages
) -> None:
    call_id = await end_call(database)
    [found] = await usages.find_due(CODES)
    assert (found.hold_id, found.provider_code, found.upstream_id) == (call_id, "openrouter", "gen-1")
    assert (found.outcome, found.checks) == ("cancelled", 1)
    assert json.loads(found.price) == json.loads(PRICE)
    assert read_usage(found) == USAGE


def read_usage(found: UncheckedUsage) -> Usage:
    names = Usage.__dataclass_fields__
    return Usage(**{name: getattr(found.progress, name) for name in names})


async def test_what_nobody_can_be_asked_about_is_left_alone(database: Database, usages: UncheckedUsages) -> None:
    await end_call(database, provisional=False)
    await end_call(database, None)
    await end_call(database, code="openai")
    assert await usages.find_due(CODES) == []
    assert len(await usages.find_due([*CODES, "openai"])) == 1


async def test_after_each_check_it_rests_for_longer_and_at_last_for_good(
    database: Database, usages: UncheckedUsages, owner_database_url: str
) -> None:
    await end_call(database)
    for number, pause_seconds in enumerate(PAUSES_SECONDS, 1):
        [found] = await usages.find_due(CODES)
        assert found.checks == number
        pass_time(owner_database_url, pause_seconds - 5)
        assert await usages.find_due(CODES) == []
        pass_time(owner_database_url, 5)
    [last] = await usages.find_due(CODES)
    assert last.checks == MAX_CHECKS
    pass_time(owner_database_url, 10**9)
    assert await usages.find_due(CODES) == []


async def test_two_processes_never_ask_about_the_same(database: Database, usages: UncheckedUsages) -> None:
    calls = {await end_call(database) for _ in range(10)}
    found: list[UUID] = []

    async def find() -> None:
        found.extend([one.hold_id for one in await usages.find_due(CODES, 3)])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(find)
    assert len(found) == len(set(found))
    found += [one.hold_id for one in await usages.find_due(CODES, 50)]
    assert sorted(found) == sorted(calls)


async def test_those_that_wait_longest_come_first(
    database: Database, usages: UncheckedUsages, owner_database_url: str
) -> None:
    first, second, third = [await end_call(database) for _ in range(3)]
    pass_time(owner_database_url, 86400, third)
    assert [one.hold_id for one in await usages.find_due(CODES, 1)] == [third]
    assert [one.hold_id for one in await usages.find_due(CODES, 9)] == [first, second]
