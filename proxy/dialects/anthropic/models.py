"""What Claude models differ in, by name: each generation takes other fields.

https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking and …/effort say which model thinks how;
https://platform.claude.com/docs/en/about-claude/models/migration-guide which fields were withdrawn when.
"""

import re
from dataclasses import dataclass
from typing import Literal

from proxy.provider import Target

Thinking = Literal["never", "budget", "either", "adaptive"]
Randomness = Literal["both", "one", "none"]

_NAMED_FIRST = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_NAMED_LAST = re.compile(r"claude-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?:-(?P<family>[a-z]+))?(?!\d)")
_NEWEST = (99, 0)
_COMPATIBLE = (4, 0)


@dataclass(frozen=True, slots=True)
class ModelWays:
    """`thinking`: with a budget of tokens, as deep as the model sees fit (adaptive), or either.

    `randomness`: whether temperature and top_p may be sent, both at once or only one of them.
    """

    thinking: Thinking
    takes_effort: bool
    randomness: Randomness


def read_ways(target: Target) -> ModelWays:
    """The catalogue's `reasoning` (False, `budget`, `adaptive`) and `temperature` (a bool) have precedence over the
    name.
    """
    family, version = _read_name(target.provider_model)
    thinking = _thinking(target.capabilities.get("reasoning"), version)
    takes_effort = thinking in {"either", "adaptive"} or (family == "opus" and version == (4, 5))
    return ModelWays(thinking, takes_effort, _randomness(target.capabilities.get("temperature"), version))


def _read_name(name: str) -> tuple[str, tuple[int, int]]:
    """A Claude without a number is taken for a new one; what is no Claude speaks a dialect like that of Claude 4."""
    found = _NAMED_FIRST.search(name) or _NAMED_LAST.search(name)
    if found is None:
        return "", _NEWEST if "claude" in name else _COMPATIBLE
    return found["family"] or "", (int(found["major"]), int(found["minor"] or 0))


def _thinking(said: object, version: tuple[int, int]) -> Thinking:
    if said is False or version < (3, 7):
        return "never"
    match said:
        case "adaptive" | "budget":
            return said
    if version == (4, 6):
        return "either"
    return "budget" if version < (4, 6) else "adaptive"


def _randomness(said: object, version: tuple[int, int]) -> Randomness:
    if said is False or (said is None and version > (4, 6)):
        return "none"
    return "one" if version > (4, 0) else "both"
