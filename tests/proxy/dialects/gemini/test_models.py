"""How each generation of Gemini is told to think."""

from typing import Any

import pytest

from proxy.chat import Sampling
from proxy.dialects.gemini.models import build_thinking, generation

THOUGHTS = {"includeThoughts": True}


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gemini-2.5-flash", (2, 5)),
        ("models/gemini-2.5-pro", (2, 5)),
        ("gemini-2.0-flash-lite-001", (2, 0)),
        ("gemini-live-2.5-flash", (2, 5)),
        ("gemini-3-pro-preview", (3, 0)),
        ("gemini-3.10-flash", (3, 10)),
        ("gemini-4-argon", (4, 0)),
        ("gemini-flash-latest", (3, 0)),
        ("gemini-exp-1206", (3, 0)),
        ("", (3, 0)),
    ],
)
def test_a_name_says_its_generation(model: str, known: tuple[int, int]) -> None:
    assert generation(model) == known


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128} | THOUGHTS),
        ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1024} | THOUGHTS),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192} | THOUGHTS),
        ("gemini-2.5-pro", "xhigh", {"thinkingBudget": 24_576} | THOUGHTS),
        ("gemini-3-flash-preview", "none", {"thinkingLevel": "minimal"} | THOUGHTS),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "low"} | THOUGHTS),
        ("gemini-3.8-flash-lite", "minimal", {"thinkingLevel": "minimal"} | THOUGHTS),
        ("gemini-flash-latest", "minimal", {"thinkingLevel": "low"} | THOUGHTS),
        ("gemini-3.1-pro-preview", "none", {"thinkingLevel": "low"} | THOUGHTS),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "high"} | THOUGHTS),
        ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "medium"} | THOUGHTS),
        ("gemini-3-flash-preview", "medium", {"thinkingLevel": "medium"} | THOUGHTS),
        ("gemini-3-pro-preview", "max", {"thinkingLevel": "high"} | THOUGHTS),
        ("gemini-3-pro-preview", "odd", {"thinkingLevel": "odd"} | THOUGHTS),
    ],
)
def test_an_effort_is_a_budget_or_a_level(model: str, effort: str, config: dict[str, Any]) -> None:
    assert build_thinking(Sampling(reasoning_effort=effort), model, {}) == config


@pytest.mark.parametrize(
    ("model", "effort", "room", "config"),
    [
        ("gemini-2.5-flash", None, 20_000, {"thinkingBudget": 10_000} | THOUGHTS),
        ("gemini-2.5-flash", None, 1024, {"thinkingBudget": 512} | THOUGHTS),
        ("gemini-2.5-flash", None, 200, {"thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", None, 1000, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", None, 100, {"thinkingBudget": 128} | THOUGHTS),
        ("gemini-2.5-flash", "high", 8192, {"thinkingBudget": 6553} | THOUGHTS),
        ("gemini-2.5-flash", "low", 8192, {"thinkingBudget": 1024} | THOUGHTS),
        ("gemini-2.5-pro", "odd", 8192, {"thinkingBudget": 4096} | THOUGHTS),
        ("gemini-3-pro-preview", None, 8192, THOUGHTS),
        ("gemini-3-pro-preview", None, 1024, {"thinkingLevel": "low"} | THOUGHTS),
        ("gemini-3-pro-preview", "high", 1024, {"thinkingLevel": "high"} | THOUGHTS),
    ],
)
def test_thoughts_leave_room_for_the_answer(
    model: str, effort: str | None, room: int, config: dict[str, Any]
) -> None:
    asked = Sampling(reasoning_effort=effort)
    assert build_thinking(asked, model, {"thinking": True}, room) == config
    exact = Sampling(reasoning_tokens=9000)
    assert build_thinking(exact, model, {}, room) == {"thinkingBudget": 9000} | THOUGHTS


def test_a_number_of_tokens_is_sent_alone() -> None:
    both = Sampling(reasoning_effort="low", reasoning_tokens=500)
    for model in ("gemini-2.5-flash", "gemini-3-pro-preview"):
        assert build_thinking(both, model, {}) == {"thinkingBudget": 500} | THOUGHTS
    assert build_thinking(Sampling(reasoning_tokens=0), "gemini-2.5-flash", {}) == {"thinkingBudget": 0}


@pytest.mark.parametrize(
    ("model", "capabilities", "config"),
    [
        ("gemini-2.5-pro", {"thinking": True}, {"thinkingBudget": 10_000} | THOUGHTS),
        ("gemini-3-flash-preview", {"thinking": True}, THOUGHTS),
        ("gemini-2.0-flash", {"thinking": True}, None),
        ("gemini-2.5-pro", {"thinking": "yes"}, None),
        ("gemini-2.5-pro", {}, None),
    ],
)
def test_a_model_of_the_catalogue_may_think_unasked(model: str, capabilities: dict[str, object], config: Any) -> None:
    assert build_thinking(Sampling(), model, capabilities) == config


def test_thoughts_are_told_when_asked_for_and_not_when_unwanted() -> None:
    told, untold = Sampling(reasoning_summary="auto"), Sampling(reasoning_summary="none", reasoning_tokens=9)
    assert build_thinking(told, "gemini-2.5-pro", {}) == THOUGHTS
    assert build_thinking(untold, "gemini-2.5-pro", {}) == {"thinkingBudget": 9}
    off = Sampling(reasoning_summary="auto", reasoning_tokens=0)
    assert build_thinking(off, "gemini-2.5-pro", {}) == {"thinkingBudget": 0}
