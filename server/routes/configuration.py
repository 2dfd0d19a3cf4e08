"""The configuration: what clients start with, and what administrators change, with every version that it had."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from quart import Blueprint, Response

from server.configuration_keys import KEYS, PUBLIC_KEYS, check_value
from server.errors import NotFound, RequestInvalid, VersionConflict
from server.guard import access, caller
from server.live_configuration import CONFIGURATION
from server.operations import EMPTY, JSON, Content, answer_version, operation
from server.runtime_configuration import RuntimeConfiguration
from server.services import services
from server.times import show_time
from storage.configuration import (
    Configuration,
    ConfigurationVersion,
    find_configuration,
    find_configuration_version,
    lock_configuration,
    write_configuration,
)
from storage.psycopg_trio import TrioConnection

MOST_VERSIONS = 100
MOST_TOLD = 100
"""Of what is wrong with a value."""
MAX_VERSION = 2**31 - 1

Version = Annotated[int, msgspec.Meta(ge=0, le=MAX_VERSION)]

blueprint = Blueprint("configuration", __name__, url_prefix="/api/config")


class ConfigurationAnswer(msgspec.Struct, rename="camel"):
    """A setting as it stands. `version` counts its changes; 0: nobody has set it, and the server's own default counts.
    `updatedBy` is `seed`, `user:<id>` or `api_key:<id>`; `updatedAt` is UTC.
    """

    key: str
    value: Any
    version: int
    updated_at: str | None
    updated_by: str | None


class ConfigurationVersionAnswer(msgspec.Struct, rename="camel"):
    """What a setting said from `updatedAt` on."""

    version: int
    value: Any
    updated_at: str
    updated_by: str


class ConfigurationVersionsAnswer(msgspec.Struct):
    """The newest comes first: it is the one that counts."""

    versions: Sequence[ConfigurationVersionAnswer]


class ConfigurationVersionsQuery(msgspec.Struct):
    """`before` is the last version of the page before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_VERSIONS)] = 20
    before: Version | None = None


class ConfigurationWish(msgspec.Struct, rename="camel"):
    """The whole value. With `expectedVersion` it is written only if that version still stands; 0: if there is none."""

    value: Any
    expected_version: Version | None = None


class ConfigurationRollbackWish(msgspec.Struct):
    """One of the versions that the list of versions has."""

    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]


@blueprint.get("/desktop-runtime-config")
@blueprint.get("/runtime")
@operation(
    "Show the tasks and models to start with",
    answers={
        200: Content(RuntimeConfiguration),
        304: Content(media_type=EMPTY, description="What `If-None-Match` names is still right"),
    },
)
async def show_runtime() -> Response:
    """Which model does which task, and all models that can be called here, with their prices. Every answer has an
    `ETag`; send it back in `If-None-Match`, and the answer is 304 until something has changed.
    """
    document = services().live.runtime
    return answer_version(document.body, JSON, document.etag.strip('"'), {"Cache-Control": "private, no-cache"})


@blueprint.get("/all-configurations")
@operation("Show the configuration")
async def show_all() -> Mapping[str, Any]:
    """All settings by their keys, for administrators; for others those that concern clients."""
    found = services().live.configuration
    return {key: value for key, value in found.items() if caller().is_admin or key in PUBLIC_KEYS}


@blueprint.get("/admin/<key>")
@access(is_admin=True)
@operation("Show a setting")
async def show(key: str) -> ConfigurationAnswer:
    """As it stands now, with its version. For administrators."""
    _check_key(key)
    return _describe(key, await Configuration(services().database).find(key))


@blueprint.get("/admin/<key>/versions")
@access(is_admin=True)
@operation("List the versions of a setting")
async def show_versions(key: str, query: ConfigurationVersionsQuery) -> ConfigurationVersionsAnswer:
    """Every value that it had, the newest first. For administrators."""
    _check_key(key)
    found = await Configuration(services().database).list_versions(key, query.before, query.limit)
    return ConfigurationVersionsAnswer([_describe_version(version) for version in found])


@blueprint.put("/admin/<key>")
@access(is_admin=True)
@operation("Change a setting")
async def save(key: str, body: ConfigurationWish) -> ConfigurationAnswer:
    """Replaces the whole value, if all of it is right. It counts within a second, on all servers, and the value before
    it stays in the list of versions. Safe to repeat: the same value again makes no new version. For administrators.
    """
    _check_key(key)
    _check_value(key, body.value)
    async with services().database.as_operator("change the configuration").transaction() as connection:
        await lock_configuration(connection)
        present = await find_configuration(connection, key)
        _check_version(present, body.expected_version)
        written = await _write(connection, "configuration_changed", key, body.value)
    await services().live.follow({CONFIGURATION})
    return _describe(key, written or present)


@blueprint.post("/admin/<key>/rollback")
@access(is_admin=True)
@operation("Bring back an earlier version of a setting")
async def roll_back(key: str, body: ConfigurationRollbackWish) -> ConfigurationAnswer:
    """Writes the value of that version as a new version, if it is still right: a model that it names may be gone. For
    administrators.
    """
    _check_key(key)
    async with services().database.as_operator("roll back the configuration").transaction() as connection:
        await lock_configuration(connection)
        present = await find_configuration(connection, key)
        earlier = await find_configuration_version(connection, key, body.version)
        if earlier is None:
            raise NotFound(f"there is no version {body.version} of {key}; GET …/versions lists them")
        _check_value(key, earlier.value)
        written = await _write(connection, "configuration_rolled_back", key, earlier.value, restored=body.version)
    await services().live.follow({CONFIGURATION})
    return _describe(key, written or present)


def _check_key(key: str) -> None:
    if key not in KEYS:
        raise NotFound(f"there is no such setting; there are {', '.join(sorted(KEYS))}")


def _check_value(key: str, value: Any) -> None:
    """Raises RequestInvalid, with everything that is wrong."""
    catalogue = services().live.catalogue
    problems = check_value(key, value, catalogue.rows, catalogue.models)
    if problems:
        more = [f"and {len(problems) - MOST_TOLD} more"] if len(problems) > MOST_TOLD else []
        raise RequestInvalid("; ".join([f"{key}: {problem}" for problem in problems[:MOST_TOLD]] + more))


def _check_version(present: ConfigurationVersion | None, expected: int | None) -> None:
    version = 0 if present is None else present.version
    if expected is not None and expected != version:
        raise VersionConflict(f"version {version} stands now, not {expected}: somebody has changed it meanwhile")


async def _write(
    connection: TrioConnection, action: str, key: str, value: Any, restored: int | None = None
) -> ConfigurationVersion | None:
    """None if it says so already: then nothing is written, and nothing told. The versions keep the values themselves,
    so the audit log has none.
    """
    who = caller()
    written = (await write_configuration(connection, {key: value}, who.actor)).get(key)
    if written is not None:
        auditor = services().auditor
        entity = ("configuration", key)
        entry = auditor.build_entry(
            action, "success", actor=who.actor, entity=entity, version=written.version, restored=restored
        )
        await auditor.log.append(connection, entry)
    return written


def _describe(key: str, found: ConfigurationVersion | None) -> ConfigurationAnswer:
    if found is None:
        return ConfigurationAnswer(key, None, 0, None, None)
    return ConfigurationAnswer(key, found.value, found.version, show_time(found.updated_at), found.updated_by)


def _describe_version(found: ConfigurationVersion) -> ConfigurationVersionAnswer:
    return ConfigurationVersionAnswer(found.version, found.value, show_time(found.updated_at), found.updated_by)
