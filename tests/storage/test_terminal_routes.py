"""Which terminals are bound, on a real Redis: whose they are, and that nobody else changes them."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from storage.redis import Redis
from storage.terminal_routes import MAX_ROUTES, MEMORY_SECONDS, TerminalRecord, TerminalRoutes, terminals_key

ANN, BOB = uuid4(), uuid4()
DESK, OTHER_DESK = uuid4(), uuid4()


@pytest.fixture
def table(client: Redis) -> TerminalRoutes:
    return TerminalRoutes(client)


def build(session_id: str = "t-1", owner: str = "one", producer_id: UUID = DESK) -> TerminalRecord:
    return TerminalRecord(producer_id, session_id, owner, uuid4(), uuid4(), "two", 7, epoch=3)


@pytest.mark.parametrize("session_id", ["t-1", 'Ä "1"\\ / 💻', "a/b", "x" * 2000])
async def test_a_record_is_read_as_it_was_written(table: TerminalRoutes, session_id: str) -> None:
    record = build(session_id)
    assert await table.save(ANN, record)
    assert await table.find(ANN, DESK, session_id) == record
    assert await table.list(ANN) == [record]
    assert await table.list(BOB) == []
    assert await table.find(ANN, OTHER_DESK, session_id) is None


async def test_its_owner_alone_changes_it(table: TerminalRoutes) -> None:
    record = build()
    await table.save(ANN, record)
    assert not await table.save(ANN, replace(record, owner="two"))
    assert not await table.drop(ANN, DESK, "t-1", "two")
    assert await table.find(ANN, DESK, "t-1") == record
    assert await table.save(ANN, replace(record, is_whole=True))
    assert await table.find(ANN, DESK, "t-1") == replace(record, is_whole=True)


async def test_who_waits_for_a_lost_owner_may_be_another_connection(table: TerminalRoutes) -> None:
    record = build()
    await table.save(ANN, record)
    moved = replace(record, connection_id=uuid4(), instance="three")
    assert await table.save(ANN, moved)
    assert not await table.save(ANN, replace(moved, owner="another"))
    assert await table.find(ANN, DESK, "t-1") == moved


async def test_who_has_a_desktop_claims_all_of_it_and_hears_whose_they_were(table: TerminalRoutes) -> None:
    first, second = build("t-1", "one"), replace(build("t-2", "two"), is_whole=True)
    others = build("t-1", "one", OTHER_DESK)
    for record in (first, second, others):
        await table.save(ANN, record)
    claimed = await table.claim(ANN, DESK, "three")
    assert sorted(claimed, key=lambda one: one.session_id) == [first, second]
    assert await table.find(ANN, DESK, "t-1") == replace(first, owner="three")
    assert await table.find(ANN, DESK, "t-2") == replace(second, owner="three", is_whole=False)
    assert await table.find(ANN, OTHER_DESK, "t-1") == others
    assert await table.claim(BOB, DESK, "three") == []


async def test_who_claims_what_it_has_makes_it_not_whole(table: TerminalRoutes) -> None:
    await table.save(ANN, replace(build(), is_whole=True))
    [claimed] = await table.claim(ANN, DESK, "one")
    assert claimed.is_whole
    assert not (await table.list(ANN))[0].is_whole


async def test_a_record_that_was_dropped_is_gone_and_may_be_made_by_anybody(table: TerminalRoutes) -> None:
    await table.save(ANN, build())
    assert await table.drop(ANN, DESK, "t-1", "one")
    assert not await table.drop(ANN, DESK, "t-1", "one")
    assert await table.save(ANN, build(owner="two"))


async def test_of_too_many_the_one_goes_that_was_changed_longest_ago(table: TerminalRoutes, client: Redis) -> None:
    for number in range(MAX_ROUTES):
        await table.save(ANN, build(f"t-{number}"))
    await client.hset(terminals_key(ANN), {f"{DESK}/t-5": b'{"owner":"one","at":1}'})
    await table.save(ANN, build("new"))
    kept = {record.session_id for record in await table.list(ANN)}
    assert len(kept) == MAX_ROUTES
    assert "new" in kept
    assert "t-5" not in kept


async def test_records_stay_for_a_day_after_the_last_change(table: TerminalRoutes, client: Redis) -> None:
    for change in (table.save(ANN, build()), table.claim(ANN, DESK, "two")):
        await change
        assert 0 < MEMORY_SECONDS - await client.ttl(terminals_key(ANN)) + 1 < 60
        await client.expire(terminals_key(ANN), 5)
