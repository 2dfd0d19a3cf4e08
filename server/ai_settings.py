"""Which models do which tasks: the row `ai_settings` of the configuration, read, checked whole, and fitted to the
models that can be called here. Pure.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.routing import Model
from storage.catalogue import ModelRow

REQUIRED_TASKS = (
    "implementation_plan",
    "implementation_plan_merge",
    "voice_transcription",
    "text_improvement",
    "task_refinement",
    "generic_llm_stream",
    "regex_file_filter",
    "root_folder_selection",
    "file_relevance_assessment",
    "extended_path_finder",
    "web_search_prompts_generation",
    "web_search_execution",
    "video_analysis",
    "streaming",
    "unknown",
)
"""The desktop does not start if one is missing."""

MOST_TOKENS = 2**32 - 1
MOST_JOBS = 1000
HOTTEST = Decimal(2)
HUNDREDTH = Decimal("0.01")
TRANSCRIPTION = "transcription"

_TASK_KEY = re.compile(r"[a-z][a-z0-9_]{0,99}")


class CopyButton(msgspec.Struct, frozen=True):
    """What copies a text that is made of `content`. Without an id of its own it has one that follows from its label."""

    label: str
    content: str
    id: str = ""


class TaskSettings(msgspec.Struct, frozen=True):
    """`allowed_models` are those that a user may choose from, in the order in which they are shown; None: no choice."""

    model: str
    max_tokens: int
    temperature: Decimal
    allowed_models: tuple[str, ...] | None = None
    copy_buttons: tuple[CopyButton, ...] | None = None


class CodexCli(msgspec.Struct, frozen=True):
    """For the command-line tool that the desktop runs beside our models; the names are that tool's own."""

    preferred_model: str | None = None
    mini_model: str | None = None
    fallback_model: str | None = None
    model_overrides: Mapping[str, str] | None = None
    reasoning_effort: str | None = None
    mini_reasoning_effort: str | None = None


class AiSettings(msgspec.Struct, frozen=True):
    tasks: Mapping[str, TaskSettings] = {}
    max_concurrent_jobs: int | None = None
    codex_cli: CodexCli | None = None


def read_ai_settings(value: Any) -> AiSettings:
    """From decoded JSON. Raises ValueError, naming the place, if it is not of the form."""
    return msgspec.convert(value, AiSettings)


def identify_buttons(buttons: Sequence[CopyButton]) -> list[str]:
    """The id of each: the same as long as it is called the same."""
    return [button.id or _derive_id(button.label) or f"button-{n}" for n, button in enumerate(buttons, 1)]


def check_ai_settings(
    settings: AiSettings, rows: Mapping[str, ModelRow], models: Mapping[str, Model]
) -> list[str]:
    """Everything that is wrong with them, a line each. `rows` are all models of the catalogue, `models` those of them
    that have a price.
    """
    problems = [f"tasks.{key}: it is missing" for key in REQUIRED_TASKS if key not in settings.tasks]
    for key, task in settings.tasks.items():
        problems += [f"tasks.{key}{problem}" for problem in _check_task(key, task)]
        problems += [f"tasks.{key}{problem}" for problem in _check_models(task, rows, models)]
    jobs = settings.max_concurrent_jobs
    if jobs is not None and not 1 <= jobs <= MOST_JOBS:
        problems.append(f"max_concurrent_jobs: it must be from 1 to {MOST_JOBS}")
    return problems


def fit_ai_settings(
    settings: AiSettings, rows: Mapping[str, ModelRow], available: Collection[str]
) -> AiSettings:
    """As they can be used with the models that are available here. `rows` are all models of the catalogue.

    A model that is not available leaves the lists of those that are allowed. The task whose own it was gets the first
    that it allows; else one of the same type, rather of the same provider, and rather one that other tasks name; else
    any. Where no model is available at all no task is left.
    """
    if not available:
        return replace(settings, tasks={})
    ranked = _rank(settings, available)
    return replace(settings, tasks={key: _fit_task(task, rows, ranked) for key, task in settings.tasks.items()})


def _check_task(key: str, task: TaskSettings) -> Iterator[str]:
    if not _TASK_KEY.fullmatch(key):
        yield ": a task is named in lower-case letters, digits and _"
    if not 1 <= task.max_tokens <= MOST_TOKENS:
        yield f".max_tokens: it must be from 1 to {MOST_TOKENS}"
    if not _is_temperature(task.temperature):
        yield f".temperature: it must be from 0 to {HOTTEST}, with two decimal places at most"
    if task.allowed_models is not None and task.model not in task.allowed_models:
        yield ".allowed_models: the task's own model must be among them"
    yield from _check_buttons(task.copy_buttons or ())


def _check_buttons(buttons: Sequence[CopyButton]) -> Iterator[str]:
    counted = Counter(identify_buttons(buttons))
    if repeated := sorted(id_ for id_, count in counted.items() if count > 1):
        yield f".copy_buttons: each needs an id of its own, and these are repeated: {', '.join(repeated)}"
    if not all(button.label.strip() and button.content.strip() for button in buttons):
        yield ".copy_buttons: each needs a label and a content"


def _check_models(
    task: TaskSettings, rows: Mapping[str, ModelRow], models: Mapping[str, Model]
) -> Iterator[str]:
    named = [(".model", task.model), *((".allowed_models", id_) for id_ in task.allowed_models or ())]
    for place, id_ in named:
        if problem := _find_model_problem(id_, rows, models):
            yield f"{place}: {id_[:200]!r} {problem}"


def _find_model_problem(id_: str, rows: Mapping[str, ModelRow], models: Mapping[str, Model]) -> str:
    if id_ not in rows:
        return "is not in the catalogue"
    if id_ not in models:
        return "has no price"
    return "" if models[id_].provider_models else "is mapped to no provider"


def _is_temperature(number: Decimal) -> bool:
    return number.is_finite() and 0 <= number <= HOTTEST and number == number.quantize(HUNDREDTH)


def _rank(settings: AiSettings, available: Collection[str]) -> list[str]:
    """The models that are available, those that tasks name first, in the order of their naming."""
    tasks = settings.tasks.values()
    named = [id_ for task in tasks for id_ in (task.model, *(task.allowed_models or ()))]
    return [id_ for id_ in dict.fromkeys([*named, *sorted(available)]) if id_ in available]


def _fit_task(task: TaskSettings, rows: Mapping[str, ModelRow], ranked: Sequence[str]) -> TaskSettings:
    allowed = [id_ for id_ in task.allowed_models or () if id_ in ranked]
    model = task.model if task.model in ranked else next(iter(allowed), None) or _replace(task.model, rows, ranked)
    if task.allowed_models is None:
        return replace(task, model=model)
    return replace(task, model=model, allowed_models=tuple(allowed) if model in allowed else (model, *allowed))


def _replace(model: str, rows: Mapping[str, ModelRow], ranked: Sequence[str]) -> str:
    provider = rows[model].provider_code if model in rows else model.partition("/")[0]
    transcribes = _transcribes(model, rows)
    return min(ranked, key=lambda id_: (_transcribes(id_, rows) != transcribes, rows[id_].provider_code != provider))


def _transcribes(model: str, rows: Mapping[str, ModelRow]) -> bool:
    """`text` and `chat` do the same things. What is not in the catalogue is told by its name."""
    return rows[model].model_type == TRANSCRIPTION if model in rows else "transcribe" in model


def _derive_id(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
