"""What applying a seed would change, row by row. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from storage.seed.checking import AI_SETTINGS
from storage.seed.entries import ModelEntry, Seed

Kind = Literal["provider", "model", "setting", "prompt", "region", "document"]
Rows = Mapping[tuple[Kind, str], "Row"]

LONGEST_VALUE = 60
"""Characters of a value that are shown; of what is longer only the length."""
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """`values` are the columns, JSON ones decoded. One that is not `ours` an administrator has changed."""

    values: Mapping[str, Any]
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """`values` are what is written; none for what goes. What is kept stays as it is, and is told."""

    action: Literal["add", "change", "remove", "keep"]
    kind: Kind
    key: str
    values: Mapping[str, Any]
    lines: tuple[str, ...]


def build_rows(seed: Seed) -> dict[tuple[Kind, str], Row]:
    """As the database would have them."""
    rows: dict[tuple[Kind, str], Row] = {}
    for provider in seed.providers:
        rows["provider", provider.code] = Row(_values(provider))
    for model in seed.models:
        rows["model", model.id] = Row(_build_model(model))
    for key, value in _build_configuration(seed).items():
        rows["setting", key] = Row({"value": value})
    for prompt in seed.prompts:
        rows["prompt", prompt.task_type] = Row(_values(prompt))
    for region in sorted(seed.regions, key=lambda region: region.is_default):
        rows["region", region.label] = Row(_values(region))
    for document in seed.documents:
        rows["document", f"{document.doc_type} {document.region} {document.version}"] = Row(_values(document))
    return rows


def find_changes(wanted: Rows, found: Rows, *, overwrite: bool = False) -> list[Change]:
    """What goes first, then the rest in the order of `wanted`. `overwrite`: also what an administrator has changed."""
    gone = [change for place, row in found.items() if place not in wanted for change in _remove(place, row)]
    rest = [change for place, row in wanted.items() for change in _compare(place, row, found.get(place), overwrite)]
    return gone + rest


def _values(entry: msgspec.Struct, *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(entry).items() if name not in left_out}


def _build_model(model: ModelEntry) -> dict[str, Any]:
    values = _values(model, "price_source", "priced_on", "price_ends_on", "retires_on") | {"status": "active"}
    if model.retires_on is None:
        return values
    words = [model.description, f"Switched off by its provider on {model.retires_on}."]
    return values | {"description": " ".join(filter(None, words))}


def _build_configuration(seed: Seed) -> dict[str, Any]:
    if not seed.tasks:
        return dict(seed.configuration)
    tasks = {task.key: _values(task, "key") for task in seed.tasks}
    settings = {"tasks": tasks, "max_concurrent_jobs": seed.max_concurrent_jobs, "codex_cli": seed.codex_cli}
    return {**seed.configuration, AI_SETTINGS: msgspec.to_builtins(settings)}


def _remove(place: tuple[Kind, str], row: Row) -> Iterator[Change]:
    """Versions of documents, prompts and settings are kept: what a file does not name it says nothing of."""
    kind, key = place
    if kind == "region":
        yield Change("remove", kind, key, _NOTHING, (f"- region {key}",))
    if kind in {"provider", "model"} and row.values["status"] not in {"inactive", "deprecated"}:
        yield Change("remove", kind, key, _NOTHING, (f"- {kind} {key} (out of service)",))


def _compare(place: tuple[Kind, str], wanted: Row, found: Row | None, overwrite: bool) -> Iterator[Change]:
    kind, key = place
    if found is None:
        yield Change("add", kind, key, wanted.values, (f"+ {kind} {key}",))
    elif found.values != wanted.values and not found.is_ours and not overwrite:
        line = f"= {kind} {key}: kept, an administrator has changed it"
        yield Change("keep", kind, key, _NOTHING, (line,))
    elif found.values != wanted.values:
        lines = tuple(f"~ {kind} {key}: {words}" for words in _tell(_content(found), _content(wanted)))
        yield Change("change", kind, key, wanted.values, lines or (f"~ {kind} {key}",))


def _content(row: Row) -> Any:
    """Of a setting its value, which is all that it has."""
    return row.values.get("value", row.values)


def _tell(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for member in [*old, *(member for member in new if member not in old)]:
            yield from _tell(old.get(member), new.get(member), f"{name}.{member}" if name else member)
    elif old != new:
        yield f"{name or 'value'} {_show(old)} -> {_show(new)}"


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')
    return text if len(text) <= LONGEST_VALUE and "\n" not in text else f"({len(text)} characters)"
