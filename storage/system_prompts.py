"""System prompts: what models are told before a task. Every revision is kept: a trigger adds it to the versions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

PLACEHOLDERS = frozenset(
    {"CURRENT_DATE", "CUSTOM_INSTRUCTIONS", "DIRECTORY_TREE", "FILE_CONTENTS", "PROJECT_CONTEXT"}
)
"""What clients put something in the place of, written `{{NAME}}`."""
MAX_PROMPT = 200_000
MAX_VERSION = 50

_PLACEHOLDER = re.compile(r"\{\{(\s*[A-Za-z_][\w .-]*)\}\}")


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """What stands for a task now. `version` is for people, `revision` counts changes from 1. `updated_by` is `seed`, or
    an actor as the audit log has it.
    """

    task_type: str
    system_prompt: str
    description: str | None
    version: str
    revision: int
    created_at: datetime
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True, slots=True)
class PromptRevision:
    """What stood for a task, or stands."""

    revision: int
    system_prompt: str
    description: str | None
    version: str
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """No NUL in its texts; they and the name of the task are as long and of the form as the table wants them."""

    task_type: str
    system_prompt: str
    description: str | None
    version: str


def find_unknown_placeholders(text: str) -> list[str]:
    """Names in double braces that no client replaces, in alphabetical order. Case and blanks count."""
    return sorted({name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS})


async def read_system_prompts(database: Database) -> Mapping[str, SystemPrompt]:
    """By task type, in the order of their names, byte by byte."""
    rows = await database.as_operator("read the system prompts").fetch(_READ)
    return {row[0]: SystemPrompt(*row) for row in rows}


async def read_prompt_revisions(
    database: Database, task_type: str, before: int | None = None, limit: int = 20
) -> list[PromptRevision]:
    """The newest first, of those that are older than `before`."""
    parameters = {"task_type": task_type, "before": before, "limit": limit}
    rows = await database.as_operator("read the versions of a system prompt").fetch(_READ_REVISIONS, parameters)
    return [PromptRevision(*row) for row in rows]


async def find_prompt_revision(connection: TrioConnection, task_type: str, revision: int) -> PromptRevision | None:
    """In the operator's transaction. The revision is below 2³¹."""
    rows = await connection.send(connection.bind(_FIND_REVISION, (task_type, revision)))
    return PromptRevision(*rows[0]) if rows else None


async def write_system_prompt(connection: TrioConnection, prompt: NewPrompt, updated_by: str) -> PromptRevision | None:
    """In the operator's transaction that also notes it in the audit log. None, and no new revision, if it stands like
    that already: so it is safe to repeat.
    """
    values = {
        "task_type": prompt.task_type,
        "system_prompt": prompt.system_prompt,
        "description": prompt.description,
        "version": prompt.version,
        "updated_by": updated_by,
    }
    rows = await connection.send(connection.bind(_WRITE, values))
    return PromptRevision(*rows[0]) if rows else None


async def find_present_revision(connection: TrioConnection, task_type: str) -> PromptRevision | None:
    """In the operator's transaction."""
    rows = await connection.send(connection.bind(_FIND_PRESENT, (task_type,)))
    return PromptRevision(*rows[0]) if rows else None


_READ: LiteralString = """
    SELECT task_type, system_prompt, description, version, revision, created_at, updated_at, updated_by
    FROM system_prompts ORDER BY task_type COLLATE "C"
"""

_FIND_PRESENT: LiteralString = """
    SELECT revision, system_prompt, description, version, updated_by, updated_at
    FROM system_prompts WHERE task_type = %s
"""

_READ_REVISIONS: LiteralString = """
    SELECT revision, system_prompt, description, version, updated_by, updated_at
    FROM system_prompt_versions
    WHERE task_type = %(task_type)s AND (%(before)s::integer IS NULL OR revision < %(before)s::integer)
    ORDER BY revision DESC LIMIT %(limit)s
"""

_FIND_REVISION: LiteralString = """
    SELECT revision, system_prompt, description, version, updated_by, updated_at
    FROM system_prompt_versions WHERE task_type = %s AND revision = %s
"""

# What a writer finds it compares after it has waited for the one before it, so each change is one revision.
_WRITE: LiteralString = """
    INSERT INTO system_prompts AS present (task_type, system_prompt, description, version, updated_by)
    VALUES (%(task_type)s, %(system_prompt)s, %(description)s, %(version)s, %(updated_by)s)
    ON CONFLICT (task_type) DO UPDATE SET system_prompt = excluded.system_prompt, description = excluded.description,
        version = excluded.version, updated_by = excluded.updated_by
        WHERE (present.system_prompt, present.description, present.version)
            IS DISTINCT FROM (excluded.system_prompt, excluded.description, excluded.version)
    RETURNING revision, system_prompt, description, version, updated_by, updated_at
"""
