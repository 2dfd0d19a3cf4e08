"""What would change, as a person reads it and as it is written."""

from datetime import date
from typing import Any

import pytest

from storage.seed.difference import Kind, Row, build_rows, find_changes
from storage.seed.entries import CodexCli, DocumentEntry, PromptEntry, RegionEntry
from tests.storage.seed.catalogues import build_model, build_seed, build_task

PROMPT = PromptEntry(task_type="x", version="1", system_prompt="Do this.")
HERE = RegionEntry(label="Here", url="https://here.example", is_default=True)
THERE = RegionEntry(label="There", url="https://there.example")
TERMS = DocumentEntry(doc_type="terms", region="eu", version="1", effective_at=date(2026, 1, 1), url="/terms")


def lines(wanted: dict[str, Any], found: dict[tuple[Kind, str], Row], *, overwrite: bool = False) -> list[str]:
    changes = find_changes(build_rows(build_seed(**wanted)), found, overwrite=overwrite)
    return [line for change in changes for line in change.lines]


def rows(**changed: Any) -> dict[tuple[Kind, str], Row]:
    return build_rows(build_seed(**changed))


def test_an_empty_database_gets_everything() -> None:
    wanted = {"prompts": [PROMPT], "regions": [HERE], "documents": [TERMS]}
    assert lines(wanted, {}) == [
        "+ provider acme",
        "+ model acme/a",
        "+ setting ai_settings",
        "+ prompt x",
        "+ region Here",
        "+ document terms eu 1",
    ]


def test_what_is_the_same_is_no_change() -> None:
    assert find_changes(rows(prompts=[PROMPT]), rows(prompts=[PROMPT])) == []


def test_the_tasks_become_one_setting() -> None:
    seed = build_seed(tasks=[build_task()], max_concurrent_jobs=7, codex_cli=CodexCli(mini_model="m"))
    task = {"model": "acme/a", "max_tokens": 5, "temperature": 0.5, "allowed_models": ["acme/a"], "copy_buttons": []}
    codex_cli: dict[str, Any] = {
        "preferred_model": None,
        "mini_model": "m",
        "fallback_model": None,
        "reasoning_effort": None,
        "mini_reasoning_effort": None,
        "model_overrides": {},
    }
    value = {"tasks": {"unknown": task}, "max_concurrent_jobs": 7, "codex_cli": codex_cli}
    assert build_rows(seed)["setting", "ai_settings"] == Row({"value": value})


def test_a_file_without_tasks_says_nothing_of_them() -> None:
    assert lines({"tasks": []}, rows()) == []


def test_other_settings_go_in_by_their_keys() -> None:
    changed = {"tasks": [], "configuration": {"onboarding_videos": {"intro": "a"}}}
    assert lines(changed, rows(tasks=[])) == ["+ setting onboarding_videos"]
    old = rows(tasks=[], configuration={"onboarding_videos": 5})
    assert lines(changed, old) == ['~ setting onboarding_videos: value 5 -> {"intro":"a"}']


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "B"}, "name B -> A"),
        ({"pricing": {"input_per_million": "2", "output_per_million": "2"}}, "pricing.input_per_million 2 -> 1"),
        ({"mappings": {"acme": "a-1", "x": "y"}}, "mappings.x y -> nothing"),
        ({"mappings": {}}, "mappings.acme nothing -> a-1"),
        ({"created_on": date(2026, 1, 2)}, "created_on 2026-01-02 -> nothing"),
        ({"description": "x" * 61}, "description (61 characters) -> nothing"),
        ({"description": "two\nlines"}, "description (9 characters) -> nothing"),
    ],
)
def test_a_change_names_the_member_the_old_and_the_new(changed: dict[str, Any], words: str) -> None:
    assert lines({}, rows(models=[build_model(**changed)])) == [f"~ model acme/a: {words}"]


