"""What must hold between the entries of a seed."""

from datetime import date
from typing import Any

import pytest

from storage.seed.checking import check_seed, find_outdated
from storage.seed.entries import CopyButton, DocumentEntry, RegionEntry
from storage.seed.reading import SeedInvalid
from tests.storage.seed.catalogues import build_model, build_seed, build_task

HERE = RegionEntry(label="Here", url="https://here.example", is_default=True)
TERMS = DocumentEntry(doc_type="terms", region="eu", version="1", effective_at=date(2026, 1, 1), url="/terms")
BUTTON = CopyButton(id="x", label="X", content="x")


def test_a_seed_that_holds_together_passes() -> None:
    check_seed(build_seed(regions=[HERE], documents=[TERMS], max_concurrent_jobs=1))
    check_seed(build_seed(tasks=[build_task(copy_buttons=[BUTTON])]))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"models": [build_model(mappings={})]}, "model acme/a: its provider 'acme' must be mapped"),
        ({"models": [build_model(mappings={"acme": "a", "x": "a"})]}, "acme/a: its providers .'x'. must be listed"),
        ({"providers": []}, "model acme/a: its providers .'acme'. must be listed"),
        ({"models": [build_model(pricing={})]}, "model acme/a: it has no usable price"),
        ({"tasks": [build_task(model="acme/b")]}, "task unknown: there is no model 'acme/b'"),
        ({"tasks": [build_task(allowed_models=["acme/a", "acme/b"])]}, "task unknown: there is no model 'acme/b'"),
        ({"tasks": [build_task(allowed_models=["acme/b"])]}, "task unknown: its model 'acme/a' must be among"),
        ({"tasks": [build_task(allowed_models=["acme/a"] * 2)]}, "task unknown: the model 'acme/a' stands there twice"),
        ({"tasks": [build_task(max_tokens=11)]}, "task unknown: max_tokens is more than acme/a gives, 10"),
        ({"tasks": [build_task(temperature=0.123)]}, "task unknown: temperature: at most two decimal places"),
        ({"tasks": [build_task(copy_buttons=[BUTTON, BUTTON])]}, "unknown: the copy button 'x' stands there twice"),
        ({"max_concurrent_jobs": 0}, "max_concurrent_jobs: it must be 1 or more"),
        ({"configuration": {"ai_settings": {}}}, "configuration: ai_settings is made of the tasks"),
        ({"regions": [RegionEntry(label="There", url="https://there.example")]}, "regions: exactly one of them"),
        ({"regions": [HERE, RegionEntry(label="B", url="https://b.example", is_default=True)]}, "regions: exactly one"),
        ({"regions": [HERE, RegionEntry(label="Here", url="https://b.example")]}, "regions: the label 'Here' stands"),
        ({"regions": [HERE, RegionEntry(label="B", url=HERE.url)]}, "regions: the url 'https://here.example' stands"),
        ({"documents": [TERMS, TERMS]}, "documents: the document 'terms eu 1' stands there twice"),
    ],
)
def test_what_does_not_hold_together_is_named(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(SeedInvalid, match=problem):
        check_seed(build_seed(**changed))


def test_whether_a_price_can_be_charged_is_for_others_to_say() -> None:
    with pytest.raises(SeedInvalid, match="no usable price"):
        check_seed(build_seed(), has_price=lambda pricing: "by_the_hour" in pricing)


def test_how_much_a_model_writes_down_is_no_matter_of_its_answers() -> None:
    check_seed(build_seed(models=[build_model(model_type="transcription")], tasks=[build_task(max_tokens=11)]))


def test_all_problems_are_told_at_once() -> None:
    wrong = build_seed(models=[build_model(mappings={}, pricing={})], tasks=[build_task(model="acme/b")])
    with pytest.raises(SeedInvalid) as refused:
        check_seed(wrong)
    assert len(refused.value.problems) == 3


def test_a_price_is_old_the_day_after_its_last() -> None:
    seed = build_seed(models=[build_model(price_ends_on=date(2026, 11, 30))])
    assert find_outdated(seed, date(2026, 11, 30)) == []
    assert find_outdated(seed, date(2026, 12, 1)) == ["model acme/a: its price ended on 2026-11-30"]


def test_a_task_whose_model_is_switched_off_is_told() -> None:
    off, on = build_model(retires_on=date(2026, 11, 30)), build_model("acme/b")
    seed = build_seed(models=[off, on], tasks=[build_task(), build_task("other", "acme/b")])
    assert find_outdated(seed, date(2026, 11, 29)) == []
    assert find_outdated(seed, date(2026, 11, 30)) == [
        "task unknown: acme/a was switched off by its provider on 2026-11-30"
    ]
