"""What a Gemini model's name says about it: its generation decides how it is told to think, what its tools may be mixed
with, and what a search costs.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from proxy.chat import Sampling

_GENERATION = re.compile(r"gemini-(?:[a-z]+-)*(\d)(?:\.(\d+))?(?=-|$)")
_LATEST = (3, 0)
"""Names without a number (`gemini-flash-latest`) move to the newest generation; its rules hold from 3.0 on."""

FIRST_THINKING = (2, 5)
FIRST_WITH_LEVELS = (3, 0)

_DEFAULT_BUDGET = 10_000
_DEFAULT_SHARE = 0.5
_ROOM_TO_THINK = 8192
"""With less room for the whole answer a model with levels is to think little, for its thoughts can't be bounded."""
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.9, "max": 0.95}
"""Of maxOutputTokens, which thoughts count against: a bigger budget would leave nothing for the answer."""
_SMALLEST_BUDGET = 128
_SMALLEST_LITE_BUDGET = 512
_WITHOUT_MINIMAL = (3, 7)
_WITH_TWO_LEVELS = re.compile(r"gemini-3-pro(?=-|$)")
_LEVELS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def generation(model: str) -> tuple[int, int]:
    """Of `gemini-2.5-flash` it is (2, 5)."""
    found = _GENERATION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else _LATEST


def build_thinking(
    sampling: Sampling, model: str, capabilities: Mapping[str, object], max_output_tokens: int | None = None
) -> dict[str, Any] | None:
    """`thinkingConfig`: https://ai.google.dev/gemini-api/docs/thinking. A number of tokens says more than an effort,
    and Google refuses the two together, so that it alone is sent.

    A model with the capability `thinking` thinks unasked: with a budget before generation 3, from then on as much as it
    likes where `max_output_tokens` leaves room for it.
    """
    room = math.inf if max_output_tokens is None else max_output_tokens
    config = _build_amount(sampling, model, room)
    if config is None and capabilities.get("thinking") is True and generation(model) >= FIRST_THINKING:
        config = _build_unasked(model, room)
    if _tells_thoughts(sampling, config):
        config = (config or {}) | {"includeThoughts": True}
    return config or None


def _build_unasked(model: str, room: float) -> dict[str, Any]:
    if generation(model) >= FIRST_WITH_LEVELS:
        return {} if room >= _ROOM_TO_THINK else {"thinkingLevel": "low"}
    return {"thinkingBudget": _fit(_DEFAULT_BUDGET, room * _DEFAULT_SHARE, model)}


def _build_amount(sampling: Sampling, model: str, room: float) -> dict[str, Any] | None:
    if sampling.reasoning_tokens is not None:
        return {"thinkingBudget": sampling.reasoning_tokens}
    effort = sampling.reasoning_effort
    if effort is None:
        return None
    if generation(model) >= FIRST_WITH_LEVELS:
        return {"thinkingLevel": _level(effort, model)}
    return {"thinkingBudget": _budget(effort, model, room)}


def _level(effort: str, model: str) -> str:
    """From generation 3 on thinking cannot be turned off: https://ai.google.dev/gemini-api/docs/openai#thinking. All
    know low; minimal is known to the Lite models, and to Flash before 3.7; medium to all but 3 Pro, whose default is
    high. What we do not know is Google's to refuse.
    """
    if effort in {"none", "minimal"}:
        knows_minimal = "flash-lite" in model or ("flash" in model and _is_before(model, _WITHOUT_MINIMAL))
        return "minimal" if knows_minimal else "low"
    if effort == "medium" and _WITH_TWO_LEVELS.search(model):
        return "high"
    return _LEVELS.get(effort, effort)


def _is_before(model: str, limit: tuple[int, int]) -> bool:
    """False for a name that says no generation: what it stands for moves on."""
    return _GENERATION.search(model) is not None and generation(model) < limit


def _budget(effort: str, model: str, room: float) -> int:
    """As Google's own translation has them, where there is room."""
    if effort == "none":
        return _fit(0, 0, model)
    return _fit(_BUDGETS.get(effort, _DEFAULT_BUDGET), room * _SHARES.get(effort, _DEFAULT_SHARE), model)


def _fit(budget: int, room: float, model: str) -> int:
    """None at all where a model's smallest is too much; 2.5 Pro cannot be kept from thinking."""
    fitting = int(min(budget, room))
    if "pro" in model:
        return max(fitting, _SMALLEST_BUDGET)
    return fitting if fitting >= (_SMALLEST_LITE_BUDGET if "lite" in model else _SMALLEST_BUDGET) else 0


def _tells_thoughts(sampling: Sampling, config: dict[str, Any] | None) -> bool:
    """They cost nothing beside the thinking itself. Asking for those of a model that is not to think is an error."""
    if sampling.reasoning_summary == "none":
        return False
    is_off = config is not None and config.get("thinkingBudget") == 0
    return not is_off and (config is not None or sampling.reasoning_summary is not None)
