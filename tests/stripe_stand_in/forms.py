"""Stripe's form encoding: `a[b][0][c]=v`, read into nested dicts and lists, and written. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode


def read_form(text: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        path = [part.removesuffix("]") for part in name.split("[")]
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        last = path[-1] or str(len(place))  # `expand[]=…` counts up
        place[last] = value
    return {name: _build_lists(value) for name, value in tree.items()}


def write_form(tree: Mapping[str, Any]) -> str:
    return urlencode([pair for name, value in tree.items() for pair in _flatten(name, value)])


def _build_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    built = {name: _build_lists(member) for name, member in value.items()}
    return list(built.values()) if built and all(name.isdigit() for name in built) else built


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for member, inner in value.items():
            yield from _flatten(f"{name}[{member}]", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flatten(f"{name}[{index}]", inner)
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif value is not None:
        yield name, str(value)
