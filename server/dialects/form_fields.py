"""The text fields of a form, as clients write them: each named in the error if it is not of the form. Pure."""

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from server.errors import ArgumentInvalid, RequestInvalid

Fields = Mapping[str, Sequence[str]]
"""By name, the values in their order."""

MAX_LISTED = 100

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0", ""})


def read_one(fields: Fields, name: str) -> str | None:
    """Trimmed; None if it is absent or blank. Raises RequestInvalid for a field that comes twice."""
    values = fields.get(name, ())
    if len(values) > 1:
        raise RequestInvalid(f"{name}: once, please; it came {len(values)} times")
    return values[0].strip() or None if values else None


def read_list(fields: Fields, name: str, most: int = MAX_LISTED) -> list[str]:
    """The values of a field that may come several times: as `name[]`, as libraries write it, or as `name`."""
    found = [value.strip() for key in (name, f"{name}[]") for value in fields.get(key, ()) if value.strip()]
    if len(found) > most:
        raise ArgumentInvalid(f"{name}: at most {most} of them")
    return found


def read_number(fields: Fields, name: str) -> float | None:
    """A finite number. Raises ArgumentInvalid."""
    text = read_one(fields, name)
    if text is None:
        return None
    try:
        found = msgspec.convert(text, float, strict=False)
    except msgspec.ValidationError as error:
        raise ArgumentInvalid(f"{name}: a number") from error
    if not math.isfinite(found):
        raise ArgumentInvalid(f"{name}: a number that is finite")
    return found


def read_temperature(fields: Fields, most: float) -> float | None:
    """Three decimals. Raises ArgumentInvalid."""
    found = read_number(fields, "temperature")
    if found is not None and not 0 <= found <= most:
        raise ArgumentInvalid(f"temperature: a number from 0 to {most:g}")
    return None if found is None else round(found, 3)


def read_flag(fields: Fields, name: str) -> bool:
    """Raises ArgumentInvalid."""
    word = (read_one(fields, name) or "").lower()
    if word not in _TRUE | _FALSE:
        raise ArgumentInvalid(f"{name}: true or false")
    return word in _TRUE


def check_no_control(text: str, name: str) -> str:
    if _CONTROL.search(text):
        raise RequestInvalid(f"{name}: no control characters, please")
    return text
