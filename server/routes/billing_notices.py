"""What users are told about money: their spending, their top-offs, their debts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from quart import Blueprint, Response, request

from server.billing.notice_texts import write_notice
from server.billing.wire import encode, read_body, read_page
from server.errors import RequestInvalid
from server.guard import access, caller
from server.services import services
from storage.billing_notices import BillingNotice

MAX_IDS = 1000

blueprint = Blueprint("billing_notices", __name__, url_prefix="/api/billing/notices")


class _Notice(msgspec.Struct, rename="camel"):
    """`message` is for people, `details` for programs: amounts in US dollars in strings. Times are UTC."""

    id: UUID
    kind: str
    message: str | None
    details: Mapping[str, Any]
    created_at: datetime
    read_at: datetime | None


class _Notices(msgspec.Struct, rename="camel"):
    notices: Sequence[_Notice]
    unread_count: int
    has_more: bool


class _Read(msgspec.Struct):
    """Which of the caller's notices are read now; those of nobody are passed over."""

    ids: list[UUID] | Literal["all"]


@blueprint.get("")
async def show() -> Response:
    """`?limit=20&offset=0&unread=false`, the newest first. A limit out of 1 to 100 is taken for the nearest of them."""
    page, only_unread = read_page(request.args), read_unread(request.args)
    notices = services().billing.notices
    user_id = caller().user_id
    found = await notices.list(user_id, limit=page.limit + 1, offset=page.offset, only_unread=only_unread)
    shown = [_describe(notice) for notice in found[: page.limit]]
    unread = await notices.count_unread(user_id)
    return _as_json(_Notices(shown, unread, has_more=len(found) > page.limit))


@blueprint.post("/read")
@access(is_for_people=True)
async def mark_read() -> Response:
    """`{"ids": […]}`, or `{"ids": "all"}`. Safe to repeat; tells how many had not been read."""
    ids = read_ids(await request.get_data(cache=False, as_text=False, parse_form_data=False))
    return _as_json({"updated": await services().billing.notices.mark_read(caller().user_id, ids)})


def read_unread(query: Mapping[str, str]) -> bool:
    """Raises RequestInvalid."""
    text = query.get("unread", "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise RequestInvalid("unread: true or false")
    return text in {"true", "1"}


def read_ids(body: bytes) -> Sequence[UUID] | None:
    """None: all. Raises RequestInvalid."""
    ids = read_body(body, _Read).ids
    if ids == "all":
        return None
    if len(ids) > MAX_IDS:
        raise RequestInvalid(f"ids: at most {MAX_IDS}")
    return ids


def _describe(notice: BillingNotice) -> _Notice:
    return _Notice(
        notice.id,
        notice.kind,
        write_notice(notice.kind, notice.details),
        notice.details,
        notice.created_at,
        notice.read_at,
    )


def _as_json(body: Any) -> Response:
    return Response(encode(body), content_type="application/json")
