"""Whether a JSON text has an object with an underscore in a key: clients drop every message that has. Pure.

Only for texts that are known to be valid JSON. No object is built: of the strings that have an underscore at all, each
is run through once, to see whether a colon follows it.
"""

import re

_REST_OF_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\n\r]*+(:)?', re.DOTALL)
_ESCAPE = "\\u005"


def has_underscored_key(text: str) -> bool:
    """Written as it is, or as the escape `\\u005f`."""
    return ("_" in text and _finds_plain(text)) or (_ESCAPE in text and _finds_escaped(text))


def _finds_plain(text: str) -> bool:
    at = text.find("_")
    while at >= 0:
        end = _end_of_string(text, at + 1)
        if end is None:
            return True
        at = text.find("_", end)
    return False


def _finds_escaped(text: str) -> bool:
    at = text.find(_ESCAPE)
    while at >= 0:
        end = at + len(_ESCAPE)
        if text[end] in "fF" and _count_backslashes(text, at) % 2 == 0:
            past = _end_of_string(text, end)
            if past is None:
                return True
            end = past
        at = text.find(_ESCAPE, end)
    return False


def _end_of_string(text: str, at: int) -> int | None:
    """Where the string ends that goes on at this place; None if it is a key."""
    found = _REST_OF_STRING.match(text, at)
    if found is None:
        raise ValueError("no JSON")
    return None if found[1] else found.end()


def _count_backslashes(text: str, before: int) -> int:
    at = before
    while at and text[at - 1] == "\\":
        at -= 1
    return before - at
