"""Notifications: stored, and on their way to the caller's phones, once they are answered; and listed afterwards."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
import trio
from quart import Blueprint, request

from server.auth.tokens import Headers
from server.dialects.bounds import check_passed_on
from server.errors import NotFound, RequestInvalid
from server.guard import caller
from server.notification_texts import (
    JobNotificationWish,
    build_job_notification,
    build_test_notification,
    write_answer,
)
from server.operations import IDEMPOTENCY, operation
from server.services import services
from server.times import show_time, show_time_if_any
from storage.notifications import MAX_LISTED, NewNotification, Notification, Place

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
MAX_KEY = 255
SMALL_BYTES = 32 * 1024
"""A body that is not known to be small is cut in a thread: that may take a tenth of a second."""
UNKNOWN = "you have no such notification; GET /api/notifications lists yours"

_CURSOR = re.compile(r"([0-9]{1,16})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

blueprint = Blueprint("notifications", __name__, url_prefix="/api/notifications")


class NotificationSentAnswer(msgspec.Struct, rename="camel"):
    """The notification is stored; `sentCount` is how many devices it is on its way to."""

    success: bool
    sent_count: int
    failed_count: int
    message: str


class NotificationAnswer(msgspec.Struct, rename="camel"):
    """`customData` is for apps. Times are UTC; `readAt` is null as long as it is unread."""

    id: UUID
    kind: str
    job_id: str | None
    title: str
    body: str
    custom_data: Mapping[str, Any]
    created_at: str
    read_at: str | None


class NotificationsAnswer(msgspec.Struct, rename="camel"):
    """`unreadCount` is of all notifications, not of those shown. `nextCursor` is the next page's `before`, null on the
    last one.
    """

    notifications: Sequence[NotificationAnswer]
    unread_count: int
    next_cursor: str | None


class NotificationsQuery(msgspec.Struct, rename="camel"):
    """`before` is a page's `nextCursor`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    before: Annotated[str, msgspec.Meta(pattern=f"^{_CURSOR.pattern}$")] | None = None
    unread_only: bool = False


class NotificationsReadWish(msgspec.Struct):
    """Which of your notifications are read now, by their ids, or all; those of nobody are passed over."""

    ids: Annotated[list[UUID], msgspec.Meta(max_length=MAX_LISTED)] | None = None
    all: bool = False


class NotificationsReadAnswer(msgspec.Struct):
    """How many had not been read before."""

    updated: int


class NotificationsDeletedAnswer(msgspec.Struct):
    """How many there were."""

    deleted: int


@blueprint.post("/job-completed")
@operation("Tell your phones that a job is done", headers=IDEMPOTENCY)
async def tell_completed(body: JobNotificationWish) -> NotificationSentAnswer:
    """Answered once it is stored; it is delivered within a day, or not at all."""
    return await _notify(await _build("job_completed", body))


@blueprint.post("/job-failed")
@operation("Tell your phones that a job has failed", headers=IDEMPOTENCY)
async def tell_failed(body: JobNotificationWish) -> NotificationSentAnswer:
    """Answered once it is stored; it is delivered within a day, or not at all."""
    return await _notify(await _build("job_failed", body))


@blueprint.post("/job-progress")
@operation("Wake the apps on your phones", headers=IDEMPOTENCY)
async def tell_progress(body: JobNotificationWish) -> NotificationSentAnswer:
    """Nothing is shown or listed; `title` and `body` are dropped. It is delivered within ten minutes, or not at all."""
    return await _notify(await _build("job_progress", body))


@blueprint.post("/test")
@operation("See whether notifications reach your phones", headers=IDEMPOTENCY)
async def tell_test() -> NotificationSentAnswer:
    apns = services().push.settings.apns
    environment = None if apns is None else apns.environment
    return await _notify(build_test_notification(environment, datetime.now(UTC)))


