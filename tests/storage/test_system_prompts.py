"""System prompts: what stands, every revision of it, and which placeholders there are."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
import trio
from psycopg import errors

from storage.postgres import Database, open_database
from storage.system_prompts import (
    PLACEHOLDERS,
    NewPrompt,
    PromptRevision,
    find_present_revision,
    find_prompt_revision,
    find_unknown_placeholders,
    read_prompt_revisions,
    read_system_prompts,
    write_system_prompt,
)

TASK = "tests_of_prompts"
PROMPT = NewPrompt(TASK, "Be brief. \\ é {{FILE_CONTENTS}}", "For tests", "1.0")
ADMIN = f"user:{uuid4()}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=3) as database:
        yield database


async def write(database: Database, *prompts: NewPrompt) -> list[PromptRevision | None]:
    async with database.as_operator("test").transaction() as connection:
        return [await write_system_prompt(connection, prompt, ADMIN) for prompt in prompts]


async def test_what_was_written_is_read_with_the_others_in_the_order_of_their_names(database: Database) -> None:
    (written,) = await write(database, PROMPT)
    await write(database, replace(PROMPT, task_type="tests", description=None))
    prompts = await read_system_prompts(database)
    assert list(prompts) == sorted(prompts)
    assert prompts["tests"].description is None
    found = prompts[TASK]
    assert (found.system_prompt, found.description, found.version) == (PROMPT.system_prompt, "For tests", "1.0")
    assert (found.revision, found.updated_by) == (1, ADMIN)
    assert written is not None
    assert found.created_at == found.updated_at == written.updated_at


async def test_every_revision_stays_and_the_newest_comes_first(database: Database) -> None:
    for version in ("1.0", "2.0", "2.1"):
        await write(database, replace(PROMPT, version=version, system_prompt=f"Text {version}"))
    found = await read_prompt_revisions(database, TASK)
    assert [(each.revision, each.version, each.system_prompt) for each in found] == [
        (3, "2.1", "Text 2.1"),
        (2, "2.0", "Text 2.0"),
        (1, "1.0", "Text 1.0"),
    ]
    assert {each.updated_by for each in found} == {ADMIN}
    async with database.as_operator("test").transaction() as connection:
        assert await find_prompt_revision(connection, TASK, 2) == found[1]
        assert await find_prompt_revision(connection, TASK, 4) is None
        assert await find_present_revision(connection, TASK) == found[0]
        assert await find_present_revision(connection, "no_such_task") is None


async def test_revisions_are_read_page_by_page(database: Database) -> None:
    for number in range(5):
        await write(database, replace(PROMPT, version=str(number)))
    pages = [await read_prompt_revisions(database, TASK, before, 2) for before in (None, 4, 2, 1)]
    assert [[each.revision for each in page] for page in pages] == [[5, 4], [3, 2], [1], []]


async def test_a_prompt_that_was_deleted_by_hand_goes_on_counting_when_it_is_back(
    database: Database, owner_database_url: str
) -> None:
    await write(database, PROMPT)
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("DELETE FROM system_prompts")
    await write(database, replace(PROMPT, system_prompt="Another."))
    found = await read_prompt_revisions(database, TASK)
    assert [(each.revision, each.system_prompt) for each in found] == [(2, "Another."), (1, PROMPT.system_prompt)]


async def test_nothing_is_told_of_what_never_was(database: Database) -> None:
    assert await read_prompt_revisions(database, TASK) == []


@pytest.mark.parametrize(
    "changed",
    [
        replace(PROMPT, system_prompt="Be long."),
        replace(PROMPT, description=None),
        replace(PROMPT, version="1.1"),
    ],
)
async def test_a_change_of_any_member_is_a_revision(database: Database, changed: NewPrompt) -> None:
    await write(database, PROMPT)
    (written,) = await write(database, changed)
    assert written is not None
    assert written.revision == 2


async def test_writing_the_same_again_changes_nothing_not_even_who_wrote_it(database: Database) -> None:
    await write(database, PROMPT)
    before = (await read_system_prompts(database))[TASK]
    async with database.as_operator("test").transaction() as connection:
        assert await write_system_prompt(connection, PROMPT, "user:somebody-else") is None
    assert (await read_system_prompts(database))[TASK] == before
    assert len(await read_prompt_revisions(database, TASK)) == 1


async def test_what_fails_afterwards_takes_it_back(database: Database) -> None:
    await write(database, PROMPT)
    with pytest.raises(errors.CheckViolation):
        await write(database, replace(PROMPT, version="2.0"), replace(PROMPT, task_type="No such name"))
    assert [each.version for each in await read_prompt_revisions(database, TASK)] == ["1.0"]


async def test_two_who_change_it_at_once_make_two_revisions(database: Database) -> None:
    await write(database, PROMPT)
    async with trio.open_nursery() as nursery:
        for version in ("2.0", "3.0"):
            nursery.start_soon(write, database, replace(PROMPT, version=version))
    found = await read_prompt_revisions(database, TASK)
    assert [each.revision for each in found] == [3, 2, 1]
    assert {each.version for each in found} == {"1.0", "2.0", "3.0"}


async def test_a_request_may_read_them_and_not_write_them(database: Database) -> None:
    await write(database, PROMPT)
    rights = database.as_user(uuid4())
    assert await rights.fetch("SELECT version FROM system_prompts WHERE task_type = %s", [TASK]) == [("1.0",)]
    statements: list[LiteralString] = [
        "UPDATE system_prompts SET version = '9'",
        "DELETE FROM system_prompts",
        "DELETE FROM system_prompt_versions",
    ]
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            await rights.fetch(statement)


async def test_no_revision_can_be_altered_or_removed(database: Database) -> None:
    await write(database, PROMPT)
    statements: list[LiteralString] = [
        "UPDATE system_prompt_versions SET system_prompt = 'x'",
        "DELETE FROM system_prompt_versions",
    ]
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            await database.as_operator("test").fetch(statement)


def test_placeholders_that_there_are_are_known() -> None:
    assert find_unknown_placeholders(" ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{FILES}} and {{DIRECTORY_TREE}} and {{AGE}} and {{FILES}}", ["AGE", "FILES"]),
        ("{{ FILE_CONTENTS }}", [" FILE_CONTENTS "]),
        ("{{file_contents}}", ["file_contents"]),
        ("{{Project Context}}", ["Project Context"]),
        ("{{{AGE}}}", ["AGE"]),
        ('{"a": {"b": 1}} {{ "a" }} style={{color: "red"}} {{}} {FILES} ${{', []),
    ],
)
def test_names_in_double_braces_that_nobody_replaces_are_told(text: str, names: list[str]) -> None:
    assert find_unknown_placeholders(text) == names
