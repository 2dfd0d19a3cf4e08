"""Notifications as the shipped desktop sends them, and as people read them."""

import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.errors import RequestInvalid
from server.notification_texts import JobNotificationWish, build_job_notification
from server.operations import read_query
from server.routes.notifications import MAX_KEY, NotificationsQuery, read_cursor, read_key, show_cursor
from storage.accounts import User
from storage.notifications import NewNotification, Notification, Place
from tests.push_stand_in.keys import BUNDLE_ID, KEY_ID, TEAM_ID, find_apns_key, write_pem
from tests.server.registering import ask, tell_error
from tests.server.served import Answer, Served, build_head, open_served, token_headers
from tests.storage.people import Query

PATH = "/api/notifications"
JOB = {"jobId": "job-1", "title": "Done", "body": "It is done"}
DATA = {
    "type": "job_failed",
    "jobId": "job-1",
    "sessionId": "s",
    "projectDirectory": "/home/me/proj",
    "workflowDefinitionName": "file_finder_workflow",
    "errorMessage": "x" * 100_000 + "\0",
    "failureTime": "2026-02-03T04:05:06.123456+00:00",
}
WORDS = {
    "job-completed": "Notification",
    "job-failed": "Notification",
    "job-progress": "Silent notification",
    "test": "Test notification",
}
APNS = {
    "APNS_TEAM_ID": TEAM_ID,
    "APNS_KEY_ID": KEY_ID,
    "APNS_PRIVATE_KEY": write_pem(find_apns_key()),
    "APNS_BUNDLE_ID": BUNDLE_ID,
    "APNS_SANDBOX_URL": "https://127.0.0.1:1",
    "APNS_PRODUCTION_URL": "https://127.0.0.1:1",
}


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    """Pushes to iOS are on, and nobody sends them: no loops run here."""
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, **APNS) as served:
        yield served


@pytest.fixture
async def silent_server(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    """Without a push service."""
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def tell(served: Served, user: User, kind: str, body: object = None, **headers: str) -> Answer:
    return await ask(served, user, "POST", f"{PATH}/{kind}", body, headers)


async def show(served: Served, user: User, query: str = "") -> Any:
    answer = await ask(served, user, "GET", PATH + query)
    assert answer.status == 200, answer.body
    return answer.json


async def add_phone(served: Served, user: User, platform: str = "ios") -> None:
    body = {"platform": platform, "token": uuid4().hex}
    answer = await ask(served, user, "PUT", "/api/devices/push-token", body, {"X-Device-ID": str(uuid4())})
    assert answer.status == 200, answer.body


# Telling


async def test_what_is_told_is_on_its_way_to_every_phone(served: Served, query: Query) -> None:
    user = await served.make_user()
    for platform in ("ios", "ios", "android"):  # nothing is sent to Android here
        await add_phone(served, user, platform)
    for kind, what in WORDS.items():
        answer = await tell(served, user, kind, None if kind == "test" else JOB)
        assert answer.status == 200, answer.body
        told = {"success": True, "sentCount": 2, "failedCount": 0, "message": f"{what} sent to 2 devices"}
        assert answer.json == told
    rows = query(
        "SELECT kind, job_id, is_silent, extract(epoch FROM deliver_until - created_at)::int FROM notifications"
        " ORDER BY kind"
    )
    day = 24 * 3600
    assert rows == [
        ("job_completed", "job-1", False, day),
        ("job_failed", "job-1", False, day),
        ("job_progress", "job-1", True, 600),
        ("test", None, False, day),
    ]
    assert query("SELECT count(*) FROM notification_deliveries WHERE state = 'due'") == [(8,)]


async def test_a_failure_with_very_much_output_is_told(served: Served) -> None:
    user = await served.make_user()
    assert (await tell(served, user, "job-failed", {**JOB, "customData": DATA})).status == 200
    (shown,) = (await show(served, user))["notifications"]
    assert shown["customData"].pop("errorMessage").startswith("xxx")
    assert shown["customData"].pop("timestamp").endswith("+00:00")
    assert shown["customData"] == {name: value for name, value in DATA.items() if name != "errorMessage"}


async def test_a_body_of_unknown_size_is_cut_where_it_keeps_nobody_waiting(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def build(kind: str, wish: JobNotificationWish, now: datetime) -> NewNotification:
        threads.append(threading.current_thread())
        return build_job_notification(kind, wish, now)

    monkeypatch.setattr("server.routes.notifications.build_job_notification", build)
    user, body = await served.make_user(), json.dumps({**JOB, "customData": DATA}).encode()
    head = build_head("POST", f"{PATH}/job-failed", {**token_headers(user), "Transfer-Encoding": "chunked"})
    assert (await served.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))).status == 200
    assert (await tell(served, user, "job-failed", JOB)).status == 200
    assert [thread is threading.main_thread() for thread in threads] == [False, True]


