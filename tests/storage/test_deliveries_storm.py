"""Deliveries claimed and noted while users, tokens and notifications come and go: no deadlock, nothing sent twice."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest
import trio
from psycopg import errors

from storage.credits import UserUnknown
from storage.deliveries import Deliveries, Delivery, Ended, Gone, Key, Note, PutOff
from storage.errors import DatabaseUnavailable
from storage.notifications import NewNotification, Notifications
from storage.postgres import Database, open_database
from storage.push_tokens import PushTokens

SECONDS = 1.5
USERS = 4
NEWS = NewNotification("job_completed", "j", "t", "b", {}, is_silent=False, deliver_within_seconds=3600)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=12) as database:
        yield database


class Storm:
    """Everybody does what he does until time is up; `done` counts it. What is a deadlock is kept."""

    def __init__(self, database: Database) -> None:
        self.users = [uuid4() for _ in range(USERS)]
        self.devices = [uuid4() for _ in range(3)]
        self.done: Counter[str] = Counter()
        self.deadlocks: list[str] = []
        self.taken: set[Key] = set()
        self.sent_twice: list[Key] = []
        self._random = random.Random(7)  # noqa: S311 - not for secrets
        self._database = database
        self._deliveries = Deliveries(database)
        self._tokens = PushTokens(database)
        self._notifications = Notifications(database)

    async def keep_on(self, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await act()
                self.done[act.__name__] += 1
            except UserUnknown:
                await trio.lowlevel.checkpoint()
            except DatabaseUnavailable as error:
                if isinstance(error.__cause__, errors.DeadlockDetected):
                    self.deadlocks.append(act.__name__)

    async def save(self) -> None:
        """A token is brought by another device, another user, or the same once more."""
        token = f"token-{self._random.randrange(USERS * 2)}"
        await self._tokens.save(self._choose_user(), self._random.choice(self.devices), "ios", token)

    async def store(self) -> None:
        await self._notifications.store(self._choose_user(), NEWS, {"ios"})

    async def delete_notifications(self) -> None:
        await trio.sleep(0.02)
        await self._notifications.delete(self._choose_user(), None)

    async def delete_account(self) -> None:
        await trio.sleep(0.05)
        user_id = self._choose_user()
        async with self._database.as_operator("delete an account").transaction() as connection:
            await connection.send(connection.bind("DELETE FROM users WHERE id = %s", [user_id]))
        await self.make_account(user_id)

    async def make_account(self, user_id: UUID) -> None:
        insert = "INSERT INTO users (id, email) VALUES (%s, %s)"
        await self._database.as_operator("make an account").fetch(insert, [user_id, f"{user_id}@example.com"])

    async def deliver(self) -> None:
        batch = await self._deliveries.claim_due("ios", 20, 60)
        notes: list[Note] = [self._answer(delivery) for delivery in batch]
        while notes:
            locked = await self._deliveries.note(notes)
            notes = [note for note in notes if note.delivery.key in locked]

    def _answer(self, delivery: Delivery) -> Note:
        match self._random.randrange(10):
            case 0:
                return Gone(delivery, delivery.claimed_at, 0, "Unregistered")
            case 1 | 2:
                return PutOff(delivery, 0, "ServiceUnavailable")
        if delivery.key in self.taken:
            self.sent_twice.append(delivery.key)
        self.taken.add(delivery.key)
        return Ended(delivery, "sent", environment="sandbox")

    def _choose_user(self) -> UUID:
        return self._random.choice(self.users)


async def test_in_a_storm_nobody_is_in_a_deadlock_and_nothing_is_sent_twice(database: Database) -> None:
    storm = Storm(database)
    for user_id in storm.users:
        await storm.make_account(user_id)
    actors = [*[storm.deliver] * 4, *[storm.save] * 2, *[storm.store] * 2]
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + SECONDS
        for actor in (*actors, storm.delete_notifications, storm.delete_account):
            nursery.start_soon(storm.keep_on, actor)
    assert storm.deadlocks == []
    assert storm.sent_twice == []
    assert len(storm.taken) > 100
    assert storm.done.keys() == {actor.__name__ for actor in actors} | {"delete_notifications", "delete_account"}
