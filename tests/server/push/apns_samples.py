"""An app with a key of its own, and pushes for it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from server.push.settings import APNS_PRODUCTION_URL, APNS_SANDBOX_URL, ApnsSettings
from storage.deliveries import Delivery
from storage.push_tokens import PushEnvironment
from tests.push_stand_in.keys import BUNDLE_ID, KEY_ID, TEAM_ID, find_apns_key, write_pem

TOKEN = "0a" * 32
NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


def build_settings(environment: PushEnvironment = "production") -> ApnsSettings:
    return ApnsSettings(
        team_id=TEAM_ID,
        key_id=KEY_ID,
        private_key=write_pem(find_apns_key()),
        bundle_id=BUNDLE_ID,
        environment=environment,
        production_url=APNS_PRODUCTION_URL,
        sandbox_url=APNS_SANDBOX_URL,
    )


def build_delivery(
    kind: str = "job_completed",
    *,
    token: str = TOKEN,
    environment: PushEnvironment | None = None,
    job_id: str | None = "job-1",
    title: str = "Done",
    body: str = "Your plan is ready.",
    custom_data: dict[str, Any] | None = None,
    is_silent: bool = False,
) -> Delivery:
    return Delivery(
        notification_id=UUID(int=1),
        token_id=UUID(int=2),
        push_id=UUID("123e4567-e89b-12d3-a456-426614174000"),
        user_id=UUID(int=3),
        platform="ios",
        token=token,
        environment=environment,
        attempts=1,
        kind=kind,
        job_id=job_id,
        title=title,
        body=body,
        custom_data=custom_data or {},
        is_silent=is_silent,
        created_at=NOW,
        deliver_until=NOW + timedelta(hours=24),
    )
