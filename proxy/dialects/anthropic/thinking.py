"""How much a Claude may think: budget, effort, and whether it tells.

https://platform.claude.com/docs/en/build-with-claude/extended-thinking
"""

from typing import Any

from proxy.chat import ChatRequest, Sampling
from proxy.dialects.anthropic.models import ModelWays
from proxy.errors import RequestNotSupported

MIN_BUDGET = 1024
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.9, "max": 0.95}
"""Of max_tokens, for models that know budgets and no effort."""


def build_thinking(request: ChatRequest, ways: ModelWays, max_tokens: int) -> dict[str, Any] | None:
    """The `thinking` member. What it thinks counts as output, so the budget stays below max_tokens.

    A budget is made smaller where max_tokens leaves no room for it, and max_tokens is never raised: it is what money
    has been held for.
    """
    sampling = request.sampling
    if ways.thinking == "never":
        return None
    if sampling.reasoning_tokens == 0 or sampling.reasoning_effort == "none":
        return {"type": "disabled"}
    thinking = _wanted_thinking(sampling, ways, max_tokens)
    if thinking is not None and sampling.reasoning_summary is not None:
        thinking["display"] = "omitted" if sampling.reasoning_summary == "none" else "summarized"
    return thinking


def build_effort(sampling: Sampling, ways: ModelWays) -> str | None:
    """The member `output_config.effort`. Which levels a model has, Anthropic says best."""
    effort = sampling.reasoning_effort
    if effort is None or effort == "none" or not ways.takes_effort:
        return None
    return "low" if effort == "minimal" else effort


def _wanted_thinking(sampling: Sampling, ways: ModelWays, max_tokens: int) -> dict[str, Any] | None:
    if sampling.reasoning_tokens is not None:
        if ways.thinking == "adaptive":
            raise RequestNotSupported("reasoning_tokens: this model takes no budget; use reasoning_effort")
        return _with_budget(sampling.reasoning_tokens, max_tokens, "reasoning_tokens")
    if sampling.reasoning_effort is not None:
        if ways.thinking in {"either", "adaptive"}:
            return {"type": "adaptive"}
        budget = int(max_tokens * _share(sampling.reasoning_effort))
        return _with_budget(budget, max_tokens, "reasoning_effort")
    # Asking for a summary asks to be told, not to think; newer models think unasked and tell only then.
    if ways.thinking == "adaptive" and sampling.reasoning_summary not in {None, "none"}:
        return {"type": "adaptive"}
    return None


def _share(effort: str) -> float:
    if effort not in _SHARES:
        raise RequestNotSupported(f"reasoning_effort: one of none, {', '.join(_SHARES)}")
    return _SHARES[effort]


def _with_budget(wanted: int, max_tokens: int, field: str) -> dict[str, Any]:
    """At least 1024 tokens, as the API wants; that may be more than was asked for, never more than max_tokens."""
    if max_tokens <= MIN_BUDGET:
        raise RequestNotSupported(f"{field}: thinking takes at least {MIN_BUDGET} tokens, and max_tokens above that")
    return {"type": "enabled", "budget_tokens": min(max(wanted, MIN_BUDGET), max_tokens - 1)}