def test_each_member_that_changes_has_its_line() -> None:
    found = rows(models=[build_model(name="B", context_window=5)])
    assert lines({}, found) == ["~ model acme/a: name B -> A", "~ model acme/a: context_window 5 -> 100"]


def test_a_member_without_a_value_is_not_the_same_as_none_but_no_line_of_its_own() -> None:
    found = rows() | {("setting", "x"): Row({"value": {}})}
    assert lines({"configuration": {"x": {"a": None}}}, found) == ["~ setting x"]


def test_models_and_providers_that_are_not_listed_go_out_of_service_once() -> None:
    found = rows(models=[build_model(), build_model("acme/b")])
    assert lines({}, found) == ["- model acme/b (out of service)"]
    found["model", "acme/b"] = Row({**found["model", "acme/b"].values, "status": "inactive"})
    assert lines({}, found) == []
    gone: dict[tuple[Kind, str], Row]
    gone = {("provider", "old"): Row({"status": "active"}), ("provider", "older"): Row({"status": "deprecated"})}
    assert lines({}, rows() | gone) == ["- provider old (out of service)"]


def test_a_model_that_is_listed_again_comes_back() -> None:
    found = rows()
    found["model", "acme/a"] = Row({**found["model", "acme/a"].values, "status": "inactive"})
    assert lines({}, found) == ["~ model acme/a: status inactive -> active"]


def test_regions_that_are_not_listed_go_and_the_default_comes_last() -> None:
    """There may be no two defaults at any moment."""
    changes = find_changes(rows(regions=[HERE, THERE]), {("region", "Old"): Row({}), **rows()})
    assert [line for change in changes for line in change.lines] == ["- region Old", "+ region There", "+ region Here"]


def test_prompts_documents_and_settings_that_are_not_listed_stay() -> None:
    found = rows(prompts=[PROMPT], documents=[TERMS], configuration={"x": 1})
    assert lines({}, found) == []


@pytest.mark.parametrize(
    ("kind", "key", "wanted", "other"),
    [
        ("setting", "ai_settings", {"max_concurrent_jobs": 2}, {"max_concurrent_jobs": 1}),
        ("prompt", "x", {"prompts": [PROMPT]}, {"prompts": [PromptEntry("x", "1", "Do that.")]}),
    ],
)
def test_what_an_administrator_has_changed_is_kept(
    kind: Kind, key: str, wanted: dict[str, Any], other: dict[str, Any]
) -> None:
    found = rows(**other)
    found[kind, key] = Row(found[kind, key].values, is_ours=False)
    assert lines(wanted, found) == [f"= {kind} {key}: kept, an administrator has changed it"]
    (kept,) = find_changes(rows(**wanted), found)
    assert (kept.action, kept.values) == ("keep", {})
    (overwritten,) = find_changes(rows(**wanted), found, overwrite=True)
    assert (overwritten.action, overwritten.values) == ("change", rows(**wanted)[kind, key].values)


def test_what_an_administrator_has_written_just_as_the_file_has_it_is_no_change() -> None:
    found = rows()
    found["setting", "ai_settings"] = Row(found["setting", "ai_settings"].values, is_ours=False)
    assert lines({}, found) == []


def test_when_a_model_is_switched_off_is_told_to_all() -> None:
    on, off = build_model(description="Old."), build_model(description="Old.", retires_on=date(2026, 12, 1))
    silent = build_model(retires_on=date(2026, 12, 1))
    told = [build_rows(build_seed(models=[one]))["model", "acme/a"].values["description"] for one in (on, off, silent)]
    ending = "Switched off by its provider on 2026-12-01."
    assert told == ["Old.", f"Old. {ending}", ending]


def test_where_a_price_was_looked_up_stays_in_the_file() -> None:
    model = build_model(price_source="https://x.example", priced_on=date(2026, 1, 1), price_ends_on=date(2026, 1, 2))
    assert rows(models=[model]) == rows()
