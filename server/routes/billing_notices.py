"""What users are told about money: their spending, their top-offs, their debts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from quart import Blueprint, request

from server.billing.notice_texts import write_notice
from server.billing.wire import PageQuery, read_page
from server.errors import RequestInvalid
from server.guard import access, caller
from server.operations import operation
from server.services import services
from storage.billing_notices import BillingNotice

MAX_IDS = 1000

blueprint = Blueprint("billing_notices", __name__, url_prefix="/api/billing/notices")


class NoticeAnswer(msgspec.Struct, rename="camel"):
    """`message` is for people, `details` for programs: amounts in US dollars in strings. Times are UTC."""

    id: UUID
    kind: str
    message: str | None
    details: Mapping[str, Any]
    created_at: datetime
    read_at: datetime | None


class NoticesAnswer(msgspec.Struct, rename="camel"):
    """`unreadCount` is of all notices, not of those shown."""

    notices: Sequence[NoticeAnswer]
    unread_count: int
    has_more: bool


class NoticesQuery(PageQuery):
    """The same, of those alone that are not read yet, if that is asked for."""

    unread: bool = False


class NoticesReadWish(msgspec.Struct):
    """Which of your notices are read now; those of nobody are passed over."""

    ids: Annotated[list[UUID], msgspec.Meta(max_length=MAX_IDS)] | Literal["all"]


class NoticesReadAnswer(msgspec.Struct):
    """How many had not been read before."""

    updated: int


@blueprint.get("")
@operation("List your notices about money", query=NoticesQuery)
async def show() -> NoticesAnswer:
    """The newest first. A limit out of its bounds is taken for the nearest in them."""
    query = read_query(request.args)
    notices = services().billing.notices
    user_id = caller().user_id
    found = await notices.list(user_id, limit=query.limit + 1, offset=query.offset, only_unread=query.unread)
    shown = [_describe(notice) for notice in found[: query.limit]]
    unread = await notices.count_unread(user_id)
    return NoticesAnswer(shown, unread, has_more=len(found) > query.limit)


@blueprint.post("/read")
@access(is_for_people=True)
@operation("Mark notices as read")
async def mark_read(body: NoticesReadWish) -> NoticesReadAnswer:
    """Those whose ids are given, or `"all"`. Safe to repeat."""
    ids = None if body.ids == "all" else body.ids
    return NoticesReadAnswer(await services().billing.notices.mark_read(caller().user_id, ids))


def read_query(arguments: Mapping[str, str]) -> NoticesQuery:
    """Brought into its bounds. Raises RequestInvalid."""
    page = read_page(arguments)
    return NoticesQuery(page.limit, page.offset, read_unread(arguments))


def read_unread(query: Mapping[str, str]) -> bool:
    """Raises RequestInvalid."""
    text = query.get("unread", "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise RequestInvalid("unread: true or false")
    return text in {"true", "1"}


def _describe(notice: BillingNotice) -> NoticeAnswer:
    return NoticeAnswer(
        notice.id,
        notice.kind,
        write_notice(notice.kind, notice.details),
        notice.details,
        notice.created_at,
        notice.read_at,
    )
