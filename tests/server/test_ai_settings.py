"""Tasks and their models: what is wrong with them, all at once, and what becomes of them where models are missing."""

from decimal import Decimal
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ai_settings import (
    REQUIRED_TASKS,
    AiSettings,
    CodexCli,
    CopyButton,
    TaskSettings,
    check_ai_settings,
    fit_ai_settings,
    identify_buttons,
    read_ai_settings,
)
from tests.server.offered_models import build_offered, build_row

ROWS, MODELS = build_offered(
    build_row("anthropic/a"),
    build_row("anthropic/b"),
    build_row("openai/a", model_type="chat"),
    build_row("openai/b"),
    build_row("openai/transcribe", model_type="transcription"),
    build_row("google/ears", model_type="transcription"),
    build_row("openai/unpriced", pricing_info={}),
    build_row("openai/unmapped", provider_models={}),
)
TASK: dict[str, Any] = {"model": "openai/a", "max_tokens": 4096, "temperature": 0.7}


def build_value(**changes: Any) -> dict[str, Any]:
    """Settings with which nothing is wrong, but for the changes of one task."""
    tasks = dict.fromkeys(REQUIRED_TASKS, TASK)
    return {"tasks": {**tasks, "unknown": TASK | changes}}


def find_problems(value: dict[str, Any]) -> list[str]:
    return check_ai_settings(read_ai_settings(value), ROWS, MODELS)


def fit(task: TaskSettings, *available: str) -> TaskSettings:
    return fit_ai_settings(AiSettings({"x": task}), ROWS, available).tasks["x"]


def build_task(model: str, *allowed: str) -> TaskSettings:
    return TaskSettings(model, 1, Decimal(0), allowed)


def test_the_shape_of_the_seed_is_read() -> None:
    button = {"label": "Copy it", "content": "{{IMPLEMENTATION_PLAN}}"}
    codex = {"preferred_model": "x", "mini_model": None, "model_overrides": {"a": "b"}, "reasoning_effort": "xhigh"}
    task = TASK | {"allowed_models": ["openai/a"], "copy_buttons": [button], "more": 1}
    value = {"tasks": {"x": task}, "max_concurrent_jobs": 20, "codex_cli": codex}
    assert read_ai_settings(value) == AiSettings(
        {"x": TaskSettings("openai/a", 4096, Decimal("0.7"), ("openai/a",), (CopyButton(**button),))},
        20,
        CodexCli("x", model_overrides={"a": "b"}, reasoning_effort="xhigh"),
    )


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "Expected `object`"),
        ({"tasks": {"x": {}}}, r"\$.tasks"),
        ({"tasks": {"x": TASK | {"max_tokens": "many"}}}, r"max_tokens"),
        ({"tasks": {"x": TASK | {"temperature": "warm"}}}, r"temperature"),
        ({"codex_cli": {"model_overrides": [1]}}, r"codex_cli.model_overrides"),
    ],
)
def test_what_is_not_of_the_form_is_named(value: Any, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        read_ai_settings(value)


def test_nothing_is_wrong_with_what_is_right() -> None:
    assert find_problems(build_value()) == []
    assert find_problems(build_value(temperature=2, max_tokens=2**32 - 1)) == []
    assert find_problems(build_value(allowed_models=["openai/b", "openai/a"])) == []
    assert find_problems(build_value(temperature=0.05) | {"max_concurrent_jobs": 1}) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "openai/none"}, "tasks.unknown.model: 'openai/none' is not in the catalogue"),
        ({"model": "openai/unpriced"}, "tasks.unknown.model: 'openai/unpriced' has no price"),
        ({"model": "openai/unmapped"}, "tasks.unknown.model: 'openai/unmapped' is mapped to no provider"),
        (
            {"allowed_models": ["openai/a", "openai/none"]},
            "tasks.unknown.allowed_models: 'openai/none' is not in the catalogue",
        ),
        ({"allowed_models": []}, "tasks.unknown.allowed_models: the task's own model must be among them"),
        ({"allowed_models": ["openai/b"]}, "tasks.unknown.allowed_models: the task's own model must be among them"),
        ({"max_tokens": 0}, "tasks.unknown.max_tokens: it must be from 1 to 4294967295"),
        ({"max_tokens": 2**32}, "tasks.unknown.max_tokens: it must be from 1 to 4294967295"),
        *[
            (
                {"temperature": temperature},
                "tasks.unknown.temperature: it must be from 0 to 2, with two decimal places at most",
            )
            for temperature in (-0.01, 2.01, 0.125, "NaN", "1E-999999", "1E999999")
        ],
        (
            {"copy_buttons": [{"label": "A b", "content": "x"}, {"label": "a B!", "content": "y"}]},
            "tasks.unknown.copy_buttons: each needs an id of its own, and these are repeated: a-b",
        ),
        (
            {"copy_buttons": [{"label": "", "content": "x", "id": "x"}]},
            "tasks.unknown.copy_buttons: each needs a label and a content",
        ),
    ],
)
def test_each_mistake_of_a_task_is_told_with_its_place(changes: dict[str, Any], problem: str) -> None:
    assert find_problems(build_value(**changes)) == [problem]


