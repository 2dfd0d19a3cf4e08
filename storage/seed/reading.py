"""Reading the seed's files: `catalogue.toml`, and beside it the texts in `prompts/`."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from storage.errors import StorageError
from storage.seed.entries import (
    CodexCli,
    DocumentEntry,
    ModelEntry,
    PromptEntry,
    ProviderEntry,
    RegionEntry,
    Seed,
    TaskEntry,
)

CATALOGUE = Path(__file__).with_name("catalogue.toml")
MEMBERS: Mapping[str, type] = {
    "providers": dict,
    "models": dict,
    "tasks": dict,
    "codex_cli": dict,
    "max_concurrent_jobs": int,
    "configuration": dict,
    "regions": list,
    "documents": list,
}
REQUIRED = ("providers", "models")

Table = Mapping[str, Any]
Named = Iterable[tuple[str, object]]
Entry = TypeVar("Entry")


class SeedInvalid(StorageError):
    """The files describe no catalogue. Each problem names its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def read_seed(path: Path | None = None) -> Seed:
    """The catalogue in that file, or in ours, and the prompts in the folder `prompts` beside it, if there is one.

    Raises SeedInvalid with all that has another shape than it must have, and OSError.
    """
    source = path or CATALOGUE
    file = _parse(source)
    problems = _check_members(file)
    if problems:
        raise SeedInvalid(problems)
    found = Seed(
        providers=_read_each("provider", _name_providers(file), ProviderEntry, problems),
        models=_read_each("model", _name_models(file), ModelEntry, problems),
        tasks=_read_each("task", _name_each(file.get("tasks", {}), "key"), TaskEntry, problems),
        codex_cli=next(_read("codex_cli", file.get("codex_cli", {}), CodexCli, problems), None),
        max_concurrent_jobs=file.get("max_concurrent_jobs"),
        configuration=file.get("configuration", {}),
        prompts=_read_each("prompt", _name_prompts(source.with_name("prompts")), PromptEntry, problems),
        regions=_read_each("region", _number(file.get("regions", [])), RegionEntry, problems),
        documents=_read_each("document", _number(file.get("documents", [])), DocumentEntry, problems),
    )
    if problems:
        raise SeedInvalid(problems)
    return found


def _parse(source: Path) -> Table:
    """Dates become text, as JSON has none."""
    try:
        file: Table = msgspec.to_builtins(tomllib.loads(_read_text(source)))
    except tomllib.TOMLDecodeError as error:
        raise SeedInvalid([f"the catalogue is no TOML: {error}"]) from error
    return file


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise SeedInvalid([f"{path.name} is not UTF-8: {error}"]) from error


def _check_members(file: Table) -> list[str]:
    unknown = [f"the catalogue: nobody reads {name!r}" for name in file if name not in MEMBERS]
    missing = [f"the catalogue: {name} are missing" for name in REQUIRED if name not in file]
    wrong = [
        f"the catalogue: {name} is of the wrong type"
        for name, type_ in MEMBERS.items()
        if name in file and type(file[name]) is not type_
    ]
    return unknown + missing + wrong


def _read_each(kind: str, tables: Named, type_: type[Entry], problems: list[str]) -> tuple[Entry, ...]:
    return tuple(entry for name, table in tables for entry in _read(f"{kind} {name}", table, type_, problems))


def _read(place: str, table: object, type_: type[Entry], problems: list[str]) -> Iterator[Entry]:
    """One, or none and a problem more."""
    try:
        yield msgspec.convert(table, type_)
    except msgspec.ValidationError as error:
        problems.append(f"{place}: {error}")


def _name_providers(file: Table) -> Named:
    """A provider may be its name alone."""
    tables = {code: {"name": table} if isinstance(table, str) else table for code, table in file["providers"].items()}
    return _name_each(tables, "code")


def _name_models(file: Table) -> Named:
    """What stands before the slash of its id is a model's provider, unless it says another."""
    for model_id, table in _name_each(file["models"], "id"):
        yield model_id, {"provider": model_id.partition("/")[0], **table} if isinstance(table, dict) else table


def _name_each(tables: Table, member: str) -> Named:
    for name, table in tables.items():
        yield name, {**table, member: name} if isinstance(table, dict) else table


def _number(tables: Sequence[object]) -> Named:
    return ((str(number), table) for number, table in enumerate(tables, 1))


def _name_prompts(folder: Path) -> Named:
    for path in sorted(folder.glob("*.md")):
        yield path.stem, split_prompt(path.stem, _read_text(path))


def split_prompt(task_type: str, content: str) -> Table:
    """Lines like `version: 1.0` and `description: …`, a blank line, and then the text."""
    head, _, text = content.partition("\n\n")
    members = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in head.splitlines())}
    return {**members, "task_type": task_type, "system_prompt": text.strip()}
