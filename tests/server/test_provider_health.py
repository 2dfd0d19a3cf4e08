"""What a provider's health is, from breakers and outcomes."""

from collections.abc import Mapping

import pytest

from proxy.breaker import BreakerState
from server.provider_health import HealthState, judge_health
from storage.breakers import Outcomes

CLOSED: Mapping[str, BreakerState] = {"a": "closed", "b": "closed"}
ONE_OPEN: Mapping[str, BreakerState] = {"a": "open", "b": "closed"}


@pytest.mark.parametrize(
    ("states", "outcomes", "expected"),
    [
        (CLOSED, {}, "up"),
        (CLOSED, {"a": Outcomes(81, 10), "b": Outcomes(0, 10)}, "up"),
        (CLOSED, {"a": Outcomes(80, 10), "b": Outcomes(0, 10)}, "degraded"),
        (CLOSED, {"a": Outcomes(0, 1)}, "degraded"),
        (ONE_OPEN, {"b": Outcomes(9, 0)}, "degraded"),
        (ONE_OPEN, {"b": Outcomes(0, 4)}, "degraded"),
        (ONE_OPEN, {}, "down"),
        (ONE_OPEN, {"a": Outcomes(1, 0)}, "down"),
        ({"a": "open", "b": "open"}, {}, "down"),
        ({"a": "open", "b": "half_open"}, {}, "degraded"),
        ({"a": "half_open", "b": "closed"}, {}, "degraded"),
        (CLOSED, None, "unknown"),
        (ONE_OPEN, None, "degraded"),
        ({"a": "open", "b": "open"}, None, "down"),
        ({}, {}, "up"),
        ({}, None, "unknown"),
    ],
)
def test_health_follows_from_breakers_and_outcomes(
    states: Mapping[str, BreakerState], outcomes: Mapping[str, Outcomes] | None, expected: HealthState
) -> None:
    assert judge_health(states, outcomes).state == expected


def test_what_rests_is_named_and_outcomes_are_added_up() -> None:
    states: Mapping[str, BreakerState] = {"c": "half_open", "b": "closed", "a": "open"}
    health = judge_health(states, {"b": Outcomes(3, 1), "c": Outcomes(2, 0)})
    assert (health.open_models, health.successes, health.failures) == (["a", "c"], 5, 1)