def test_all_problems_are_told_at_once() -> None:
    value = build_value(model="openai/none", max_tokens=0, allowed_models=["openai/unpriced"])
    del value["tasks"]["streaming"]
    value["tasks"]["Not A Name"] = TASK
    assert find_problems(value | {"max_concurrent_jobs": 0}) == [
        "tasks.streaming: it is missing",
        "tasks.unknown.max_tokens: it must be from 1 to 4294967295",
        "tasks.unknown.allowed_models: the task's own model must be among them",
        "tasks.unknown.model: 'openai/none' is not in the catalogue",
        "tasks.unknown.allowed_models: 'openai/unpriced' has no price",
        "tasks.Not A Name: a task is named in lower-case letters, digits and _",
        "max_concurrent_jobs: it must be from 1 to 1000",
    ]


@pytest.mark.parametrize("key", REQUIRED_TASKS)
def test_a_task_that_the_desktop_needs_is_missed(key: str) -> None:
    value = build_value()
    del value["tasks"][key]
    assert find_problems(value) == [f"tasks.{key}: it is missing"]


def test_the_desktop_needs_fifteen_tasks() -> None:
    assert len(set(REQUIRED_TASKS)) == 15


def test_the_id_of_a_button_follows_from_its_label_unless_it_has_one() -> None:
    buttons = [CopyButton("Copy as: Markdown!", "x"), CopyButton("Copy", "x", "own"), CopyButton("Копия", "x")]
    assert identify_buttons(buttons) == ["copy-as-markdown", "own", "button-3"]


def test_as_many_buttons_as_a_body_has_room_for_are_checked_in_no_time() -> None:
    """All streams of the process wait meanwhile."""
    buttons = [{"label": str(number), "content": "x"} for number in range(30_000)]
    began = perf_counter()
    assert find_problems(build_value(copy_buttons=buttons)) == []
    assert perf_counter() - began < 2


def test_models_that_are_there_stay_as_they_are() -> None:
    task = build_task("openai/a", "openai/b", "openai/a")
    assert fit(task, "openai/a", "openai/b") == task
    free = TaskSettings("openai/a", 1, Decimal(0))
    assert fit(free, "openai/a") == free


def test_an_allowed_model_that_is_not_there_leaves_the_list() -> None:
    task = build_task("openai/a", "openai/b", "openai/gone", "openai/a")
    assert fit(task, "openai/a", "anthropic/a") == build_task("openai/a", "openai/a")


def test_a_task_without_its_model_takes_the_first_that_it_allows() -> None:
    task = build_task("openai/gone", "openai/gone", "openai/b", "anthropic/a")
    assert fit(task, "anthropic/a", "openai/a", "openai/b") == build_task("openai/b", "openai/b", "anthropic/a")


@pytest.mark.parametrize(
    ("model", "available", "expected"),
    [
        ("openai/b", ["anthropic/a", "openai/a", "openai/transcribe"], "openai/a"),
        ("openai/b", ["anthropic/b", "openai/transcribe", "anthropic/a"], "anthropic/a"),
        ("openai/b", ["openai/transcribe"], "openai/transcribe"),
        ("openai/transcribe", ["openai/a", "google/ears"], "google/ears"),
        ("openai/transcribe", ["anthropic/a", "openai/a"], "openai/a"),
        ("openai/gone", ["anthropic/a", "openai/a"], "openai/a"),
        ("openai/gpt-9-transcribe", ["openai/a", "google/ears"], "google/ears"),
    ],
)
def test_else_one_of_its_kind_then_of_its_provider_then_any(
    model: str, available: list[str], expected: str
) -> None:
    assert fit(build_task(model, model), *available) == build_task(expected, expected)
    assert fit(TaskSettings(model, 1, Decimal(0)), *available) == TaskSettings(expected, 1, Decimal(0))


def test_a_model_that_other_tasks_name_comes_before_one_that_nobody_chose() -> None:
    tasks = {"x": build_task("openai/gone"), "y": build_task("anthropic/b", "anthropic/b")}
    fitted = fit_ai_settings(AiSettings(tasks), ROWS, ["anthropic/a", "anthropic/b"])
    assert fitted.tasks["x"].model == "anthropic/b"


def test_without_any_model_there_is_no_task_and_the_rest_stays() -> None:
    settings = AiSettings({"x": build_task("openai/a")}, 20, CodexCli("x"))
    assert fit_ai_settings(settings, ROWS, []) == AiSettings({}, 20, CodexCli("x"))


IDS = st.sampled_from([*sorted(MODELS), "openai/gone", "acme/other"])
TASKS = st.builds(TaskSettings, IDS, st.just(1), st.just(Decimal(0)), st.none() | st.lists(IDS).map(tuple))


@given(st.dictionaries(st.sampled_from("abcd"), TASKS), st.sets(st.sampled_from(sorted(MODELS)), min_size=1))
def test_whatever_is_available_every_task_names_only_what_is(
    tasks: dict[str, TaskSettings], available: set[str]
) -> None:
    fitted = fit_ai_settings(AiSettings(tasks), ROWS, available).tasks
    assert fitted.keys() == tasks.keys()
    for key, task in fitted.items():
        assert task.model in available
        assert tasks[key].model == task.model or tasks[key].model not in available
        if task.allowed_models is not None:
            assert set(task.allowed_models) <= available
            assert task.model in task.allowed_models
