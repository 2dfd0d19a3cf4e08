"""System prompts: read by every client, from memory; changed by administrators, and back to any earlier revision."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from quart import Blueprint

from server.auth.callers import Caller
from server.errors import ArgumentInvalid, NotFound
from server.guard import access, caller
from server.live_configuration import PROMPTS
from server.operations import operation
from server.services import services
from storage.audit import AuditEntry
from storage.psycopg_trio import TrioConnection
from storage.system_prompts import (
    MAX_PROMPT,
    MAX_VERSION,
    PLACEHOLDERS,
    NewPrompt,
    PromptRevision,
    SystemPrompt,
    find_present_revision,
    find_prompt_revision,
    find_unknown_placeholders,
    read_prompt_revisions,
    write_system_prompt,
)

MAX_DESCRIPTION = 1000
MAX_REVISION = 2**31 - 1
MOST_REVISIONS = 100

_TASK_TYPE = re.compile(r"[a-z][a-z0-9_]{0,99}")

blueprint = Blueprint("system_prompts", __name__, url_prefix="/api/system-prompts")


class SystemPromptAnswer(msgspec.Struct, rename="camel"):
    """What models are told before a task of this type. Times are in whole Unix seconds; `version` is for people."""

    id: str
    task_type: str
    system_prompt: str
    description: str | None
    version: str
    created_at: int
    updated_at: int


class SystemPromptRevisionAnswer(msgspec.Struct, rename="camel"):
    """`revision` counts changes from 1. `updatedBy` is `seed`, `user:<id>` or `api_key:<id>`; `updatedAt` is in whole
    Unix seconds.
    """

    task_type: str
    revision: int
    version: str
    description: str | None
    system_prompt: str
    updated_by: str
    updated_at: int


class SystemPromptWish(msgspec.Struct, rename="camel"):
    """The whole prompt: without a description it has none. Placeholders are `{{CURRENT_DATE}}`,
    `{{CUSTOM_INSTRUCTIONS}}`, `{{DIRECTORY_TREE}}`, `{{FILE_CONTENTS}}` and `{{PROJECT_CONTEXT}}`.
    """

    system_prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT)]
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_VERSION)]
    description: Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION)] | None = None


class SystemPromptRollbackWish(msgspec.Struct):
    """One of the revisions that the list of versions has."""

    revision: Annotated[int, msgspec.Meta(ge=1, le=MAX_REVISION)]


class SystemPromptVersionsQuery(msgspec.Struct):
    """`before` is the last revision of the page before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_REVISIONS)] = 20
    before: Annotated[int, msgspec.Meta(ge=1, le=MAX_REVISION)] | None = None


@blueprint.get("", endpoint="show_documented")
@blueprint.get("/defaults")
@operation("List the system prompts")
async def show_all() -> Sequence[SystemPromptAnswer]:
    """One for each type of task that has a prompt, in the order of their names."""
    return [_describe(prompt) for prompt in services().live.prompts.values()]


@blueprint.get("/defaults/<task_type>")
@operation("Show the system prompt of a type of task")
async def show(task_type: str) -> SystemPromptAnswer:
    """Types of tasks that have no prompt are answered with 404."""
    prompt = services().live.prompts.get(task_type)
    if prompt is None:
        raise NotFound("there is no system prompt for tasks of this type")
    return _describe(prompt)


@blueprint.get("/admin/<task_type>/versions")
@access(is_admin=True)
@operation("List the revisions of a system prompt")
async def show_versions(task_type: str, query: SystemPromptVersionsQuery) -> Sequence[SystemPromptRevisionAnswer]:
    """The newest comes first: it is the one in use. For administrators."""
    revisions = []
    if is_task_type(task_type):
        revisions = await read_prompt_revisions(services().database, task_type, query.before, query.limit)
    if not revisions and query.before is None:
        raise NotFound("there never was a system prompt for tasks of this type")
    return [_describe_revision(task_type, revision) for revision in revisions]


