"""The system prompts that come with the code: whole, with the placeholders that clients replace, and true to the forms
that they ask for.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from storage.seed.entries import PromptEntry
from storage.seed.reading import CATALOGUE, read_seed
from storage.system_prompts import find_unknown_placeholders

FOLDER = CATALOGUE.with_name("prompts")
TREE, FILES, CONTEXT = "DIRECTORY_TREE", "FILE_CONTENTS", "PROJECT_CONTEXT"
EXPECTED: Mapping[str, tuple[str, list[str]]] = {
    "path_finder": ("2.0", [TREE, FILES]),
    "text_improvement": ("4.0", []),
    "implementation_plan": ("5.0", [CONTEXT, TREE, FILES]),
    "implementation_plan_title": ("1.0", []),
    "task_refinement": ("9.0", []),
    "regex_file_filter": ("5.0", [TREE]),
    "root_folder_selection": ("1.0", [TREE]),
    "generic_llm_stream": ("2.0", [CONTEXT, "CUSTOM_INSTRUCTIONS"]),
    "local_file_filtering": ("1.0", [TREE, FILES]),
    "extended_path_finder": ("2.1", [TREE, FILES]),
    "file_relevance_assessment": ("1.0", [FILES]),
    "web_search_prompts_generation": ("19.0", [TREE, FILES]),
    "web_search_execution": ("13.0", ["CURRENT_DATE"]),
    "voice_transcription": ("2.0", []),
    "implementation_plan_merge": ("6.0", [TREE, FILES]),
    "video_analysis": ("3.0", []),
}
"""Version, and the placeholders in their order, each once."""
PATHS = [
    "path_finder",
    "root_folder_selection",
    "local_file_filtering",
    "extended_path_finder",
    "file_relevance_assessment",
]
XML = {
    "implementation_plan": "implementation_plan",
    "implementation_plan_merge": "implementation_plan",
    "web_search_prompts_generation": "research_prompts",
}
"""What the answer's root is called."""
MOST_BYTES_OF_TRANSCRIPTION = 1000
"""Longer ones are refused for OpenAI's transcription models."""

PROMPTS: Mapping[str, PromptEntry] = {prompt.task_type: prompt for prompt in read_seed().prompts}


def files() -> list[Path]:
    return sorted(FOLDER.iterdir())


def find_form(task_type: str) -> ElementTree.Element:
    """The form of the answer, which ends the instructions."""
    root = XML[task_type]
    _, start, rest = PROMPTS[task_type].system_prompt.rpartition(f"\n<{root}>\n")
    form, end, _ = rest.partition(f"\n</{root}>\n")
    return ElementTree.fromstring((start + form + end).strip())  # noqa: S314 - a file of ours


def test_every_task_of_the_contract_has_its_prompt_and_no_other_has_one() -> None:
    assert sorted(PROMPTS) == sorted(EXPECTED)
    assert [path.name for path in files()] == [f"{name}.md" for name in sorted(EXPECTED)]


@pytest.mark.parametrize("task_type", EXPECTED)
def test_a_prompt_has_its_version_its_description_and_its_placeholders(task_type: str) -> None:
    prompt = PROMPTS[task_type]
    version, placeholders = EXPECTED[task_type]
    assert prompt.version == version
    assert re.findall(r"\{\{(.*?)\}\}", prompt.system_prompt) == placeholders
    assert find_unknown_placeholders(prompt.system_prompt) == []
    assert prompt.description is not None
    assert 20 < len(prompt.description) < 120
    assert len(prompt.system_prompt) > 300


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_file_is_tidy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"version: \d+\.\d+\ndescription: [^\n]+\n\n\S", text)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert [line for line in text.splitlines() if line != line.rstrip() or "\t" in line or len(line) > 125] == []
    assert text.isascii()


@pytest.mark.parametrize("task_type", [name for name, (_, found) in EXPECTED.items() if found])
def test_what_is_put_into_a_prompt_is_kept_apart_as_material(task_type: str) -> None:
    """A tree, a content or instructions stand alone between tags, so that where they end is plain."""
    text = PROMPTS[task_type].system_prompt
    for name in set(EXPECTED[task_type][1]) - {"CURRENT_DATE"}:
        assert f"\n<{name.lower()}>\n{{{{{name}}}}}\n</{name.lower()}>" in text
    assert "material" in text


@pytest.mark.parametrize("task_type", PATHS)
def test_what_looks_for_files_answers_one_path_per_line(task_type: str) -> None:
    assert "Answer with one path per line" in PROMPTS[task_type].system_prompt


@pytest.mark.parametrize("task_type", XML)
def test_a_form_in_xml_is_xml(task_type: str) -> None:
    assert find_form(task_type).tag == XML[task_type]


def test_a_merged_plan_says_of_each_part_where_it_comes_from() -> None:
    form = find_form("implementation_plan_merge")
    marked = [each for name in ("decision", "assumption", "step", "file", "risk") for each in form.iter(name)]
    assert {each.get("src") for each in marked} == {"P1", "P2", "P1+P2", "new"}


def test_a_merged_plan_has_all_that_a_plan_has() -> None:
    missing = {each.tag for each in find_form("implementation_plan").iter()} - {"out_of_scope", "item"}
    assert missing <= {each.tag for each in find_form("implementation_plan_merge").iter()}


def test_the_example_of_pattern_groups_is_of_its_own_form() -> None:
    text = PROMPTS["regex_file_filter"].system_prompt
    groups = json.loads(text[text.index("{\n") : text.rindex("\n}") + 2])["filterGroups"]
    assert len(groups) == 2
    for group in groups:
        assert list(group) == ["title", "pathPattern", "contentPattern", "negativePathPattern"]
        for pattern in list(group.values())[1:]:
            if pattern is not None:
                re.compile(pattern)
                assert not re.search(r"\(\?[=!<]|\\[1-9]", pattern), "engines without look-around refuse it"


def test_the_prompt_for_transcription_is_short_enough_for_its_models() -> None:
    assert len(PROMPTS["voice_transcription"].system_prompt.encode()) <= MOST_BYTES_OF_TRANSCRIPTION
