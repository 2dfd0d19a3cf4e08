"""How a request for thinking is put to each generation of models."""

from typing import Any

import pytest

from proxy.chat import ChatRequest, Message, Sampling, Text
from proxy.dialects.anthropic.models import ModelWays
from proxy.dialects.anthropic.thinking import build_effort, build_thinking
from proxy.errors import RequestNotSupported

BUDGET = ModelWays("budget", takes_effort=False, randomness="one")
EITHER = ModelWays("either", takes_effort=True, randomness="one")
ADAPTIVE = ModelWays("adaptive", takes_effort=True, randomness="none")
NEVER = ModelWays("never", takes_effort=False, randomness="both")


def thinking(ways: ModelWays, max_tokens: int = 10_000, **sampling: Any) -> object:
    wanted = Sampling(**sampling)
    return build_thinking(ChatRequest("x", (Message("user", (Text("Hi"),)),), sampling=wanted), ways, max_tokens)


@pytest.mark.parametrize(
    ("asked", "max_tokens", "sent"),
    [(2000, 10_000, 2000), (500, 10_000, 1024), (10_000, 10_000, 9999), (9, 1025, 1024)],
)
def test_a_budget_stays_below_max_tokens_and_above_the_least(asked: int, max_tokens: int, sent: int) -> None:
    for ways in (BUDGET, EITHER):
        built = thinking(ways, max_tokens, reasoning_tokens=asked)
        assert built == {"type": "enabled", "budget_tokens": sent}


@pytest.mark.parametrize(
    ("effort", "budget"), [("minimal", 1024), ("low", 2000), ("medium", 5000), ("high", 8000), ("max", 9500)]
)
def test_models_without_effort_get_a_share_of_max_tokens(effort: str, budget: int) -> None:
    assert thinking(BUDGET, reasoning_effort=effort) == {"type": "enabled", "budget_tokens": budget}


def test_newer_models_think_as_much_as_they_see_fit() -> None:
    for ways in (EITHER, ADAPTIVE):
        assert thinking(ways, 100, reasoning_effort="high") == {"type": "adaptive"}


@pytest.mark.parametrize("asked", [{"reasoning_tokens": 0}, {"reasoning_effort": "none"}])
def test_thinking_can_be_switched_off(asked: dict[str, Any]) -> None:
    for ways in (BUDGET, EITHER, ADAPTIVE):
        assert thinking(ways, **asked) == {"type": "disabled"}
    assert thinking(NEVER, **asked) is None
    assert thinking(ADAPTIVE) is None


@pytest.mark.parametrize(
    ("summary", "display"), [("auto", "summarized"), ("detailed", "summarized"), ("none", "omitted")]
)
def test_whether_thoughts_are_told(summary: str, display: str) -> None:
    built = thinking(BUDGET, reasoning_tokens=2000, reasoning_summary=summary)
    assert built == {"type": "enabled", "budget_tokens": 2000, "display": display}


def test_a_summary_alone_does_not_make_a_model_think_that_would_not() -> None:
    assert thinking(BUDGET, reasoning_summary="auto") is None
    assert thinking(EITHER, reasoning_summary="auto") is None
    assert thinking(ADAPTIVE, reasoning_summary="none") is None
    assert thinking(ADAPTIVE, reasoning_summary="auto") == {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("ways", "max_tokens", "asked", "field"),
    [
        (ADAPTIVE, 9000, {"reasoning_tokens": 2000}, "reasoning_tokens: this model takes no budget"),
        (BUDGET, 1024, {"reasoning_tokens": 2000}, "reasoning_tokens: thinking takes at least 1024"),
        (BUDGET, 1024, {"reasoning_effort": "low"}, "reasoning_effort: thinking takes at least 1024"),
        (BUDGET, 9000, {"reasoning_effort": "huge"}, "reasoning_effort: one of"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    ways: ModelWays, max_tokens: int, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestNotSupported, match=field):
        thinking(ways, max_tokens, **asked)


def test_effort_goes_to_models_that_know_it() -> None:
    said = [build_effort(Sampling(reasoning_effort=effort), ADAPTIVE) for effort in (None, "none", "minimal", "xhigh")]
    assert said == [None, None, "low", "xhigh"]
    assert build_effort(Sampling(reasoning_effort="high"), BUDGET) is None
