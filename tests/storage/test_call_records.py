"""How a call stands, told to its own user alone."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from proxy.ledger import Outcome
from storage.call_records import CallRecords
from storage.credits import Credits
from storage.journal import Progress
from storage.postgres import Database, open_database
from tests.storage.calls import USAGE, build_hold, build_settlement, make_user


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


async def test_a_running_call_has_no_ending_and_tells_of_its_work_in_the_background(database: Database) -> None:
    credits_, records = Credits(database), CallRecords(database)
    hold = build_hold(await make_user(database, "9"))
    await credits_.hold(hold)
    found = await records.find(hold.user_id, hold.id)
    assert found is not None
    assert (found.id, found.provider_code, found.upstream_id, found.ending) == (hold.id, "openai", None, None)
    assert abs(datetime.now(UTC) - found.created_at) < timedelta(minutes=1)
    await credits_.note_upstream(hold.id, "openai", "resp_1")
    found = await records.find(hold.user_id, hold.id)
    assert found is not None
    assert (found.upstream_provider, found.upstream_id) == ("openai", "resp_1")


@pytest.mark.parametrize("outcome", ["completed", "cancelled", "failed"])
async def test_a_call_that_is_over_tells_what_it_used_and_cost(database: Database, outcome: Outcome) -> None:
    credits_ = Credits(database)
    hold = build_hold(await make_user(database, "9"))
    await credits_.hold(hold)
    await credits_.settle(build_settlement(hold, "0.25", outcome, provisional=True))
    found = await CallRecords(database).find(hold.user_id, hold.id)
    assert found is not None
    ending = found.ending
    assert ending is not None
    assert (ending.outcome, ending.cost_usd, ending.provisional) == (outcome, Decimal("0.25"), True)
    assert ending.ended_at >= found.created_at
    assert (ending.input_tokens, ending.output_tokens) == (USAGE.prompt_tokens, USAGE.completion_tokens)
    assert (ending.cache_read_tokens, ending.cache_write_tokens) == (9, 8 + 5)


async def test_a_call_is_found_by_its_key_too_as_long_as_it_has_it(database: Database) -> None:
    """A key that looks like an id of ours may be one: the id goes first."""
    credits_, records = Credits(database), CallRecords(database)
    user = await make_user(database, "9")
    first = build_hold(user, idempotency_key="mine")
    second = build_hold(user, idempotency_key=str(first.id))
    for hold in (first, second):
        await credits_.hold(hold)
    found = [await records.find(user, None, "mine"), await records.find(user, first.id, str(first.id))]
    assert [one and one.id for one in found] == [first.id, first.id]
    await credits_.settle(build_settlement(first, outcome="cancelled"))
    assert await records.find(user, None, "mine") is None


async def test_a_foreign_call_is_not_found_and_only_that_it_is_there_can_be_told(database: Database) -> None:
    records = CallRecords(database)
    hold = build_hold(await make_user(database, "9"), idempotency_key="mine")
    await Credits(database).hold(hold)
    stranger = await make_user(database)
    assert await records.find(stranger, hold.id, "mine") is None
    assert await records.is_somebodys(hold.id)
    assert not await records.is_somebodys(uuid4())


async def test_who_runs_a_call_hears_of_its_users_wish_to_end_it_and_of_nobody_elses(database: Database) -> None:
    credits_, records = Credits(database), CallRecords(database)
    holds = [build_hold(await make_user(database, "9")) for _ in range(2)]
    for hold in holds:
        await credits_.hold(hold)
    progress = [Progress(hold.id, True, False) for hold in holds]
    assert await credits_.renew(progress) == []
    await records.note_cancelled(holds[0].user_id, holds[1].id)
    assert await credits_.renew(progress) == []
    await records.note_cancelled(holds[0].user_id, holds[0].id)
    assert await credits_.renew(progress) == [holds[0].id]
    await credits_.settle(build_settlement(holds[1], "0.25"))
    await records.note_cancelled(holds[1].user_id, holds[1].id)
    assert await credits_.renew(progress) == [holds[0].id], "what is over needs no wish"
