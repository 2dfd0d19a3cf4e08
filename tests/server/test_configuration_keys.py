"""What each key of the configuration may say."""

from typing import Any

import pytest

from server.ai_settings import REQUIRED_TASKS
from server.configuration_keys import KEYS, PUBLIC_KEYS, check_value
from tests.server.offered_models import build_offered, build_row

ROWS, MODELS = build_offered(build_row("openai/a"))
TASK = {"model": "openai/a", "max_tokens": 1, "temperature": 0}

GOOD: dict[str, list[Any]] = {
    "ai_settings": [{"tasks": dict.fromkeys(REQUIRED_TASKS, TASK)}],
    "billing_free_credits_amount": ["2.00", 0, 2.5],
    "billing_free_credits_expiry_days": ["180", 1, 365],
    "billing_max_credit_purchase": [1000, "50"],
    "billing_max_top_offs_per_day": [1, 5, 100],
    "credit_purchase_fee_tiers": [{"tiers": [{"min": 3, "max": None, "fee_rate": 0.2, "label": "ONE"}]}],
    "onboarding_videos": [{}, {"intro": "a/b.m3u8"}],
}
BAD: dict[str, list[Any]] = {
    "ai_settings": [None, [], {}, {"tasks": {}}, {"tasks": {"a\0": TASK}}],
    "billing_free_credits_amount": [None, "-1", "much", {}, 1001, True],
    "billing_free_credits_expiry_days": [None, 0, 366, "x", 1.5],
    "billing_max_credit_purchase": [None, 0, "1E9", []],
    "billing_max_top_offs_per_day": [None, 0, 101, 5.0, True, "5"],
    "credit_purchase_fee_tiers": [None, {}, {"tiers": []}, {"tiers": [{"min": 3, "max": 2, "fee_rate": 0.2}]}],
    "onboarding_videos": [None, [], {"intro": "a b"}, {"intro": 1}],
}


def check(key: str, value: Any) -> list[str]:
    return check_value(key, value, ROWS, MODELS)


def test_every_key_is_looked_at_here() -> None:
    assert GOOD.keys() == BAD.keys() == KEYS
    assert PUBLIC_KEYS <= KEYS


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in sorted(GOOD) for value in GOOD[key]])
def test_what_is_right_has_no_problems(key: str, value: Any) -> None:
    assert check(key, value) == []


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in sorted(BAD) for value in BAD[key]])
def test_what_is_wrong_is_told(key: str, value: Any) -> None:
    assert check(key, value)


def test_all_that_is_wrong_is_told() -> None:
    problems = check("ai_settings", {"tasks": {}, "max_concurrent_jobs": 0})
    assert len(problems) == len(REQUIRED_TASKS) + 1


@pytest.mark.parametrize("value", ["\0", {"\0": 1}, {"a": [{"b": "x\0"}]}])
def test_a_nul_which_no_row_can_keep_is_told(value: Any) -> None:
    assert check("onboarding_videos", value) == ["it has a NUL character"]