@blueprint.get("")
@operation("List your notifications")
async def show(query: NotificationsQuery) -> NotificationsAnswer:
    """The newest first. Kept are the last 500, for 90 days."""
    user_id, notifications = caller().user_id, services().push.notifications
    found = await notifications.list(
        user_id, limit=query.limit + 1, before=read_cursor(query.before), only_unread=query.unread_only
    )
    shown = found[: query.limit]
    unread = await notifications.count_unread(user_id)
    next_cursor = show_cursor(shown[-1]) if len(found) > query.limit else None
    return NotificationsAnswer([_describe(notification) for notification in shown], unread, next_cursor)


@blueprint.post("/read")
@operation("Mark notifications as read")
async def mark_read(body: NotificationsReadWish) -> NotificationsReadAnswer:
    """Those whose ids are given, or all. Safe to repeat."""
    if (body.ids is None) is not body.all:
        raise RequestInvalid('the body: either {"ids": […]} or {"all": true}')
    return NotificationsReadAnswer(await services().push.notifications.mark_read(caller().user_id, body.ids))


@blueprint.post("/<uuid:notification_id>/read")
@operation("Mark a notification as read")
async def mark_one_read(notification_id: UUID) -> NotificationsReadAnswer:
    """Safe to repeat."""
    return NotificationsReadAnswer(await services().push.notifications.mark_read(caller().user_id, [notification_id]))


@blueprint.delete("/<uuid:notification_id>")
@operation("Delete a notification")
async def delete_one(notification_id: UUID) -> None:
    """It reaches no further device either."""
    if not await services().push.notifications.delete(caller().user_id, [notification_id]):
        raise NotFound(UNKNOWN)


@blueprint.delete("")
@operation("Delete all your notifications")
async def delete_all() -> NotificationsDeletedAnswer:
    """They reach no further device either."""
    return NotificationsDeletedAnswer(await services().push.notifications.delete(caller().user_id, None))


def read_key(headers: Headers) -> str | None:
    """Raises RequestInvalid."""
    key = headers.get("Idempotency-Key") or None
    if key is not None and (len(key) > MAX_KEY or not key.isprintable()):
        raise RequestInvalid(f"Idempotency-Key: at most {MAX_KEY} printable characters")
    return key


def show_cursor(notification: Notification) -> str:
    """The place of the last one shown: microseconds since 1970, and its id."""
    return f"{(notification.created_at - _EPOCH) // _MICROSECOND}-{notification.id}"


def read_cursor(text: str | None) -> Place | None:
    """Raises RequestInvalid: the query's own pattern lets a line feed pass at the end."""
    if text is None:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise RequestInvalid("before: must be the nextCursor of a page")
    return Place(_EPOCH + int(found[1]) * _MICROSECOND, UUID(found[2]))


async def _build(kind: str, body: JobNotificationWish) -> NewNotification:
    check_passed_on(body.custom_data, "customData")
    build = partial(build_job_notification, kind, body, datetime.now(UTC))
    is_small = request.content_length is not None and request.content_length <= SMALL_BYTES
    return build() if is_small else await trio.to_thread.run_sync(build)


async def _notify(notification: NewNotification) -> NotificationSentAnswer:
    push = services().push
    user_id = caller().user_id
    stored = await push.notify(user_id, replace(notification, idempotency_key=read_key(request.headers)))
    if stored.is_new and not notification.is_silent:
        await services().watching.notifications.tell(user_id, stored.id)
    message = write_answer(notification.kind, stored.deliveries, is_configured=bool(push.platforms))
    return NotificationSentAnswer(success=True, sent_count=stored.deliveries, failed_count=0, message=message)


def _describe(notification: Notification) -> NotificationAnswer:
    return NotificationAnswer(
        id=notification.id,
        kind=notification.kind,
        job_id=notification.job_id,
        title=notification.title,
        body=notification.body,
        custom_data=notification.custom_data,
        created_at=show_time(notification.created_at),
        read_at=show_time_if_any(notification.read_at),
    )
