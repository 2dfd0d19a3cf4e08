"""What is told of a provider's health: by its circuit breakers, and by what came of the latest calls. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from proxy.breaker import BreakerState
from storage.breakers import Outcomes

DEGRADED_PERCENT = 20

HealthState = Literal["up", "degraded", "down", "unknown", "not_configured"]


class ProviderHealth(msgspec.Struct, rename="camel"):
    """How calls to a provider go, for all users.

    `up`: nothing speaks against it. `degraded`: some of its models are given a rest, or a fifth of the latest calls
    failed. `down`: all of its models that were asked lately are given a rest. `unknown`: it cannot be told just now.
    `not_configured`: this server has no key for it. `openModels` are the models that are given a rest. `successes` and
    `failures` count the calls of about the last half minute; those that led to a rest are not among them.
    """

    state: HealthState
    open_models: Sequence[str]
    successes: int
    failures: int


NOT_CONFIGURED = ProviderHealth("not_configured", (), 0, 0)


def judge_health(states: Mapping[str, BreakerState], outcomes: Mapping[str, Outcomes] | None) -> ProviderHealth:
    """By model id: how the breaker of each stands, and what came of the calls of those that were asked lately; None if
    nobody knows.
    """
    found = (outcomes or {}).values()
    successes = sum(outcome.successes for outcome in found)
    failures = sum(outcome.failures for outcome in found)
    resting = sorted(model_id for model_id, state in states.items() if state != "closed")
    if resting:
        asked = set(states if outcomes is None else outcomes).union(resting)
        is_down = all(states.get(model_id) == "open" for model_id in asked)
        return ProviderHealth("down" if is_down else "degraded", resting, successes, failures)
    if outcomes is None:
        return ProviderHealth("unknown", (), 0, 0)
    is_degraded = failures > 0 and 100 * failures >= DEGRADED_PERCENT * (successes + failures)
    return ProviderHealth("degraded" if is_degraded else "up", (), successes, failures)
