"""Consent as the desktop asks for it, and chats that wait for it."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import openai
import pytest
import trio

from storage.legal_documents import LegalDocument
from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_api_keys import ask, make, with_key
from tests.fakes import open_fake_upstream, openai_stream
from tests.storage.documents import build_document, write_documents

TERMS, PRIVACY = build_document("terms", "2025-08-12"), build_document("privacy", "2025-08-12")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
"""RFC 3339 in UTC: https://www.rfc-editor.org/rfc/rfc3339#section-5.6"""
DOCUMENT: Mapping[str, type] = {
    "id": str,
    "docType": str,
    "region": str,
    "version": str,
    "effectiveAt": str,
    "url": str,
    "contentHash": type(None),
    "materialChange": bool,
    "createdAt": str,
    "updatedAt": str,
}
ITEM: Mapping[str, type] = {
    "docType": str,
    "region": str,
    "currentVersion": str,
    "acceptedVersion": str,
    "acceptedAt": str,
    "requiresReconsent": bool,
    "effectiveAt": str,
    "url": str,
}
"""Of a document that was accepted."""


def publish(stores: Stores, *documents: LegalDocument) -> None:
    write_documents(stores.owner_database_url, *documents)


async def show(cloche: Cloche, customer: Customer, path: str) -> Any:
    response = await ask(cloche, "GET", f"/api/consent/{path}", customer.headers)
    assert response.status_code == 200, response.text
    return response.json()


async def agree(cloche: Cloche, customer: Customer, doc_type: str, name: str = "accept") -> None:
    body = {"doc_type": doc_type, "region": "eu", "metadata": None}
    headers = {**customer.headers, "X-Title": "Desktop"}
    response = await ask(cloche, "POST", f"/api/consent/{name}", headers, body)
    assert (response.status_code, response.content) == (204, b"")


def check_members(value: Mapping[str, Any], members: Mapping[str, type]) -> None:
    assert {name: type(member) for name, member in value.items()} == members


async def test_the_desktop_finds_every_field_as_it_decodes_it(stores: Stores) -> None:
    publish(stores, TERMS, PRIVACY)
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        documents = await show(cloche, customer, "documents/current?region=eu")
        assert [document["docType"] for document in documents] == ["privacy", "terms"]
        for document in documents:
            check_members(document, DOCUMENT)
            assert str(UUID(document["id"])) == document["id"]
            assert document["url"] == f"/legal/eu/{document['docType']}"
            assert date.fromisoformat(document["effectiveAt"]).isoformat() == document["effectiveAt"] == "2025-08-12"
            assert TIME.fullmatch(document["createdAt"])
            assert TIME.fullmatch(document["updatedAt"])

        before = await show(cloche, customer, "verify?region=eu")
        assert (before["requiresReconsent"], before["missing"]) == (True, ["privacy", "terms"])
        check_members(before["details"][0], {**ITEM, "acceptedVersion": type(None), "acceptedAt": type(None)})
        for doc_type in ("terms", "privacy"):
            await agree(cloche, customer, doc_type)

        status = await show(cloche, customer, "status?region=eu")
        assert set(status) == {"userId", "region", "items", "allConsented"}
        assert (status["userId"], status["region"], status["allConsented"]) == (str(customer.user_id), "eu", True)
        for item in status["items"]:
            check_members(item, ITEM)
            assert (item["region"], item["currentVersion"], item["acceptedVersion"]) == ("eu", *["2025-08-12"] * 2)
            assert (item["requiresReconsent"], item["effectiveAt"]) == (False, "2025-08-12")
            assert item["url"].startswith("/legal/")
            assert TIME.fullmatch(item["acceptedAt"])
            assert datetime.fromisoformat(item["acceptedAt"]) <= datetime.now(UTC)
        verified = await show(cloche, customer, "verify?region=eu")
        assert verified == {"requiresReconsent": False, "missing": [], "details": status["items"]}
        assert {source for (source,) in cloche.query("SELECT source FROM user_consent_events")} == {"desktop"}

        await agree(cloche, customer, "terms", "withdraw")
        assert (await show(cloche, customer, "verify?region=eu"))["missing"] == ["terms"]
        assert (await ask(cloche, "DELETE", "/api/auth/account", customer.headers)).status_code == 200
        assert cloche.query("SELECT user_id FROM user_consent_events UNION SELECT user_id FROM user_consents") == []
        actions = "SELECT action FROM audit_log WHERE entity_type = 'legal_document' ORDER BY sequence"
        assert [action for (action,) in cloche.query(actions)] == ["consent_accepted"] * 2 + ["consent_withdrawn"]


