"""API keys as their users have them: made, shown once, used, listed, and ended at once everywhere."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from storage.api_keys import MAX_LIVE_KEYS
from tests.end_to_end.caller import OPENAI, build_chat
from tests.end_to_end.cloche import SIGN_IN, Cloche, Customer, Stores, open_cloche
from tests.fakes import open_fake_upstream, openai_stream

PATH = "/api/auth/api-keys"
MODELS = "/v1/models"


async def ask(
    cloche: Cloche, method: str, path: str, headers: Mapping[str, str], body: object = None
) -> httpx2.Response:
    """`body` is JSON unless it is bytes."""
    async with httpx2.AsyncClient(base_url=cloche.url, timeout=20, trust_env=False) as client:
        sent = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
        return await client.request(method, path, headers=dict(headers), **sent)


async def make(cloche: Cloche, customer: Customer, **members: Any) -> Any:
    response = await ask(cloche, "POST", PATH, customer.headers, {"label": "laptop", **members})
    assert response.status_code == 201, response.text
    return response.json()


async def show(cloche: Cloche, customer: Customer) -> Any:
    response = await ask(cloche, "GET", PATH, customer.headers)
    assert response.status_code == 200, response.text
    return response.json()["keys"]


def with_key(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


async def test_a_key_is_shown_once_and_only_its_keyed_hash_is_stored(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        made = await make(cloche, customer, label="  my läptop 👩‍💻 ", note="is passed over")
        key = made["key"]
        assert set(made) == {"id", "key", "hint", "label", "scopes", "createdAt", "expiresAt"}
        assert (len(key), int(key, 16) > 0, made["hint"]) == (64, True, key[:6])
        assert (made["label"], made["scopes"], made["expiresAt"]) == ("my läptop 👩‍💻", ["read", "write"], None)
        assert made["createdAt"].endswith("Z")
        shown = {**made, "lastUsedAt": None, "revokedAt": None}
        del shown["key"]
        assert await show(cloche, customer) == [shown]
        expected = hmac.new(SIGN_IN["API_KEY_HASH_SECRET"].encode(), key.encode(), hashlib.sha256).hexdigest()
        assert cloche.query("SELECT key_hash FROM api_keys") == [(expected,)]
        everything = cloche.query("SELECT api_keys::text FROM api_keys UNION SELECT audit_log::text FROM audit_log")
        assert key not in str(everything)


async def test_a_key_says_when_it_ends_and_when_it_was_used(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        before = datetime.now(UTC)
        made = await make(cloche, customer, expiresInDays=3650, scopes=["read", "rpc", "read"])
        ends = datetime.fromisoformat(made["expiresAt"])
        assert before <= ends - timedelta(days=3650) <= datetime.now(UTC)
        assert made["scopes"] == ["read", "rpc"]
        assert (await ask(cloche, "GET", MODELS, with_key(made["key"]))).status_code == 200
        used = datetime.fromisoformat((await show(cloche, customer))[0]["lastUsedAt"])
        assert before <= used <= datetime.now(UTC)


async def test_a_key_calls_a_model_and_its_user_pays(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(["Hello"], usage=(1200, 340))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        key = (await make(cloche, customer))["key"]
        response = await ask(cloche, "POST", OPENAI, {"Authorization": f"Bearer {key}"}, build_chat())
        assert response.status_code == 200
        assert cloche.balance(customer) == (Decimal("9.998976"), 0)
        cloche.check_accounts()


async def test_a_key_that_may_read_writes_nothing(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        key = (await make(cloche, await cloche.make_customer(), scopes=["read"]))["key"]
        assert (await ask(cloche, "GET", MODELS, with_key(key))).status_code == 200
        refused = await ask(cloche, "POST", OPENAI, with_key(key), build_chat())
        assert (refused.status_code, "scope write" in refused.text) == (403, True)


async def test_a_revoked_key_ends_at_once_on_every_server(stores: Stores) -> None:
    other_stores = replace(stores, journal_folder=stores.journal_folder.with_name("other"))
    async with open_cloche(stores) as first, open_cloche(other_stores) as second:
        customer = await first.make_customer()
        made = await make(first, customer)
        path = f"{PATH}/{made['id']}"
        for cloche in (first, second):
            assert (await ask(cloche, "GET", MODELS, with_key(made["key"]))).status_code == 200
        for _ in range(2):
            gone = await ask(first, "DELETE", path, customer.headers)
            assert (gone.status_code, gone.content) == (204, b"")
            for cloche in (first, second):
                refused = await ask(cloche, "GET", MODELS, with_key(made["key"]))
                assert (refused.status_code, "API key unknown, revoked or expired" in refused.text) == (401, True)
        assert (await show(second, customer))[0]["revokedAt"] is not None
        told = first.query("SELECT action, actor, subject_id, entity_type, entity_id FROM audit_log ORDER BY sequence")
        actor, entity = f"user:{customer.user_id}", ("api_key", made["id"])
        assert told[:2] == [
            ("api_key_made", actor, customer.user_id, *entity),
            ("api_key_revoked", actor, customer.user_id, *entity),
        ]
        assert {row[0] for row in told[2:]} == {"credentials_refused"}


async def test_nobody_revokes_a_key_of_somebody_else_or_of_nobody(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer, other = await cloche.make_customer(), await cloche.make_customer()
        made = await make(cloche, customer)
        for id_ in (made["id"], uuid4(), "7", made["id"] + "0"):
            answer = await ask(cloche, "DELETE", f"{PATH}/{id_}", other.headers)
            assert (answer.status_code, answer.json()["error_type"]) == (404, "not_found")
        assert await show(cloche, other) == []
        assert (await ask(cloche, "GET", MODELS, with_key(made["key"]))).status_code == 200


async def test_a_key_makes_and_revokes_no_keys(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        made = await make(cloche, customer)
        headers = with_key(made["key"])
        for method, path in (("POST", PATH), ("DELETE", f"{PATH}/{made['id']}")):
            refused = await ask(cloche, method, path, headers, {"label": "another"} if method == "POST" else None)
            assert (refused.status_code, refused.json()["error_type"]) == (403, "forbidden")
        assert len((await ask(cloche, "GET", PATH, headers)).json()["keys"]) == 1
        assert len(await show(cloche, customer)) == 1


async def test_the_scope_admin_is_for_administrators(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer, admin = await cloche.make_customer(), await cloche.make_customer()
        cloche.query("UPDATE users SET role = 'admin' WHERE id = %s RETURNING 1", admin.user_id)
        wanted = {"label": "laptop", "scopes": ["read", "admin"]}
        assert (await ask(cloche, "POST", PATH, customer.headers, wanted)).status_code == 403
        assert (await make(cloche, admin, scopes=["read", "admin"]))["scopes"] == ["read", "admin"]
        assert await show(cloche, customer) == []


async def test_who_has_too_many_keys_is_told_to_revoke_one(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        ids = [(await make(cloche, customer))["id"] for _ in range(MAX_LIVE_KEYS)]
        refused = await ask(cloche, "POST", PATH, customer.headers, {"label": "one more"})
        assert (refused.status_code, refused.json()["error_type"]) == (409, "already_exists")
        assert "revoke one" in refused.json()["message"]
        assert cloche.query("SELECT count(*) FROM audit_log") == [(MAX_LIVE_KEYS,)]
        await ask(cloche, "DELETE", f"{PATH}/{ids[0]}", customer.headers)
        await make(cloche, customer)


async def test_a_wish_that_is_none_is_a_400_that_names_the_member(stores: Stores) -> None:
    wrong: list[tuple[object, str]] = [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[" * 5000, "body"),
        ([], "body"),
        ({}, "label"),
        ({"label": None}, "label"),
        ({"label": 1}, "label"),
        ({"label": ""}, "label"),
        ({"label": "   "}, "label"),
        ({"label": "x" * 101}, "label"),
        ({"label": "a\x00b"}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"label": "a\x7fb"}, "label"),
        (b'{"label":"\\ud800"}', "body"),
        (b'{"label":"x\\udc00y"}', "body"),
        ({"label": "x", "scopes": "read"}, "scopes"),
        ({"label": "x", "scopes": []}, "scopes"),
        ({"label": "x", "scopes": ["read", "root"]}, "scopes"),
        ({"label": "x", "scopes": ["read", 1]}, "scopes"),
        ({"label": "x", "expiresInDays": 0}, "expiresInDays"),
        ({"label": "x", "expiresInDays": 3651}, "expiresInDays"),
        ({"label": "x", "expiresInDays": "30"}, "expiresInDays"),
        ({"label": "x", "expiresInDays": True}, "expiresInDays"),
        ({"label": "x", "expiresInDays": 1.5}, "expiresInDays"),
        ({"label": "x", "expiresInDays": 10**40}, "expiresInDays"),
    ]
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        for body, place in wrong:
            answer = await ask(cloche, "POST", PATH, customer.headers, body)
            assert (answer.status_code, answer.json()["error_type"]) == (400, "validation_error"), body
            assert place in answer.json()["message"], body
        assert cloche.query("SELECT FROM api_keys") == []


@pytest.mark.parametrize("body", [{"label": "x", "scopes": None, "expiresInDays": None}, {"label": "x" * 100}], ids=str)
async def test_what_is_null_counts_as_absent(stores: Stores, body: Mapping[str, object]) -> None:
    async with open_cloche(stores) as cloche:
        made = await ask(cloche, "POST", PATH, (await cloche.make_customer()).headers, body)
        assert (made.status_code, made.json()["scopes"]) == (201, ["read", "write"])


async def test_the_keys_of_a_deleted_account_end_with_it(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        key = (await make(cloche, customer))["key"]
        assert (await ask(cloche, "GET", MODELS, with_key(key))).status_code == 200
        assert (await ask(cloche, "DELETE", "/api/auth/account", customer.headers)).status_code == 200
        for headers in (with_key(key), customer.headers):
            assert (await ask(cloche, "GET", MODELS, headers)).status_code == 401
