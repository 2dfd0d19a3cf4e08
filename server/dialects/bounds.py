"""How much, and how deep, a client may send of what is passed on as it is. Pure.

Every piece costs some microseconds in which nobody else is served, and a body of our size has room for millions.
"""

from collections.abc import Mapping
from typing import Any

from server.errors import RequestInvalid

MAX_NAME = 200
MAX_DEPTH = 64
"""What is passed on as it is will be written again, further down the stack than it was read."""
MAX_VALUES = 100_000
MAX_TOKENS = 0xFFFFFFFF
MAX_MARKS = 4_000_000
"""Commas and opening brackets of a body: every value in it but one comes after its own. Texts hold them too: about a
million in the longest prompt that any model takes.
"""

_MAX_CACHE_CONTROL_MEMBERS = 8


def check_marks(body: bytes, most: int = MAX_MARKS) -> None:
    """Raises RequestInvalid for a body that holds more values than may be made of it: each becomes an object, many
    times the size of its two bytes.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > most:
        raise RequestInvalid(f"the body: more than {most} commas and brackets")


def check_passed_on(value: object, name: str) -> None:
    """Raises RequestInvalid for JSON that is nested too deeply, or holds too much."""
    level, depth, count = [value], 0, 0
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH:
            raise RequestInvalid(f"{name}: nested too deeply")
        if count > MAX_VALUES:
            raise RequestInvalid(f"{name}: more than {MAX_VALUES} values")
        level = [inner for outer in level for inner in _values(outer)]


def check_name(name: str | None, where: str) -> str | None:
    """A word of the caller's that is passed on, and short."""
    if name is not None and len(name) > MAX_NAME:
        raise RequestInvalid(f"{where}: at most {MAX_NAME} characters")
    return name


def check_count(things: list[Any] | Mapping[str, Any] | None, most: int, where: str) -> None:
    if things is not None and len(things) > most:
        raise RequestInvalid(f"{where}: more than {most}")


def check_range(number: int | None, least: int, most: int, where: str) -> None:
    if number is not None and not least <= number <= most:
        raise RequestInvalid(f"{where}: must be a whole number from {least} to {most}")


def read_cache_control(value: object, where: str) -> dict[str, object] | None:
    """Anthropic's mark, passed on as it is: https://platform.claude.com/docs/en/build-with-claude/prompt-caching."""
    if value is None or value == {}:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise RequestInvalid(f"{where}.cache_control: an object with a type, like {{'type': 'ephemeral'}}")
    is_small = len(value) <= _MAX_CACHE_CONTROL_MEMBERS
    if not is_small or not all(isinstance(one, str) and len(one) <= MAX_NAME for one in value.values()):
        raise RequestInvalid(f"{where}.cache_control: has only a type and a ttl")
    return value


def _values(outer: object) -> list[object]:
    if isinstance(outer, dict):
        return list(outer.values())
    return outer if isinstance(outer, list) else []