async def test_chats_wait_for_consent_where_that_is_required(stores: Stores) -> None:
    publish(stores, TERMS, PRIVACY)
    async with (
        open_fake_upstream(openai_stream(["Hello"])) as upstream,
        open_cloche(stores, upstream.url, REQUIRE_CONSENT="eu") as cloche,
    ):
        customer = await cloche.make_customer()
        key = with_key((await make(cloche, customer))["key"])
        await agree(cloche, customer, "terms")
        for headers in (customer.headers, key):
            refused = await ask(cloche, "POST", SHIPPED, headers, build_chat())
            assert (refused.status_code, refused.json()["errorType"]) == (403, "consent_required")
            assert "agree to the current privacy first" in refused.json()["message"]
            assert "GET /api/consent/status?region=eu" in refused.json()["message"]
            await trio.to_thread.run_sync(check_refused, cloche, headers)
        assert cloche.query("SELECT 1 FROM holds") == []
        assert upstream.requests == []

        await agree(cloche, customer, "privacy")
        for headers in (customer.headers, key):
            for path in (SHIPPED, OPENAI):
                assert (await ask(cloche, "POST", path, headers, build_chat(stream=False))).status_code == 200
        await agree(cloche, customer, "privacy", "withdraw")
        for path in (SHIPPED, OPENAI):
            assert (await ask(cloche, "POST", path, customer.headers, build_chat())).status_code == 403
        await cloche.wait_settled()
        cloche.check_accounts()


def check_refused(cloche: Cloche, headers: Mapping[str, str]) -> None:
    """As OpenAI's SDK tells it."""
    with (
        openai.OpenAI(base_url=f"{cloche.url}/v1", api_key="x", default_headers=headers, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match="privacy first") as caught,
    ):
        client.chat.completions.create(**build_chat())
    assert caught.value.code == "consent_required"


async def test_a_document_that_is_published_while_chats_go_on_counts_within_a_second(stores: Stores) -> None:
    publish(stores, TERMS)
    async with (
        open_fake_upstream(openai_stream(["Hello"])) as upstream,
        open_cloche(stores, upstream.url, REQUIRE_CONSENT="eu") as cloche,
    ):
        customer = await cloche.make_customer()
        await agree(cloche, customer, "terms")
        assert (await ask(cloche, "POST", OPENAI, customer.headers, build_chat(stream=False))).status_code == 200
        correction = build_document("terms", "2025-09-01", date(2025, 9, 1))
        publish(stores, TERMS, correction)
        await wait_for_version(cloche, customer, "2025-09-01")
        assert (await show(cloche, customer, "verify?region=eu"))["missing"] == ["terms"]
        assert (await ask(cloche, "POST", OPENAI, customer.headers, build_chat(stream=False))).status_code == 200
        publish(stores, TERMS, correction, build_document("terms", "2025-10-01", date(2025, 10, 1), material=True))
        await wait_for_version(cloche, customer, "2025-10-01")
        assert (await ask(cloche, "POST", OPENAI, customer.headers, build_chat(stream=False))).status_code == 403


async def wait_for_version(cloche: Cloche, customer: Customer, version: str) -> None:
    with trio.fail_after(5):
        while (await show(cloche, customer, "documents/current?region=eu"))[0]["version"] != version:
            await trio.sleep(0.02)
