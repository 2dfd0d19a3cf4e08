"""System prompts: as clients read them, as administrators change them, and back."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import ArgumentInvalid, RequestInvalid
from server.operations import decode_body
from server.routes.system_prompts import SystemPromptRollbackWish, SystemPromptWish, check_wish
from storage.system_prompts import NewPrompt
from tests.server.served import Answer, Served, open_served, token_headers

PATH = "/api/system-prompts"
TASK = "tests_of_prompts"
CHANGED, ROLLED_BACK = "system_prompt_changed", "system_prompt_rolled_back"
WISH = {"systemPrompt": "Read {{FILE_CONTENTS}}.", "description": "For tests", "version": "1.0"}


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def ask(served: Served, method: str, path: str, body: object = None, role: str = "user") -> Answer:
    user = await served.make_user(f"{role}@example.com", role)
    return await served.ask(method, f"{PATH}{path}", token_headers(user), json.dumps(body).encode() if body else b"")


async def put(served: Served, **changes: object) -> Any:
    answer = await ask(served, "PUT", f"/admin/{TASK}", {**WISH, **changes}, role="admin")
    assert answer.status == 200, answer.body
    return answer.json


async def roll_back(served: Served, revision: int, task_type: str = TASK) -> Answer:
    return await ask(served, "POST", f"/admin/{task_type}/rollback", {"revision": revision}, role="admin")


async def list_versions(served: Served) -> Any:
    answer = await ask(served, "GET", f"/admin/{TASK}/versions", role="admin")
    assert answer.status == 200, answer.body
    return answer.json


async def list_audited(served: Served, action: str) -> list[Any]:
    return [row.entry for row in await served.services.auditor.log.find_latest(None, action, 10)]


async def test_a_prompt_has_exactly_what_clients_decode_and_its_times_are_whole_seconds(served: Served) -> None:
    before = int(time.time())
    await put(served)
    answer = await ask(served, "GET", f"/defaults/{TASK}")
    assert answer.status == 200
    created, updated = answer.json.pop("createdAt"), answer.json["updatedAt"]
    assert isinstance(created, int)
    assert isinstance(updated, int)
    assert before - 2 <= created == updated <= time.time() + 2


async def test_members_of_a_prompt_are_those_of_the_contract(served: Served) -> None:
    await put(served)
    found = (await ask(served, "GET", f"/defaults/{TASK}")).json
    assert {**found, "createdAt": 0, "updatedAt": 0} == {
        "id": f"default_{TASK}",
        "taskType": TASK,
        "systemPrompt": "Read {{FILE_CONTENTS}}.",
        "description": "For tests",
        "version": "1.0",
        "createdAt": 0,
        "updatedAt": 0,
    }


async def test_all_prompts_stand_in_the_order_of_their_tasks_under_both_names(served: Served) -> None:
    await put(served)
    await ask(served, "PUT", "/admin/another", {**WISH, "description": None}, role="admin")
    answer, again = await ask(served, "GET", "/defaults"), await ask(served, "GET", "")
    assert answer.status == again.status == 200
    assert answer.body == again.body
    names = [prompt["taskType"] for prompt in answer.json]
    assert names == sorted(names)
    assert {TASK, "another"} <= set(names)
    assert next(prompt for prompt in answer.json if prompt["taskType"] == "another")["description"] is None


@pytest.mark.parametrize("task_type", ["streaming", "No%20such%00name"])
async def test_a_task_without_a_prompt_is_not_found(served: Served, task_type: str) -> None:
    answer = await ask(served, "GET", f"/defaults/{task_type}")
    assert (answer.status, answer.json["error_type"], answer.json["errorType"]) == (404, "not_found", "not_found")


async def test_a_change_is_a_revision_and_counts_at_once(served: Served) -> None:
    first = await put(served)
    second = await put(served, systemPrompt="Read on.", version="1.1", description=None)
    assert (first["revision"], second["revision"]) == (1, 2)
    found = (await ask(served, "GET", f"/defaults/{TASK}")).json
    assert (found["systemPrompt"], found["version"], found["description"]) == ("Read on.", "1.1", None)
    assert await list_versions(served) == [second, first]
    assert {**first, "updatedAt": 0, "updatedBy": ""} == {
        **WISH,
        **{"taskType": TASK, "revision": 1, "updatedAt": 0, "updatedBy": ""},
    }


async def test_who_changed_it_is_told_in_the_list_and_in_the_audit_log(served: Served) -> None:
    admin = await served.make_user("admin@example.com", "admin")
    await put(served)
    await put(served, version="2.0")
    assert {version["updatedBy"] for version in await list_versions(served)} == {f"user:{admin.id}"}
    entries = await list_audited(served, CHANGED)
    assert {(entry.actor, entry.entity_type, entry.entity_id) for entry in entries} == {
        (f"user:{admin.id}", "system_prompt", TASK)
    }
    assert [entry.details for entry in entries] == [
        {"revision": 1, "version": "1.0", "restored": None},
        {"revision": 2, "version": "2.0", "restored": None},
    ]


async def test_the_same_again_is_no_revision_and_no_row_in_the_audit_log(served: Served) -> None:
    assert await put(served) == await put(served)
    assert len(await list_versions(served)) == 1
    assert len(await list_audited(served, CHANGED)) == 1


async def test_any_earlier_revision_can_be_brought_back_as_a_new_one(served: Served) -> None:
    await put(served)
    await put(served, systemPrompt="Read on.", version="1.1", description=None)
    for _ in range(2):
        answer = await roll_back(served, 1)
        assert (answer.status, answer.json["revision"]) == (200, 3)
        assert {name: answer.json[name] for name in WISH} == WISH
    assert (await ask(served, "GET", f"/defaults/{TASK}")).json["version"] == "1.0"
    assert [version["version"] for version in await list_versions(served)] == ["1.0", "1.1", "1.0"]
    (entry,) = await list_audited(served, ROLLED_BACK)
    assert (entry.entity_id, entry.details) == (TASK, {"revision": 3, "version": "1.0", "restored": 1})


async def test_a_revision_that_never_was_cannot_be_brought_back(served: Served) -> None:
    await put(served)
    for answer in (await roll_back(served, 2), await roll_back(served, 1, "another")):
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")
    assert len(await list_versions(served)) == 1
    assert await list_audited(served, ROLLED_BACK) == []


async def test_versions_come_page_by_page(served: Served) -> None:
    for version in ("1", "2", "3"):
        await put(served, version=version)
    pages = [("", [3, 2, 1]), ("?limit=2", [3, 2]), ("?limit=2&before=2", [1]), ("?before=1", [])]
    for query, revisions in pages:
        answer = await ask(served, "GET", f"/admin/{TASK}/versions{query}", role="admin")
        assert [version["revision"] for version in answer.json] == revisions
    for query in ("?limit=0", "?limit=101", "?before=0"):
        assert (await ask(served, "GET", f"/admin/{TASK}/versions{query}", role="admin")).status == 400


async def test_what_never_had_a_prompt_has_no_versions(served: Served) -> None:
    for name in ("another", "%00"):
        assert (await ask(served, "GET", f"/admin/{name}/versions", role="admin")).status == 404


async def test_nobody_but_an_administrator_sees_versions_or_changes_anything(served: Served) -> None:
    first = await put(served)
    for answer in (
        await ask(served, "PUT", f"/admin/{TASK}", {**WISH, "version": "9"}),
        await ask(served, "POST", f"/admin/{TASK}/rollback", {"revision": 1}),
        await ask(served, "GET", f"/admin/{TASK}/versions"),
    ):
        assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
    assert await list_versions(served) == [first]


async def test_a_placeholder_that_nobody_replaces_is_refused_by_name(served: Served) -> None:
    wish = {**WISH, "systemPrompt": "{{FILE_CONTENTS}} {{FILES}}"}
    answer = await ask(served, "PUT", f"/admin/{TASK}", wish, role="admin")
    assert (answer.status, answer.json["error_type"]) == (400, "invalid_argument")
    assert "{{FILES}} is no placeholder; there are {{CURRENT_DATE}}" in answer.json["message"]
    assert (await ask(served, "GET", f"/defaults/{TASK}")).status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"systemPrompt": ""},
        {"systemPrompt": " \n"},
        {"systemPrompt": None},
        {"systemPrompt": "x" * 200_001},
        {"systemPrompt": "a\0b"},
        {"version": ""},
        {"version": " "},
        {"version": None},
        {"version": 1.0},
        {"version": "1" * 51},
        {"version": "1\0"},
        {"description": "x" * 1001},
        {"description": "\0"},
    ],
)
def test_a_prompt_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((RequestInvalid, ArgumentInvalid)):
        check_wish(TASK, decode_body(json.dumps({**WISH, **change}).encode(), SystemPromptWish))


@pytest.mark.parametrize("task_type", ["", "Task", "9", "a-b", "a" * 101, "a\n", "é", "\0"])
def test_a_name_that_is_no_task_is_refused(task_type: str) -> None:
    with pytest.raises(ArgumentInvalid):
        check_wish(task_type, SystemPromptWish("text", "1.0"))


def test_the_longest_prompt_is_taken_and_an_empty_description_is_none() -> None:
    body = json.dumps({**WISH, "systemPrompt": "é" * 200_000, "description": "", "more": 1}).encode()
    wish = decode_body(body, SystemPromptWish)
    assert check_wish("a" * 100, wish) == NewPrompt("a" * 100, "é" * 200_000, None, "1.0")


@pytest.mark.parametrize("revision", [0, -1, 2**31, 1.5, "1", None])
def test_a_revision_is_a_whole_number_from_one(revision: object) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(json.dumps({"revision": revision}).encode(), SystemPromptRollbackWish)