async def test_without_a_push_service_it_is_stored_and_said_so(silent_server: Served) -> None:
    user = await silent_server.make_user()
    await add_phone(silent_server, user)
    for kind in ("job-completed", "job-failed", "job-progress", "test"):
        answer = await tell(silent_server, user, kind, JOB)
        assert (answer.status, answer.json["success"], answer.json["sentCount"]) == (200, True, 0)
        assert "not configured" in answer.json["message"]
    kinds = [one["kind"] for one in (await show(silent_server, user))["notifications"]]
    assert kinds == ["test", "job_failed", "job_completed"]


async def test_a_test_says_where_it_goes(served: Served) -> None:
    user = await served.make_user()
    await tell(served, user, "test")
    (shown,) = (await show(served, user))["notifications"]
    assert (shown["kind"], shown["jobId"]) == ("test", None)
    assert shown["customData"].keys() == {"test", "timestamp", "environment"}
    assert (shown["customData"]["test"], shown["customData"]["environment"]) == (True, "sandbox")


async def test_what_has_the_same_key_is_told_once(served: Served) -> None:
    user, other = await served.make_user(), await served.make_user("bob@example.com")
    await add_phone(served, user)
    headers = {"Idempotency-Key": str(uuid4())}
    answers = [(await tell(served, user, "job-completed", JOB, **headers)).json for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["sentCount"] == 1
    await tell(served, user, "job-completed", JOB)
    await tell(served, other, "job-completed", JOB, **headers)
    assert (await show(served, user))["unreadCount"] == 2
    assert (await show(served, other))["unreadCount"] == 1


@pytest.mark.parametrize("key", ["x" * (MAX_KEY + 1), "a\tb"])
def test_a_key_that_nobody_needs_is_refused(key: str) -> None:
    assert read_key({"Idempotency-Key": ""}) is None
    assert read_key({"Idempotency-Key": "x" * MAX_KEY}) == "x" * MAX_KEY
    with pytest.raises(RequestInvalid, match="Idempotency-Key"):
        read_key({"Idempotency-Key": key})


async def test_what_is_no_job_is_refused(served: Served) -> None:
    user = await served.make_user()
    deep = b'{"jobId":"1","title":"t","body":"b","customData":' + b"[" * 65 + b"]" * 65 + b"}"
    for body in (None, b"{", {"jobId": "1"}, {**JOB, "jobId": "x" * 256}, {**JOB, "title": None}, deep):
        answer = await tell(served, user, "job-completed", body)
        assert tell_error(answer)[:2] == (400, "validation_error")
    assert (await show(served, user))["notifications"] == []


# Reading


async def test_notifications_are_listed_page_by_page(served: Served) -> None:
    user = await served.make_user()
    for number in range(5):
        await tell(served, user, "job-completed", {**JOB, "jobId": str(number), "customData": {"n": number}})
    pages, query = [], "?limit=2"
    while True:
        page = await show(served, user, query)
        pages.append([shown["jobId"] for shown in page["notifications"]])
        assert page["unreadCount"] == 5
        if page["nextCursor"] is None:
            break
        query = f"?limit=2&before={page['nextCursor']}"
    assert pages == [["4", "3"], ["2", "1"], ["0"]]
    shown = page["notifications"][0]
    assert shown.keys() == {"id", "kind", "jobId", "title", "body", "customData", "createdAt", "readAt"}
    assert (shown["title"], shown["body"], shown["customData"]["n"], shown["readAt"]) == ("Done", "It is done", 0, None)
    assert shown["createdAt"].endswith("Z")


async def test_what_is_read_is_no_more_among_the_unread(served: Served) -> None:
    user = await served.make_user()
    for number in range(4):
        await tell(served, user, "job-completed", {**JOB, "jobId": str(number)})
    ids = [shown["id"] for shown in (await show(served, user))["notifications"]]
    assert (await ask(served, user, "POST", f"{PATH}/{ids[0]}/read")).json == {"updated": 1}
    assert (await ask(served, user, "POST", f"{PATH}/{ids[0]}/read")).json == {"updated": 0}
    body = {"ids": [ids[0], ids[1], str(uuid4())]}
    assert (await ask(served, user, "POST", f"{PATH}/read", body)).json == {"updated": 1}
    unread = await show(served, user, "?unreadOnly=true")
    assert ([shown["jobId"] for shown in unread["notifications"]], unread["unreadCount"]) == (["1", "0"], 2)
    assert (await ask(served, user, "POST", f"{PATH}/read", {"all": True})).json == {"updated": 2}
    everything = await show(served, user)
    assert everything["unreadCount"] == 0
    assert all(shown["readAt"] for shown in everything["notifications"])


async def test_what_does_not_say_what_is_read_is_refused(served: Served) -> None:
    user = await served.make_user()
    many = [str(UUID(int=number)) for number in range(501)]
    for body in ({}, {"all": False}, {"ids": ["x"]}, {"ids": [], "all": True}, {"ids": None}, {"ids": many}):
        answer = await ask(served, user, "POST", f"{PATH}/read", body)
        assert tell_error(answer)[:2] == (400, "validation_error")


async def test_notifications_are_deleted_one_by_one_or_all(served: Served, query: Query) -> None:
    user = await served.make_user()
    await add_phone(served, user)
    for kind in ("job-completed", "job-failed", "job-completed", "job-progress"):
        await tell(served, user, kind, JOB)
    one = (await show(served, user))["notifications"][0]["id"]
    assert (await ask(served, user, "DELETE", f"{PATH}/{one}")).status == 204
    again = await ask(served, user, "DELETE", f"{PATH}/{one}")
    assert (again.status, again.json["error_type"]) == (404, "not_found")
    assert (await ask(served, user, "DELETE", PATH)).json == {"deleted": 2}
    assert (await show(served, user))["notifications"] == []
    left = "SELECT kind FROM notification_deliveries JOIN notifications ON notifications.id = notification_id"
    assert query(left) == [("job_progress",)]


async def test_nobody_sees_marks_or_deletes_the_notifications_of_others(served: Served) -> None:
    ann, bob = await served.make_user(), await served.make_user("bob@example.com")
    await tell(served, ann, "job-completed", JOB)
    (shown,) = (await show(served, ann))["notifications"]
    assert await show(served, bob) == {"notifications": [], "unreadCount": 0, "nextCursor": None}
    for body in ({"ids": [shown["id"]]}, {"all": True}):
        assert (await ask(served, bob, "POST", f"{PATH}/read", body)).json == {"updated": 0}
    assert (await ask(served, bob, "POST", f"{PATH}/{shown['id']}/read")).json == {"updated": 0}
    assert (await ask(served, bob, "DELETE", f"{PATH}/{shown['id']}")).status == 404
    assert (await ask(served, bob, "DELETE", PATH)).json == {"deleted": 0}
    assert (await show(served, ann))["notifications"] == [shown]


@pytest.mark.parametrize("microseconds", [0, 1, 123456, 999999])
def test_a_cursor_names_its_place_exactly(microseconds: int) -> None:
    at = datetime(2026, 2, 3, 4, 5, 6, microseconds, tzinfo=UTC)
    notification = Notification(uuid4(), "test", None, "", "", {}, at, None)
    assert read_cursor(show_cursor(notification)) == Place(at, notification.id)
    assert read_cursor(None) is None
    with pytest.raises(RequestInvalid, match="before"):
        read_cursor(show_cursor(notification) + "\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "x"),
        ("before", "x"),
        ("before", f"1-{UUID(int=1)}x"),
        ("before", "9" * 16),
        ("before", f"{'9' * 17}-{UUID(int=1)}"),
        ("unreadOnly", "2"),
    ],
)
def test_a_query_that_asks_for_something_else_is_refused(name: str, value: str) -> None:
    with pytest.raises(RequestInvalid, match=name):
        read_query({name: value}, NotificationsQuery)


def test_the_last_moment_that_a_cursor_can_name_is_one() -> None:
    query = read_query({"before": f"{'9' * 16}-{UUID(int=1)}"}, NotificationsQuery)
    assert read_cursor(query.before) == Place(datetime(2286, 11, 20, 17, 46, 39, 999999, tzinfo=UTC), UUID(int=1))
