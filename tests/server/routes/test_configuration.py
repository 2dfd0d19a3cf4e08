"""The configuration as clients read it and administrators change it."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from server.ai_settings import REQUIRED_TASKS
from server.configuration_keys import KEYS
from server.live_configuration import CONFIGURATION
from storage.accounts import User
from tests.server.served import Answer, Served, open_served, token_headers

RUNTIME = "/api/config/desktop-runtime-config"
ALL = "/api/config/all-configurations"
SETTINGS = "/api/config/admin/ai_settings"
MOST = "/api/config/admin/billing_max_credit_purchase"
MODEL = "openai/gpt-4.1-mini"

MODEL_MEMBERS = {
    *("id", "name", "provider", "providerName", "description", "contextWindow"),
    *("priceInputPerMillion", "priceOutputPerMillion", "priceCacheRead", "priceCacheWrite"),
}


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, OPENAI_API_KEY="k", GOOGLE_API_KEY="k", ANTHROPIC_API_KEY="k") as served:
        yield served


@pytest.fixture
async def admin(served: Served) -> User:
    return await served.make_user("admin@example.com", "admin")


async def ask(served: Served, who: User, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    encoded = b"" if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await served.ask(method, path, token_headers(who) | named, encoded)


async def put(served: Served, who: User, path: str, value: Any, **members: Any) -> Answer:
    return await ask(served, who, "PUT", path, {"value": value, **members})


def build_settings(model: str = MODEL, **changes: Any) -> dict[str, Any]:
    task = {"model": model, "max_tokens": 100, "temperature": 0.5, **changes}
    return {"tasks": dict.fromkeys(REQUIRED_TASKS, task)}


async def list_audited(served: Served, action: str) -> list[Mapping[str, object]]:
    rows = await served.services.auditor.log.find_latest(None, action, 10)
    assert all(row.entry.actor.startswith("user:") for row in rows)
    return [{"entity": (row.entry.entity_type, row.entry.entity_id), **row.entry.details} for row in rows]


async def test_the_desktop_can_start_with_what_the_seed_has(served: Served) -> None:
    """Every rule by which the desktop refuses to start."""
    answer = await ask(served, await served.make_user(), "GET", RUNTIME)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document = answer.json
    assert document.keys() == {"tasks", "providers", "maxConcurrentJobs", "codexCli"}
    assert set(REQUIRED_TASKS) <= document["tasks"].keys()
    assert document["providers"]
    for group in document["providers"]:
        assert group["provider"].keys() == {"code", "name"}
        assert group["models"]
        for model in group["models"]:
            check_model(model, group["provider"])
    listed = [model["id"] for group in document["providers"] for model in group["models"]]
    assert len(set(listed)) == len(listed)
    for task in document["tasks"].values():
        check_task(task, set(listed))
    codex = document["codexCli"]
    assert codex.keys() == {
        *("preferredModel", "miniModel", "fallbackModel", "modelOverrides", "reasoningEffort", "miniReasoningEffort")
    }


def check_model(model: dict[str, Any], provider: dict[str, str]) -> None:
    assert model.keys() == MODEL_MEMBERS
    assert model["id"]
    assert (model["provider"], model["providerName"]) == (provider["code"], provider["name"])
    assert isinstance(model["contextWindow"], int)
    for name in ("priceInputPerMillion", "priceOutputPerMillion"):
        assert float(model[name]) >= 0
        assert "E" not in model[name]
    for name in ("priceCacheRead", "priceCacheWrite"):
        assert model[name] is None or float(model[name]) >= 0


def check_task(task: dict[str, Any], listed: set[str]) -> None:
    assert task.keys() == {"model", "maxTokens", "temperature", "copyButtons", "allowedModels"}
    assert task["model"] in listed
    assert set(task["allowedModels"] or []) <= listed
    assert 0 < task["maxTokens"] < 2**32
    assert isinstance(task["temperature"], int | float)
    assert 0 <= task["temperature"] <= 2
    for button in task["copyButtons"] or []:
        assert button.keys() == {"id", "label", "content"}
        assert all(button.values())


async def test_what_a_client_has_already_is_not_sent_again(served: Served, admin: User) -> None:
    first = await ask(served, admin, "GET", RUNTIME)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await ask(served, admin, "GET", RUNTIME, If_None_Match=known)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert answer.headers["cache-control"] == "private, no-cache"
        assert not {"content-type", "content-length"} & answer.headers.keys()
    for other in ('"other"', ""):
        answer = await ask(served, admin, "GET", RUNTIME, If_None_Match=other)
        assert (answer.status, answer.body) == (200, first.body)
    await put(served, admin, SETTINGS, build_settings())
    changed = await ask(served, admin, "GET", RUNTIME, If_None_Match=etag)
    assert changed.status == 200
    assert changed.headers["etag"] != etag
    assert {task["model"] for task in changed.json["tasks"].values()} == {MODEL}


async def test_it_has_two_names(served: Served, admin: User) -> None:
    assert (await ask(served, admin, "GET", "/api/config/runtime")).body == (
        (await ask(served, admin, "GET", RUNTIME)).body
    )


async def test_only_administrators_see_the_whole_configuration(served: Served, admin: User) -> None:
    await put(served, admin, MOST, 50)
    await put(served, admin, "/api/config/admin/onboarding_videos", {"intro": "a"})
    everything = (await ask(served, admin, "GET", ALL)).json
    assert everything.keys() == {"ai_settings", "billing_max_credit_purchase", "onboarding_videos"}
    assert everything["billing_max_credit_purchase"] == 50
    told = (await ask(served, await served.make_user(), "GET", ALL)).json
    assert told == {key: everything[key] for key in ("ai_settings", "onboarding_videos")}
    assert told["ai_settings"]["tasks"]["task_refinement"]["max_tokens"] > 0


async def test_a_setting_is_shown_with_its_version(served: Served, admin: User) -> None:
    assert (await ask(served, admin, "GET", MOST)).json == {
        "key": "billing_max_credit_purchase",
        "value": None,
        "version": 0,
        "updatedAt": None,
        "updatedBy": None,
    }
    written = (await put(served, admin, MOST, 50)).json
    assert (written["value"], written["version"], written["updatedBy"]) == (50, 1, f"user:{admin.id}")
    assert written["updatedAt"].endswith("Z")
    assert (await ask(served, admin, "GET", MOST)).json == written
    assert (await ask(served, admin, "GET", SETTINGS)).json["updatedBy"] == "seed"


async def test_a_change_counts_at_once_and_is_told_in_the_audit_log(served: Served, admin: User) -> None:
    assert (await put(served, admin, SETTINGS, build_settings())).status == 200
    assert served.services.live.ai_settings.tasks["unknown"].model == MODEL
    entity = ("configuration", "ai_settings")
    assert await list_audited(served, "configuration_changed") == [{"entity": entity, "version": 2, "restored": None}]


async def test_the_same_value_again_is_no_change(served: Served, admin: User) -> None:
    first = await put(served, admin, MOST, 50)
    assert (await put(served, admin, MOST, 50.0)).json == first.json
    assert len(await list_audited(served, "configuration_changed")) == 1


async def test_who_has_seen_an_older_version_writes_nothing(served: Served, admin: User) -> None:
    assert (await put(served, admin, MOST, 50, expectedVersion=0)).status == 200
    assert (await put(served, admin, MOST, 60, expectedVersion=1)).json["version"] == 2
    for expected in (0, 1, 3):
        answer = await put(served, admin, MOST, 70, expectedVersion=expected)
        assert (answer.status, answer.json["error_type"]) == (409, "conflict")
        assert "version 2" in answer.json["message"]
    assert (await ask(served, admin, "GET", MOST)).json["value"] == 60
    assert (await put(served, admin, MOST, 70, expectedVersion=None)).json["version"] == 3


async def test_of_two_who_write_at_once_one_is_told(served: Served, admin: User) -> None:
    statuses = list[int]()

    async def write(value: int) -> None:
        statuses.append((await put(served, admin, MOST, value, expectedVersion=0)).status)

    async with trio.open_nursery() as nursery:
        for value in (50, 60, 70):
            nursery.start_soon(write, value)
    assert sorted(statuses) == [200, 409, 409]
    assert (await ask(served, admin, "GET", MOST)).json["version"] == 1


async def test_a_value_is_looked_at_whole_before_anything_is_written(served: Served, admin: User) -> None:
    before = (await ask(served, admin, "GET", SETTINGS)).json
    settings = build_settings("openai/none", max_tokens=0, allowed_models=[f"openai/{number}" for number in range(5)])
    answer = await put(served, admin, SETTINGS, settings)
    assert (answer.status, answer.json["error_type"]) == (400, "validation_error")
    message = answer.json["message"]
    assert "ai_settings: tasks.implementation_plan.max_tokens: it must be from 1" in message
    assert "ai_settings: tasks.task_refinement.model: 'openai/none' is not in the catalogue" in message
    assert message.endswith("; and 20 more")
    assert (await ask(served, admin, "GET", SETTINGS)).json == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"value": {"intro": "\\u0000"}}', b"[" * 10_000])
async def test_a_body_that_is_none_is_refused(served: Served, admin: User, body: bytes) -> None:
    answer = await served.ask("PUT", "/api/config/admin/onboarding_videos", token_headers(admin), body)
    assert (answer.status, answer.json["error_type"]) == (400, "validation_error")


async def test_a_value_that_is_as_deep_and_large_as_it_can_be_is_no_fault_of_ours(served: Served, admin: User) -> None:
    deep = b"[" * 900 + b"]" * 900
    members = b'"deep": %s, "large": %s, "tiny": 1e-320, "text": "%s"' % (deep, b"1" * 4000, b"x" * 500_000)
    body = json.dumps(build_settings()).encode().removesuffix(b"}") + b", " + members + b"}"
    answer = await served.ask("PUT", SETTINGS, token_headers(admin), b'{"value": %s}' % body)
    assert answer.status == 200
    assert (await ask(served, admin, "GET", ALL)).json["ai_settings"]["large"] == int("1" * 4000)


async def test_versions_are_listed_and_any_of_them_comes_back(served: Served, admin: User) -> None:
    for value in (50, 60, 70):
        await put(served, admin, MOST, value)
    listed = (await ask(served, admin, "GET", f"{MOST}/versions")).json["versions"]
    assert [(version["version"], version["value"]) for version in listed] == [(3, 70), (2, 60), (1, 50)]
    assert listed[0].keys() == {"version", "value", "updatedAt", "updatedBy"}
    page = (await ask(served, admin, "GET", f"{MOST}/versions?limit=1&before=3")).json["versions"]
    assert [version["version"] for version in page] == [2]
    answer = await ask(served, admin, "POST", f"{MOST}/rollback", {"version": 1})
    assert (answer.status, answer.json["version"], answer.json["value"]) == (200, 4, 50)
    entity = ("configuration", "billing_max_credit_purchase")
    told = {"entity": entity, "version": 4, "restored": 1}
    assert await list_audited(served, "configuration_rolled_back") == [told]
    assert (await served.services.billing.terms.read()).max_purchase_usd == 50


async def test_a_version_that_is_not_right_any_more_stays_where_it_is(
    served: Served, admin: User, owner_database_url: str
) -> None:
    await put(served, admin, SETTINGS, build_settings())
    await put(served, admin, SETTINGS, build_settings("openai/gpt-4.1"))
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("UPDATE models SET status = 'inactive' WHERE id = %s", [MODEL])
    await served.services.live.refresh()
    answer = await ask(served, admin, "POST", f"{SETTINGS}/rollback", {"version": 2})
    assert (answer.status, answer.json["error_type"]) == (400, "validation_error")
    assert f"{MODEL!r} is not in the catalogue" in answer.json["message"]
    assert (await ask(served, admin, "GET", SETTINGS)).json["version"] == 3


async def test_what_is_not_there_is_not_found(served: Served, admin: User) -> None:
    for method, path, body in (
        ("GET", "/api/config/admin/nothing", None),
        ("GET", "/api/config/admin/nothing/versions", None),
        ("PUT", "/api/config/admin/nothing", {"value": 1}),
        ("POST", "/api/config/admin/nothing/rollback", {"version": 1}),
        ("POST", f"{MOST}/rollback", {"version": 1}),
    ):
        answer = await ask(served, admin, method, path, body)
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")
    assert "onboarding_videos" in (await ask(served, admin, "GET", "/api/config/admin/nothing")).json["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/versions"), ("PUT", ""), ("POST", "/rollback")],
)
async def test_nobody_else_may_look_or_write(served: Served, method: str, path: str) -> None:
    user = await served.make_user()
    for key in sorted(KEYS):
        answer = await ask(served, user, method, f"/api/config/admin/{key}{path}", {"value": 1, "version": 1})
        assert (answer.status, answer.json["error_type"]) == (403, "forbidden")


async def test_a_change_that_is_written_stands_also_if_it_cannot_be_read_at_once(
    served: Served, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = list[object]()

    async def follow(_: object, changed: object) -> None:
        followed.append(changed)

    monkeypatch.setattr(type(served.services.live), "follow", follow)
    assert (await put(served, admin, MOST, 50)).status == 200
    assert followed == [{CONFIGURATION}]
