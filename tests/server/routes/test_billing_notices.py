"""Notices as clients read them."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from server.errors import RequestInvalid
from server.operations import decode_body
from server.routes.billing_notices import MAX_IDS, NoticesReadWish, read_unread
from storage.billing_notices import BillingNotices
from tests.server.served import Served, open_served, token_headers

PATH = "/api/billing/notices"


def read_ids(body: bytes) -> object:
    return decode_body(body, NoticesReadWish).ids


@pytest.mark.parametrize(("text", "is_wanted"), [("true", True), ("1", True), ("False", False), ("0", False)])
def test_the_unread_alone_may_be_asked_for(text: str, is_wanted: bool) -> None:
    assert read_unread({"unread": text}) is is_wanted
    assert not read_unread({})


def test_a_query_that_says_something_else_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="unread"):
        read_unread({"unread": "perhaps"})


def test_notices_are_named_one_by_one_or_all() -> None:
    one = uuid4()
    assert read_ids(msgspec.json.encode({"ids": [one]})) == [one]
    assert read_ids(b'{"ids": "all"}') == "all"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ids": null}', b'{"ids": "every"}', b'{"ids": ["x"]}', b"[]", b"\xff"])
def test_what_names_no_notices_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        read_ids(body)


def test_more_ids_than_anybody_reads_are_refused() -> None:
    ids = [UUID(int=number) for number in range(MAX_IDS + 1)]
    with pytest.raises(RequestInvalid, match="ids"):
        read_ids(msgspec.json.encode({"ids": ids}))


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def test_notices_are_listed_read_and_counted(served: Served) -> None:
    user = await served.make_user()
    headers = token_headers(user)
    notices = BillingNotices(served.services.database)
    for number in range(3):
        await notices.add(user.id, "debt", f"debt:{number}", {"debtUsd": f"{number}.5"})
    first = await served.ask("GET", f"{PATH}?limit=2", headers)
    assert first.status == 200
    assert (first.json["unreadCount"], first.json["hasMore"]) == (3, True)
    last = (await served.ask("GET", f"{PATH}?limit=2&offset=1", headers)).json
    assert (len(last["notices"]), last["hasMore"]) == (2, False)
    newest = first.json["notices"][0]
    assert set(newest) == {"id", "kind", "message", "details", "createdAt", "readAt"}
    assert (newest["kind"], newest["details"], newest["readAt"]) == ("debt", {"debtUsd": "2.5"}, None)
    assert newest["message"].startswith("Your balance is below zero by 2.50 USD")
    assert newest["createdAt"].endswith("Z")
    read = await served.ask("POST", f"{PATH}/read", headers, msgspec.json.encode({"ids": [newest["id"]]}))
    assert (read.status, read.json) == (200, {"updated": 1})
    unread = await served.ask("GET", f"{PATH}?unread=true", headers)
    assert [notice["details"]["debtUsd"] for notice in unread.json["notices"]] == ["1.5", "0.5"]
    assert (unread.json["unreadCount"], unread.json["hasMore"]) == (2, False)
    assert (await served.ask("POST", f"{PATH}/read", headers, b'{"ids": "all"}')).json == {"updated": 2}
    assert (await served.ask("GET", PATH, headers)).json["unreadCount"] == 0


async def test_nobody_sees_or_reads_the_notices_of_others(served: Served) -> None:
    ann, bob = await served.make_user(), await served.make_user("bob@example.com")
    notices = BillingNotices(served.services.database)
    await notices.add(ann.id, "debt", "debt", {})
    (notice,) = await notices.list(ann.id, limit=9)
    headers = token_headers(bob)
    assert (await served.ask("GET", PATH, headers)).json == {"notices": [], "unreadCount": 0, "hasMore": False}
    body = msgspec.json.encode({"ids": [notice.id]})
    assert (await served.ask("POST", f"{PATH}/read", headers, body)).json == {"updated": 0}
    assert await notices.count_unread(ann.id) == 1
