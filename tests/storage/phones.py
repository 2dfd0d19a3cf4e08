"""Phones that notifications are on their way to, for tests; made by the superuser, whatever the routes do."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from storage.push_tokens import PushPlatform
from tests.storage.people import Query


@dataclass(frozen=True, slots=True)
class Phones:
    query: Query

    def make_user(self) -> UUID:
        user_id = uuid4()
        self.query("INSERT INTO users (id, email) VALUES (%s, %s)", user_id, f"{user_id}@example.com")
        return user_id

    def make_token(
        self, user_id: UUID | None = None, platform: PushPlatform = "ios", registered: str = "1 hour"
    ) -> UUID:
        """On a device of its own. `registered`: so long ago."""
        user_id, device_id, token_id = user_id or self.make_user(), uuid4(), uuid4()
        self.query("INSERT INTO devices (user_id, device_id) VALUES (%s, %s)", user_id, device_id)
        self.query(
            "INSERT INTO push_tokens (id, user_id, device_id, platform, token, registered_at)"
            " VALUES (%s, %s, %s, %s, %s, now() - %s::interval)",
            *(token_id, user_id, device_id, platform, f"token-{token_id}", registered),
        )
        return token_id

    def notify(
        self, *token_ids: UUID, kind: str = "job_completed", ago: str = "0 seconds", within: str = "1 day"
    ) -> UUID:
        """One notification of the first token's user to all of these, stored so long ago."""
        ((notification_id,),) = self.query(
            "INSERT INTO notifications"
            " (user_id, kind, job_id, title, body, custom_data, is_silent, created_at, deliver_until)"
            " SELECT user_id, %s, 'job-1', 'the title', 'the body', '{\"type\": \"job_completed\"}', false,"
            " now() - %s::interval, now() - %s::interval + %s::interval"
            " FROM push_tokens WHERE id = %s RETURNING id",
            *(kind, ago, ago, within, token_ids[0]),
        )
        for token_id in token_ids:
            self._deliver(notification_id, token_id, ago)
        return UUID(str(notification_id))

    def notify_often(self, count: int, *token_ids: UUID) -> None:
        """So many notifications to each of these."""
        for token_id in token_ids:
            self.query(
                "WITH made AS (INSERT INTO notifications (user_id, kind, title, body, is_silent, deliver_until)"
                " SELECT user_id, 'test', '', '', false, now() + interval '1 day'"
                " FROM push_tokens, generate_series(1, %s) WHERE id = %s RETURNING id, user_id)"
                " INSERT INTO notification_deliveries (notification_id, token_id, user_id, platform)"
                " SELECT made.id, push_tokens.id, made.user_id, platform FROM made, push_tokens"
                " WHERE push_tokens.id = %s RETURNING 1",
                *(count, token_id, token_id),
            )

    def read(self, columns: str = "state, attempts, reason") -> list[tuple[Any, ...]]:
        return self.query(
            f"SELECT {columns} FROM notification_deliveries ORDER BY created_at"  # noqa: S608 - the tests' own words
        )

    def has_token(self, token_id: UUID) -> bool:
        return bool(self.query("SELECT 1 FROM push_tokens WHERE id = %s", token_id))

    def end_leases(self) -> None:
        self.query("UPDATE notification_deliveries SET next_attempt_at = now() WHERE state = 'due'")

    def _deliver(self, notification_id: UUID, token_id: UUID, ago: str) -> None:
        self.query(
            "INSERT INTO notification_deliveries"
            " (notification_id, token_id, user_id, platform, created_at, next_attempt_at)"
            " SELECT %s, id, user_id, platform, now() - %s::interval, now() - %s::interval"
            " FROM push_tokens WHERE id = %s",
            *(notification_id, ago, ago, token_id),
        )
