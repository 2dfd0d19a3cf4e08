"""The keys of the configuration that administrators change, and what each may say. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from proxy.routing import Model
from server.ai_settings import check_ai_settings, read_ai_settings
from server.billing.terms import (
    FEE_TIERS,
    FREE_AMOUNT,
    FREE_DAYS,
    MAX_PURCHASE,
    read_free_amount,
    read_free_days,
    read_max_purchase,
    read_tiers,
)
from server.billing.top_off_rules import MAX_PER_DAY_KEY, read_max_per_day
from server.onboarding_videos import check_videos
from storage.catalogue import ModelRow

AI_SETTINGS = "ai_settings"
ONBOARDING_VIDEOS = "onboarding_videos"
PUBLIC_KEYS = frozenset({AI_SETTINGS, ONBOARDING_VIDEOS})
"""Those that everybody may read who is signed in."""

_READERS: Mapping[str, Callable[[Any], object]] = {
    FREE_AMOUNT: read_free_amount,
    FREE_DAYS: read_free_days,
    MAX_PURCHASE: read_max_purchase,
    FEE_TIERS: read_tiers,
}
KEYS = frozenset({*_READERS, AI_SETTINGS, ONBOARDING_VIDEOS, MAX_PER_DAY_KEY})


def check_value(key: str, value: Any, rows: Mapping[str, ModelRow], models: Mapping[str, Model]) -> list[str]:
    """Everything that is wrong with this value of one of KEYS, a line each. `rows` are all models of the catalogue,
    `models` those of them that have a price.
    """
    if _has_nul(value):
        return ["it has a NUL character"]
    try:
        return _check(key, value, rows, models)
    except ValueError as error:  # what msgspec raises is one, too
        return [str(error)]


def _check(key: str, value: Any, rows: Mapping[str, ModelRow], models: Mapping[str, Model]) -> list[str]:
    if key == AI_SETTINGS:
        return check_ai_settings(read_ai_settings(value), rows, models)
    if key == ONBOARDING_VIDEOS:
        return check_videos(value)
    if key == MAX_PER_DAY_KEY:
        is_read = isinstance(value, int) and read_max_per_day({key: value}) == value
        return [] if is_read else ["it must be a whole number from 1 to 100"]
    _READERS[key](value)
    return []


def _has_nul(value: Any) -> bool:
    """PostgreSQL keeps none. Without recursion: a value may be nested as deeply as JSON can be read."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, str) and "\0" in found:
            return True
    return False
