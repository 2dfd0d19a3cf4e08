"""What users are told: once for each key, the newest first, each user its own."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import trio

from storage.billing_notices import BillingNotices
from storage.postgres import Database, open_database
from tests.storage.calls import make_user


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=4) as database:
            yield database


@pytest.fixture
def notices(database: Database) -> BillingNotices:
    return BillingNotices(database)


async def test_a_user_is_told_once_for_each_key(database: Database, notices: BillingNotices) -> None:
    user_id = await make_user(database)
    assert await notices.add(user_id, "debt", "debt:1", {"debtUsd": "1.5", "läßt": ["so", None]})
    assert not await notices.add(user_id, "debt", "debt:1", {"debtUsd": "2"})
    (notice,) = await notices.list(user_id, limit=9)
    assert (notice.kind, notice.details, notice.read_at) == ("debt", {"debtUsd": "1.5", "läßt": ["so", None]}, None)


async def test_the_same_key_of_another_user_is_another_notice(database: Database, notices: BillingNotices) -> None:
    ann, bob = await make_user(database), await make_user(database)
    assert await notices.add(ann, "debt", "debt:1", {})
    assert await notices.add(bob, "debt", "debt:1", {})
    assert len(await notices.list(ann, limit=9)) == 1


async def test_nobody_is_told_who_is_not_there(notices: BillingNotices) -> None:
    assert not await notices.add(uuid4(), "debt", "debt:1", {})


async def test_pages_run_from_the_newest_to_the_oldest(database: Database, notices: BillingNotices) -> None:
    user_id = await make_user(database)
    for number in range(5):
        await notices.add(user_id, "debt", f"debt:{number}", {"number": number})
    pages = [await notices.list(user_id, limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[notice.details["number"] for notice in page] for page in pages] == [[4, 3], [2, 1], [0], []]


async def test_what_is_read_stays_and_is_no_more_among_the_unread(database: Database, notices: BillingNotices) -> None:
    user_id = await make_user(database)
    for number in range(3):
        await notices.add(user_id, "debt", f"debt:{number}", {"number": number})
    newest, middle, _ = await notices.list(user_id, limit=9)
    assert await notices.count_unread(user_id) == 3
    assert await notices.mark_read(user_id, [newest.id, middle.id, uuid4()]) == 2
    assert await notices.mark_read(user_id, [newest.id]) == 0
    unread = await notices.list(user_id, limit=9, only_unread=True)
    assert [notice.details["number"] for notice in unread] == [0]
    assert await notices.count_unread(user_id) == 1
    first = (await notices.list(user_id, limit=1))[0].read_at
    assert first is not None
    assert await notices.mark_read(user_id, None) == 1
    assert (await notices.list(user_id, limit=1))[0].read_at == first
    assert [notice.read_at is None for notice in await notices.list(user_id, limit=9)] == [False] * 3
    assert await notices.mark_read(user_id, []) == 0


async def test_nobody_reads_the_notices_of_others(database: Database, notices: BillingNotices) -> None:
    ann, bob = await make_user(database), await make_user(database)
    await notices.add(ann, "debt", "debt:1", {})
    (notice,) = await notices.list(ann, limit=9)
    assert await notices.list(bob, limit=9) == []
    assert await notices.mark_read(bob, [notice.id]) == 0
    assert await notices.mark_read(bob, None) == 0
    assert await notices.count_unread(ann) == 1
