"""Notifications: stored with all that is to be delivered, or not at all; each user's own; kept for a bounded time."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from storage.accounts import Accounts
from storage.credits import UserUnknown
from storage.notifications import MAX_LISTED, NewNotification, Notification, Notifications, Place
from storage.postgres import Database, open_database
from storage.push_tokens import PushPlatform, PushTokens
from tests.storage.people import Query, open_query, wait_until_somebody_waits

IOS: tuple[PushPlatform, ...] = ("ios",)
DATA = {"type": "job_completed", "deep": {"läßt": ["so", None, 0.1, 2**63 - 1, True]}}
DONE = NewNotification("job_completed", "job-1", "Title", "Body 😀", DATA, is_silent=False, deliver_within_seconds=60)
SILENT = replace(DONE, kind="job_progress", is_silent=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=8) as database:
            yield database


@pytest.fixture
def notifications(database: Database) -> Notifications:
    return Notifications(database)


@pytest.fixture
async def ann(database: Database) -> UUID:
    return (await Accounts(database).make_user("ann@example.com")).id


@pytest.fixture
async def bob(database: Database) -> UUID:
    return (await Accounts(database).make_user("bob@example.com")).id


async def store(notifications: Notifications, user_id: UUID, **changes: Any) -> UUID:
    return (await notifications.store(user_id, replace(DONE, **changes), IOS)).id


async def save_token(notifications: Notifications, user_id: UUID, token: str, platform: PushPlatform = "ios") -> None:
    await PushTokens(notifications.database).save(user_id, uuid4(), platform, token)


async def list_titles(notifications: Notifications, user_id: UUID, **which: Any) -> list[str]:
    return [found.title for found in await notifications.list(user_id, **{"limit": 1000, **which})]


# Storing


async def test_what_is_stored_is_on_its_way_to_every_token_of_the_platforms_that_are_on(
    notifications: Notifications, ann: UUID, bob: UUID, query: Query
) -> None:
    await save_token(notifications, ann, "aa")
    await save_token(notifications, ann, "bb")
    await save_token(notifications, ann, "cc", "android")
    await save_token(notifications, bob, "dd")
    stored = await notifications.store(ann, DONE, IOS)
    assert (stored.deliveries, stored.is_new) == (2, True)
    assert (await notifications.store(ann, DONE, ["ios", "android"])).deliveries == 3
    due = """
        SELECT notification_id, deliveries.user_id, token FROM notification_deliveries AS deliveries
        JOIN push_tokens ON push_tokens.id = token_id WHERE notification_id = %s AND state = 'due' ORDER BY token
    """
    assert query(due, stored.id) == [(stored.id, ann, "aa"), (stored.id, ann, "bb")]


async def test_without_a_platform_it_is_stored_and_listed(notifications: Notifications, ann: UUID) -> None:
    await save_token(notifications, ann, "aa")
    stored = await notifications.store(ann, DONE, [])
    (found,) = await notifications.list(ann, limit=9)
    assert (stored.deliveries, stored.is_new) == (0, True)
    assert found == Notification(
        stored.id, "job_completed", "job-1", "Title", "Body 😀", DATA, found.created_at, read_at=None
    )


async def test_the_same_key_is_the_same_notification(notifications: Notifications, ann: UUID, bob: UUID) -> None:
    await save_token(notifications, ann, "aa")
    keyed = replace(DONE, idempotency_key="key")
    first = await notifications.store(ann, keyed, IOS)
    again = await notifications.store(ann, replace(keyed, title="Other"), IOS)
    assert again == replace(first, is_new=False)
    assert await list_titles(notifications, ann) == ["Title"]
    assert (await notifications.store(bob, keyed, IOS)).is_new
    assert (await notifications.store(ann, DONE, IOS)).is_new


async def test_of_many_with_the_same_key_at_once_one_is_stored(
    notifications: Notifications, ann: UUID, query: Query
) -> None:
    found = []

    async def store_keyed() -> None:
        found.append(await notifications.store(ann, replace(DONE, idempotency_key="key"), IOS))

    await save_token(notifications, ann, "aa")
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(store_keyed)
    assert sum(stored.is_new for stored in found) == 1
    assert {(stored.id, stored.deliveries) for stored in found} == {(found[0].id, 1)}
    assert query("SELECT count(*) FROM notification_deliveries") == [(1,)]


async def test_a_key_is_free_again_once_its_notification_is_deleted(notifications: Notifications, ann: UUID) -> None:
    keyed = replace(DONE, idempotency_key="key")
    first = await notifications.store(ann, keyed, [])
    await notifications.delete(ann, None)
    assert (await notifications.store(ann, keyed, [])).id != first.id


async def test_a_token_that_goes_meanwhile_is_waited_for_and_left_out(
    notifications: Notifications, ann: UUID, query: Query, owner_database_url: str
) -> None:
    await save_token(notifications, ann, "aa")
    await save_token(notifications, ann, "bb")
    with open_query(owner_database_url) as other:
        other("BEGIN")
        other("DELETE FROM push_tokens WHERE token = 'aa'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifications.store, ann, DONE, IOS)
            await wait_until_somebody_waits(query)
            other("COMMIT")
    assert query("SELECT token FROM notification_deliveries JOIN push_tokens ON id = token_id") == [("bb",)]


async def test_nothing_is_stored_for_who_is_not_there(notifications: Notifications) -> None:
    with pytest.raises(UserUnknown):
        await notifications.store(uuid4(), DONE, IOS)


# Listing


async def test_pages_run_from_the_newest_to_the_oldest(
    notifications: Notifications, ann: UUID, query: Query
) -> None:
    for number in range(5):
        await store(notifications, ann, title=str(number))
    query("UPDATE notifications SET created_at = now() WHERE title IN ('1', '2')")  # in one moment: by id then
    everything = await notifications.list(ann, limit=9)
    found, place = [], None
    while page := await notifications.list(ann, limit=2, before=place):
        found += page
        place = Place(page[-1].created_at, page[-1].id)
    assert found == everything
    assert len(found) == 5


async def test_a_page_goes_on_after_one_that_was_deleted(notifications: Notifications, ann: UUID) -> None:
    for number in range(3):
        await store(notifications, ann, title=str(number))
    middle = (await notifications.list(ann, limit=9))[1]
    await notifications.delete(ann, [middle.id])
    assert await list_titles(notifications, ann, before=Place(middle.created_at, middle.id)) == ["0"]


async def test_what_is_silent_is_in_no_list_and_nobody_marks_or_deletes_it(
    notifications: Notifications, ann: UUID, query: Query
) -> None:
    stored = await notifications.store(ann, SILENT, IOS)
    assert await notifications.list(ann, limit=9) == []
    assert await notifications.count_unread(ann) == 0
    assert await notifications.mark_read(ann, None) == 0
    assert await notifications.delete(ann, [stored.id]) == await notifications.delete(ann, None) == 0
    assert query("SELECT id FROM notifications") == [(stored.id,)]


async def test_what_is_read_is_no_more_among_the_unread(notifications: Notifications, ann: UUID) -> None:
    ids = [await store(notifications, ann, title=str(number)) for number in range(3)]
    assert await notifications.mark_read(ann, [ids[0], ids[1], uuid4()]) == 2
    assert await notifications.mark_read(ann, ids[:1]) == 0
    assert await list_titles(notifications, ann, only_unread=True) == ["2"]
    assert await notifications.count_unread(ann) == 1
    first = (await notifications.list(ann, limit=9))[2].read_at
    assert first is not None
    assert await notifications.mark_read(ann, None) == 1
    assert (await notifications.list(ann, limit=9))[2].read_at == first
    assert await notifications.mark_read(ann, []) == 0


async def test_what_is_deleted_reaches_no_further_device(
    notifications: Notifications, ann: UUID, query: Query
) -> None:
    await save_token(notifications, ann, "aa")
    first, second = await store(notifications, ann), await store(notifications, ann)
    assert await notifications.delete(ann, [first]) == 1
    assert await notifications.delete(ann, [first]) == 0
    assert query("SELECT notification_id FROM notification_deliveries") == [(second,)]
    assert await notifications.delete(ann, None) == 1
    assert await notifications.list(ann, limit=9) == []


async def test_nobody_reads_marks_or_deletes_the_notifications_of_others(
    notifications: Notifications, ann: UUID, bob: UUID
) -> None:
    notification_id = await store(notifications, ann)
    assert await notifications.list(bob, limit=9) == []
    assert await notifications.count_unread(bob) == 0
    for ids in ([notification_id], None):
        assert await notifications.mark_read(bob, ids) == 0
        assert await notifications.delete(bob, ids) == 0
    assert await notifications.count_unread(ann) == 1


# Purging


async def test_what_is_old_goes_and_what_is_new_stays(notifications: Notifications, ann: UUID, query: Query) -> None:
    old, new = await store(notifications, ann), await store(notifications, ann)
    query("UPDATE notifications SET created_at = now() - interval '91 days' WHERE id = %s", old)
    query("UPDATE notifications SET created_at = now() - interval '89 days' WHERE id = %s", new)
    assert await notifications.purge() == 1
    assert await notifications.purge() == 0
    assert query("SELECT id FROM notifications") == [(new,)]


async def test_of_one_user_the_newest_stay(notifications: Notifications, ann: UUID, bob: UUID, query: Query) -> None:
    await store(notifications, bob)
    many = """
        INSERT INTO notifications (user_id, kind, title, body, is_silent, created_at, deliver_until)
        SELECT %s, 'test', number, '', number %% 2 = 0, now() - make_interval(mins => number), now() + interval '1 day'
        FROM generate_series(1, %s) AS number
    """
    query(many, ann, 2 * MAX_LISTED + 6)
    assert await notifications.purge(limit=2) == 2
    assert await notifications.purge() == 1
    assert await notifications.purge() == 0
    titles = await list_titles(notifications, ann)
    assert titles == [str(number) for number in range(1, 2 * MAX_LISTED, 2)]
    assert query("SELECT count(*) FROM notifications WHERE is_silent") == [(MAX_LISTED + 3,)]
    assert len(await list_titles(notifications, bob)) == 1


async def test_what_is_silent_goes_when_its_time_is_over(
    notifications: Notifications, ann: UUID, query: Query
) -> None:
    for is_silent in (True, False):
        for minutes in (-11, -9):
            query(
                "INSERT INTO notifications (user_id, kind, title, body, is_silent, deliver_until)"
                " VALUES (%s, 'test', %s, '', %s, now() + make_interval(mins => %s))",
                *(ann, f"{is_silent} {minutes}", is_silent, minutes),
            )
    assert await notifications.purge() == 1
    assert sorted(query("SELECT title FROM notifications")) == [("False -11",), ("False -9",), ("True -9",)]


async def test_two_processes_that_purge_at_once_do_not_wait_for_each_other(
    notifications: Notifications, ann: UUID, query: Query, owner_database_url: str
) -> None:
    locked, free = await store(notifications, ann), await store(notifications, ann)
    query("UPDATE notifications SET created_at = now() - interval '91 days'")
    with open_query(owner_database_url) as other:
        other("BEGIN")
        other("SELECT FROM notifications WHERE id = %s FOR UPDATE", locked)
        assert await notifications.purge() == 1
    assert query("SELECT id FROM notifications") == [(locked,)]
    assert free != locked


async def test_one_is_found_by_its_owner_alone_and_not_if_it_is_silent(
    notifications: Notifications, ann: UUID, bob: UUID
) -> None:
    stored = await store(notifications, ann)
    silent = (await notifications.store(ann, SILENT, IOS)).id
    (listed,) = await notifications.list(ann, limit=2)
    assert await notifications.find(ann, stored) == listed
    assert await notifications.find(bob, stored) is None
    assert await notifications.find(ann, silent) is None
