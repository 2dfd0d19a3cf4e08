"""Legal documents and consents as clients ask for them."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from server.routes.consent import ConsentCountAnswer, write_csv
from storage.accounts import User
from tests.server.served import Answer, Served, open_served, token_headers
from tests.storage.documents import build_document, write_documents

DOCUMENTS = (
    build_document("terms", "2025-08-12"),
    build_document("terms", "2024-01-01", date(2024, 1, 1)),
    build_document("terms", "2999-01-01", date(2999, 1, 1), material=True),
    build_document("privacy", "2025-08-12", material=True),
    build_document("terms", "us-1", region="us"),
)
WRONG_MEMBERS: tuple[tuple[dict[str, object], str], ...] = (
    ({"region": None}, "validation_error"),
    ({"region": "uk"}, "bad_request"),
    ({"doc_type": None}, "validation_error"),
    ({"doc_type": "cookies"}, "bad_request"),
    ({"doc_type": 1}, "validation_error"),
    ({"metadata": [1]}, "validation_error"),
    ({"metadata": {"text": "x" * 4096}}, "invalid_argument"),
    ({"metadata": {"text": "a\0"}}, "invalid_argument"),
)
PATH = "/api/consent"
REPORT = f"{PATH}/admin/report"


@pytest.fixture
async def served(
    database_url: str, owner_database_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Served]:
    write_documents(owner_database_url, *DOCUMENTS)
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def show(served: Served, headers: dict[str, str], path: str) -> Any:
    answer = await served.ask("GET", f"{PATH}/{path}", headers)
    assert answer.status == 200, answer.body
    return answer.json


async def post(served: Served, headers: dict[str, str], name: str, **members: object) -> Answer:
    wish = {"doc_type": "terms", "region": "eu", **members}
    return await served.ask("POST", f"{PATH}/{name}", headers, json.dumps(wish).encode())


async def list_audited(served: Served) -> list[Any]:
    rows = await served.services.auditor.log.find_latest(None, None, 20)
    return [row.entry for row in rows if row.entry.action.startswith("consent_")]


async def list_events(served: Served) -> list[tuple[Any, ...]]:
    rights = served.services.database.as_operator("test")
    return await rights.fetch(
        "SELECT doc_type, version, action, source, address, user_agent, metadata"
        " FROM user_consent_events ORDER BY created_at"
    )


async def make_admin(served: Served) -> dict[str, str]:
    return token_headers(await served.make_user("root@example.com", "admin"))


async def test_the_documents_in_force_are_shown(served: Served) -> None:
    headers = token_headers(await served.make_user())
    privacy, terms = await show(served, headers, "documents/current?region=EU")
    assert terms == {
        "id": str(DOCUMENTS[0].id),
        "docType": "terms",
        "region": "eu",
        "version": "2025-08-12",
        "effectiveAt": "2025-08-12",
        "url": "/legal/eu/terms",
        "contentHash": None,
        "materialChange": False,
        "createdAt": "2025-01-01T00:00:00.000Z",
        "updatedAt": "2025-01-01T00:00:00.000Z",
    }
    assert (privacy["docType"], privacy["materialChange"]) == ("privacy", True)
    (american,) = await show(served, headers, "documents/current?region=us")
    assert american["version"] == "us-1"


async def test_what_was_accepted_is_shown_until_it_is_withdrawn(served: Served) -> None:
    user, before = await served.make_user(), datetime.now(UTC)
    headers = token_headers(user)
    assert await show(served, headers, "verify?region=eu") == {
        "requiresReconsent": True,
        "missing": ["privacy", "terms"],
        "details": (await show(served, headers, "status?region=eu"))["items"],
    }
    assert ((answer := await post(served, headers, "accept")).status, answer.body) == (204, b"")
    status = await show(served, headers, "status?region=Eu")
    _, terms = status.pop("items")
    assert status == {"userId": str(user.id), "region": "eu", "allConsented": False}
    accepted_at = terms.pop("acceptedAt")
    assert accepted_at.endswith("Z")
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(accepted_at) <= datetime.now(UTC)
    assert terms == {
        "docType": "terms",
        "region": "eu",
        "currentVersion": "2025-08-12",
        "acceptedVersion": "2025-08-12",
        "requiresReconsent": False,
        "effectiveAt": "2025-08-12",
        "url": "/legal/eu/terms",
    }
    assert (await show(served, headers, "verify?region=eu"))["missing"] == ["privacy"]
    assert (await post(served, headers, "accept", doc_type="privacy")).status == 204
    assert (await show(served, headers, "status?region=eu"))["allConsented"] is True
    assert (await show(served, headers, "verify?region=us"))["missing"] == ["terms"]
    assert ((answer := await post(served, headers, "withdraw")).status, answer.body) == (204, b"")
    _, terms = (await show(served, headers, "status?region=eu"))["items"]
    assert (terms["acceptedVersion"], terms["acceptedAt"], terms["requiresReconsent"]) == (None, None, True)


async def test_both_spellings_and_any_case_are_understood(served: Served) -> None:
    headers = token_headers(await served.make_user())
    assert (await post(served, headers, "accept", doc_type=None, docType="TERMS", region="EU")).status == 204
    assert (await post(served, headers, "accept", doc_type="Privacy", docType="terms")).status == 204
    assert (await show(served, headers, "status?region=eu"))["allConsented"] is True
    assert (await post(served, headers, "withdraw", doc_type=None, docType="Terms")).status == 204
    assert [row[:3] for row in await list_events(served)] == [
        ("terms", "2025-08-12", "accepted"),
        ("privacy", "2025-08-12", "accepted"),
        ("terms", "2025-08-12", "withdrawn"),
    ]


async def test_a_repeated_request_is_answered_and_changes_nothing(served: Served) -> None:
    headers = token_headers(await served.make_user())
    assert (await post(served, headers, "withdraw")).status == 204
    assert (await post(served, headers, "accept")).status == 204
    first = await show(served, headers, "status?region=eu")
    assert (await post(served, headers, "accept", metadata={"again": 1})).status == 204
    assert await show(served, headers, "status?region=eu") == first
    assert [(await post(served, headers, "withdraw")).status for _ in range(2)] == [204, 204]
    assert [row[2] for row in await list_events(served)] == ["accepted", "withdrawn"]
    assert [entry.action for entry in await list_audited(served)] == ["consent_accepted", "consent_withdrawn"]


async def test_an_event_and_its_audit_row_say_who_what_and_where(served: Served) -> None:
    user = await served.make_user()
    client = {**token_headers(user), "X-Client-Type": "mobile", "User-Agent": "App/1.3"}
    assert (await post(served, client, "accept", metadata={"locale": "fr"})).status == 204
    assert await list_events(served) == [
        ("terms", "2025-08-12", "accepted", "mobile", "127.0.0.1", "App/1.3", {"locale": "fr"})
    ]
    (entry,) = await list_audited(served)
    assert (entry.action, entry.status, entry.actor, entry.subject_id) == (
        *("consent_accepted", "success", f"user:{user.id}"),
        user.id,
    )
    assert (entry.entity_type, entry.entity_id) == ("legal_document", "terms:eu")
    assert entry.details == {"version": "2025-08-12", "source": "mobile"}


async def test_an_api_key_agrees_as_its_owner_and_is_named(served: Served) -> None:
    user = await served.make_user()
    made = await served.ask("POST", "/api/auth/api-keys", token_headers(user), b'{"label": "laptop"}')
    key = {"X-API-Key": made.json["key"]}
    assert (await post(served, {**key, "X-Client-Type": "desktop"}, "accept")).status == 204
    assert (await show(served, token_headers(user), "verify?region=eu"))["missing"] == ["privacy"]
    ((_, _, _, source, *_),) = await list_events(served)
    (entry,) = await list_audited(served)
    assert (source, entry.actor, entry.subject_id) == ("api", f"api_key:{made.json['id']}", user.id)


async def test_nobody_agrees_for_somebody_else(served: Served) -> None:
    user, other = await served.make_user(), await served.make_user("bob@example.com")
    members = {"user_id": str(other.id), "userId": str(other.id)}
    assert (await post(served, token_headers(user), "accept", **members)).status == 204
    assert (await show(served, token_headers(other), "verify?region=eu"))["missing"] == ["privacy", "terms"]
    assert (await show(served, token_headers(user), "verify?region=eu"))["missing"] == ["privacy"]


async def test_what_is_not_of_the_form_is_refused_in_the_envelope(served: Served) -> None:
    headers = token_headers(await served.make_user())
    for members, error_type in WRONG_MEMBERS:
        for name in ("accept", "withdraw"):
            answer = await post(served, headers, name, **members)
            assert (answer.status, answer.json["errorType"], answer.json["code"]) == (400, error_type, 400), members
    for body in (b"", b"[]", b"{", b'{"region": "eu", "metadata": ' + b"[" * 5000):
        answer = await served.ask("POST", f"{PATH}/accept", headers, body)
        assert (answer.status, answer.json["error_type"]) == (400, "validation_error"), body
    assert await list_events(served) == []


async def test_a_region_is_asked_for_in_the_envelope(served: Served) -> None:
    headers = token_headers(await served.make_user())
    expected = {"": "validation_error", "?region=": "validation_error", "?region=uk": "bad_request"}
    for path in ("documents/current", "status", "verify"):
        for query, error_type in expected.items():
            answer = await served.ask("GET", f"{PATH}/{path}{query}", headers)
            assert (answer.status, answer.json["error_type"]) == (400, error_type)
            assert "region" in answer.json["message"]


async def test_a_document_that_is_not_in_force_is_not_found(served: Served) -> None:
    headers = token_headers(await served.make_user())
    for name in ("accept", "withdraw"):
        answer = await post(served, headers, name, doc_type="privacy", region="us")
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")


async def test_two_who_accept_at_once_are_both_answered(served: Served) -> None:
    headers, answers = token_headers(await served.make_user()), []

    async def accept() -> None:
        answers.append((await post(served, headers, "accept")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(accept)
    assert answers == [204] * 6
    assert len(await list_events(served)) == len(await list_audited(served)) == 1


async def test_who_deletes_the_account_meanwhile_is_never_told_of_a_fault(served: Served) -> None:
    headers, statuses = token_headers(await served.make_user()), set()

    async def act(name: str) -> None:
        statuses.add((await post(served, headers, name)).status)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(act, ("accept", "withdraw")[number % 2])
            if number == 6:
                nursery.start_soon(served.ask, "DELETE", "/api/auth/account", headers)
    assert statuses <= {204, 401, 404}
    assert await list_events(served) == []


async def ask_report(served: Served, headers: dict[str, str], query: str = "") -> Answer:
    return await served.ask("GET", f"{REPORT}?{query}", headers)


async def accept_all(served: Served, *users: User) -> None:
    for user in users:
        for doc_type in ("terms", "privacy"):
            assert (await post(served, token_headers(user), "accept", doc_type=doc_type)).status == 204


def build_row(
    doc_type: str | None, region: str | None, version: str | None, accepted: int, rate: str
) -> dict[str, object]:
    return {
        "doc_type": doc_type,
        "region": region,
        "version": version,
        "accepted_count": accepted,
        "total_count": 3,
        "acceptance_rate": rate,
    }


async def test_the_report_counts_by_region_by_type_or_by_document(served: Served) -> None:
    admin, ann, bob = await make_admin(served), await served.make_user(), await served.make_user("bob@example.com")
    await accept_all(served, ann, bob)
    assert (await post(served, token_headers(bob), "withdraw", doc_type="privacy")).status == 204
    old = build_row("terms", "eu", "2024-01-01", 0, "0.00")
    future = build_row("terms", "eu", "2999-01-01", 0, "0.00")
    terms = build_row("terms", "eu", "2025-08-12", 2, "66.67")
    privacy = build_row("privacy", "eu", "2025-08-12", 1, "33.33")
    american = build_row("terms", "us", "us-1", 0, "0.00")
    for query, rows in {
        "": [privacy, old, terms, future, american],
        "region=EU": [build_row(None, "eu", None, 1, "33.33")],
        "region=us": [build_row(None, "us", None, 0, "0.00")],
        "doc_type=terms": [build_row("terms", None, None, 2, "66.67")],
        "region=eu&doc_type=Terms": [old, terms, future],
        "region=us&doc_type=privacy": [],
        "format=json&from=2000-01-01T00:00:00Z": [privacy, old, terms, future, american],
    }.items():
        answer = await ask_report(served, admin, query)
        assert (answer.status, answer.json) == (200, rows), query


async def test_the_report_counts_what_was_accepted_in_the_time(served: Served) -> None:
    admin = await make_admin(served)
    await accept_all(served, await served.make_user())
    for query, accepted in {
        "from=2999-01-01T00:00:00Z": 0,
        "to=2999-01-01T00:00:00Z": 1,
        "from=2000-01-01T00:00:00+01:00&to=2999-01-01T00:00:00Z": 1,
        "to=2000-01-01T00:00:00Z": 0,
    }.items():
        for filter_ in ("region=eu", "doc_type=privacy", "region=eu&doc_type=privacy"):
            (row,) = (await ask_report(served, admin, f"{filter_}&{query}")).json
            assert row["accepted_count"] == accepted, (filter_, query)


async def test_the_report_is_a_file_too(served: Served) -> None:
    admin = await make_admin(served)
    await accept_all(served, await served.make_user())
    answer = await ask_report(served, admin, "format=csv&region=eu&doc_type=privacy")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="consent_report.csv"'
    assert answer.body.splitlines() == [
        b"Region,Document Type,Version,Accepted Count,Total Count,Acceptance Rate",
        b"eu,privacy,2025-08-12,1,2,50.00",
    ]


def test_the_file_can_be_read_whatever_a_version_is_called() -> None:
    text = write_csv([ConsentCountAnswer("terms", None, 'v"1",\nbeta', 1, 0)])
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [["", "terms", 'v"1",\nbeta', "1", "0", ""]]


async def test_a_report_that_cannot_be_is_refused(served: Served) -> None:
    admin = await make_admin(served)
    for query in ("from=yesterday", "to=2025-01-01", "from=1738318830", "format=xml", "region=uk", "doc_type=cookies"):
        answer = await ask_report(served, admin, query)
        assert (answer.status, answer.json["code"]) == (400, 400), query


async def test_the_report_is_for_administrators(served: Served) -> None:
    answer = await ask_report(served, token_headers(await served.make_user()), "region=eu")
    assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