@blueprint.put("/admin/<task_type>")
@access(is_admin=True)
@operation("Change a system prompt")
async def save(task_type: str, body: SystemPromptWish) -> SystemPromptRevisionAnswer:
    """Sets the prompt for a type of task, also for one that had none. Clients see it within a second, and the
    revision before it stays in the list of versions. Safe to repeat: the same prompt again makes no new revision. For
    administrators.
    """
    prompt = check_wish(task_type, body)
    async with services().database.as_operator("change a system prompt").transaction() as connection:
        answer = await _write(connection, prompt, "system_prompt_changed")
    await services().live.follow({PROMPTS})
    return answer


@blueprint.post("/admin/<task_type>/rollback")
@access(is_admin=True)
@operation("Bring back an earlier revision of a system prompt")
async def roll_back(task_type: str, body: SystemPromptRollbackWish) -> SystemPromptRevisionAnswer:
    """Writes the text, description and version of that revision as a new revision. Clients see it within a second. Safe
    to repeat. For administrators.
    """
    _check_task_type(task_type)
    async with services().database.as_operator("roll back a system prompt").transaction() as connection:
        found = await find_prompt_revision(connection, task_type, body.revision)
        if found is None:
            raise NotFound("there is no such revision; GET …/versions lists them")
        prompt = NewPrompt(task_type, found.system_prompt, found.description, found.version)
        answer = await _write(connection, prompt, "system_prompt_rolled_back", restored=body.revision)
    await services().live.follow({PROMPTS})
    return answer


def is_task_type(name: str) -> bool:
    return _TASK_TYPE.fullmatch(name) is not None


def check_wish(task_type: str, wish: SystemPromptWish) -> NewPrompt:
    """Raises ArgumentInvalid, naming the member."""
    _check_task_type(task_type)
    members = {"systemPrompt": wish.system_prompt, "version": wish.version, "description": wish.description or ""}
    for name, text in members.items():
        if "\0" in text:
            raise ArgumentInvalid(f"{name}: it has a NUL character")
        if name != "description" and not text.strip():
            raise ArgumentInvalid(f"{name}: it has nothing but blanks")
    if unknown := find_unknown_placeholders(wish.system_prompt):
        raise ArgumentInvalid(f"systemPrompt: {_show(unknown)} is no placeholder; there are {_show(PLACEHOLDERS)}")
    return NewPrompt(task_type, wish.system_prompt, wish.description or None, wish.version)


def _check_task_type(name: str) -> None:
    if not is_task_type(name):
        raise ArgumentInvalid("the type of task: a-z, 0-9 and _, beginning with a letter, at most 100 of them")


async def _write(
    connection: TrioConnection, prompt: NewPrompt, action: str, restored: int | None = None
) -> SystemPromptRevisionAnswer:
    """What stands now. A change, and nothing else, is told in the audit log."""
    who = caller()
    written = await write_system_prompt(connection, prompt, who.actor)
    if written is not None:
        await services().auditor.log.append(connection, _build_entry(who, action, prompt, written.revision, restored))
    present = written or await find_present_revision(connection, prompt.task_type)
    if present is None:
        raise NotFound("this system prompt was removed meanwhile")
    return _describe_revision(prompt.task_type, present)


def _build_entry(who: Caller, action: str, prompt: NewPrompt, revision: int, restored: int | None) -> AuditEntry:
    """Without the text, which the table keeps for each revision."""
    return services().auditor.build_entry(
        action,
        "success",
        actor=who.actor,
        entity=("system_prompt", prompt.task_type),
        revision=revision,
        version=prompt.version,
        restored=restored,
    )


def _describe(prompt: SystemPrompt) -> SystemPromptAnswer:
    return SystemPromptAnswer(
        id=f"default_{prompt.task_type}",
        task_type=prompt.task_type,
        system_prompt=prompt.system_prompt,
        description=prompt.description,
        version=prompt.version,
        created_at=_seconds(prompt.created_at),
        updated_at=_seconds(prompt.updated_at),
    )


def _describe_revision(task_type: str, found: PromptRevision) -> SystemPromptRevisionAnswer:
    return SystemPromptRevisionAnswer(
        task_type=task_type,
        revision=found.revision,
        version=found.version,
        description=found.description,
        system_prompt=found.system_prompt,
        updated_by=found.updated_by,
        updated_at=_seconds(found.updated_at),
    )


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _show(names: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(f"{{{{{name}}}}}" for name in sorted(names))
