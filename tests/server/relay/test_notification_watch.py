"""A notification that was stored is told to who watches, and costs one question where nobody does."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from server.relay.notification_watch import NotificationWatch
from storage.notifications import NewNotification, Notifications
from storage.postgres import Database, open_database
from tests.server.relay.audience import Told, Watched
from tests.storage.calls import make_user

NEW = NewNotification("job_completed", "1", "Done", "It is done", {}, is_silent=False, deliver_within_seconds=9)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=1) as database:
        yield database


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def notifications(database: Database) -> Notifications:
    return Notifications(database)


@pytest.fixture
def watch(told: Told, watched: Watched, notifications: Notifications) -> NotificationWatch:
    users: Any = watched
    return NotificationWatch(users, notifications, told.publish)


async def store(database: Database, notifications: Notifications) -> tuple[UUID, UUID]:
    user_id = await make_user(database)
    return user_id, (await notifications.store(user_id, NEW, ())).id


async def test_it_is_told_as_it_is_listed(
    watch: NotificationWatch, told: Told, watched: Watched, notifications: Notifications, database: Database
) -> None:
    user_id, notification_id = await store(database, notifications)
    watched.users.add(user_id)
    await watch.tell(user_id, notification_id)
    (event,) = told.published
    assert json.loads(event.payload)["id"] == str(notification_id)
    assert event.event_type == "notification-created"


async def test_it_is_not_told_where_nobody_watches_or_once_it_is_gone(
    watch: NotificationWatch, told: Told, watched: Watched, notifications: Notifications, database: Database
) -> None:
    user_id, notification_id = await store(database, notifications)
    await watch.tell(user_id, notification_id)
    watched.users.add(user_id)
    await notifications.delete(user_id, None)
    await watch.tell(user_id, notification_id)
    assert told.published == []


async def test_who_cannot_be_told_keeps_nobody_from_an_answer(
    told: Told, watched: Watched, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, nobody = cast(Any, watched), cast(Any, None)
    watch = NotificationWatch(users, nobody, told.publish)
    watched.is_away = True
    await watch.tell(UUID(int=1), UUID(int=2))

    async def hang(_users: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(watched, "find", hang)
    with trio.fail_after(10):
        await watch.tell(UUID(int=1), UUID(int=2))
