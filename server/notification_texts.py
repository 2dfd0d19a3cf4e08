"""Notifications as clients write them, brought into what can be stored and pushed. Long texts are cut, never refused: a
desktop that failed with a megabyte of output has still failed. Pure.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from server.push.fitting import ELLIPSIS, fit_strings
from storage.notifications import NewNotification

MAX_JOB_ID = 255
MAX_TITLE = 255
MAX_BODY = 4000
MAX_CUSTOM_DATA_BYTES = 32 * 1024
MAX_NUMBER = 2**63 - 1
"""PostgreSQL writes a larger one out in full, and readers of JSON stumble over its digits."""
DELIVER_WITHIN_SECONDS = 24 * 3600.0
WAKE_WITHIN_SECONDS = 600.0
"""What only wakes apps is of no use later."""
JOB_PROGRESS = "job_progress"
TEST_TITLE = "Test notification"
TEST_BODY = "Notifications reach this device."


class JobNotificationWish(msgspec.Struct, rename="camel"):
    """What phones are to say of a job. `customData` is for apps: any JSON. Long texts are cut."""

    job_id: Annotated[str, msgspec.Meta(max_length=MAX_JOB_ID)]
    title: str
    body: str
    custom_data: Any = None


def build_job_notification(kind: str, wish: JobNotificationWish, now: datetime) -> NewNotification:
    """Of progress nothing is shown, so its texts are dropped."""
    is_silent = kind == JOB_PROGRESS
    return NewNotification(
        kind=kind,
        job_id=clean_text(wish.job_id),
        title="" if is_silent else cut(clean_text(wish.title), MAX_TITLE),
        body="" if is_silent else cut(clean_text(wish.body), MAX_BODY),
        custom_data=build_custom_data(wish.custom_data, now),
        is_silent=is_silent,
        deliver_within_seconds=WAKE_WITHIN_SECONDS if is_silent else DELIVER_WITHIN_SECONDS,
    )


def build_test_notification(environment: str | None, now: datetime) -> NewNotification:
    """`environment` is where APNs is asked first; None if it is not configured."""
    found = {} if environment is None else {"environment": environment}
    return NewNotification(
        kind="test",
        job_id=None,
        title=TEST_TITLE,
        body=TEST_BODY,
        custom_data={"test": True, "timestamp": show_moment(now)} | found,
        is_silent=False,
        deliver_within_seconds=DELIVER_WITHIN_SECONDS,
    )


def build_custom_data(given: Any, now: datetime) -> dict[str, Any]:
    """An object with a `timestamp`; what is no object is its `data`."""
    found = given if isinstance(given, dict) else {} if given is None else {"data": given}
    stamp = {} if "timestamp" in found else {"timestamp": show_moment(now)}
    return fit_strings({**clean(found), **stamp}, MAX_CUSTOM_DATA_BYTES)


def show_moment(at: datetime) -> str:
    """RFC 3339 with the offset of UTC, as this member always was."""
    return at.isoformat()


def write_answer(kind: str, deliveries: int, *, is_configured: bool) -> str:
    """For people who look into logs: no client reads it."""
    what = {JOB_PROGRESS: "Silent notification", "test": "Test notification"}.get(kind, "Notification")
    if not is_configured:
        return f"{what} stored, and sent to 0 devices: push is not configured on this server"
    return f"{what} sent to {deliveries} devices"


def clean(value: Any) -> Any:
    """JSON as PostgreSQL can keep it, and every reader can read it again."""
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(name): clean(member) for name, member in value.items()}
        case list():
            return [clean(member) for member in value]
        case int() | float() if abs(value) > MAX_NUMBER:
            return str(value)
    return value


def clean_text(text: str) -> str:
    """Without NUL, which PostgreSQL does not keep, and halves of surrogate pairs, which UTF-8 does not."""
    return text.replace("\0", "").encode(errors="replace").decode()


def cut(text: str, most: int) -> str:
    """Characters."""
    return text if len(text) <= most else text[: most - len(ELLIPSIS)] + ELLIPSIS
