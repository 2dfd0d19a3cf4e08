"""From files to records: every problem names its place."""

from datetime import date
from pathlib import Path

import pytest

from storage.seed.entries import CodexCli, CopyButton, DocumentEntry, ProviderEntry, RegionEntry
from storage.seed.reading import SeedInvalid, read_seed, split_prompt
from tests.storage.seed.catalogues import CATALOGUE, DOCUMENT, MODEL, PROMPT, TASK, write_files

PROVIDERS = '[providers]\nacme = "Acme"\nother = "Other"\n'
REGION = '[[regions]]\nlabel = "Here"\nurl = "https://here.example"\nis_default = true\n'


def test_a_model_is_at_home_where_its_id_begins_unless_it_says_another_place(tmp_path: Path) -> None:
    assert read_seed(write_files(tmp_path, CATALOGUE)).models[0].provider == "acme"
    elsewhere = CATALOGUE.replace('name = "A"', 'name = "A"\nprovider = "other"')
    assert read_seed(write_files(tmp_path, elsewhere)).models[0].provider == "other"


def test_a_provider_is_a_name_or_all_that_is_told_of_it(tmp_path: Path) -> None:
    told = '[providers.acme]\nname = "Acme"\nwebsite_url = "https://acme.example"\ncapabilities = { text = true }\n'
    catalogue = CATALOGUE.replace('acme = "Acme"\nother = "Other"', f'other = "Other"\n{told}')
    assert read_seed(write_files(tmp_path, catalogue)).providers == (
        ProviderEntry(code="other", name="Other"),
        ProviderEntry(code="acme", name="Acme", website_url="https://acme.example", capabilities={"text": True}),
    )


def test_days_are_days_and_inside_json_they_are_text(tmp_path: Path) -> None:
    model = "created_on = 2026-01-02\n" + MODEL.replace("vision = true", "since = 2026-01-03")
    (found,) = read_seed(write_files(tmp_path, f'{PROVIDERS}[models."acme/a"]\n{model}')).models
    assert (found.created_on, found.capabilities) == (date(2026, 1, 2), {"since": "2026-01-03"})


def test_tasks_bring_their_buttons_and_what_goes_with_them(tmp_path: Path) -> None:
    button = '[[tasks.unknown.copy_buttons]]\nid = "x"\nlabel = "X"\ncontent = "{{STEP_CONTENT}}"\n'
    more = '[codex_cli]\npreferred_model = "p"\n[configuration]\nsome_key = { a = [1] }\n'
    found = read_seed(write_files(tmp_path, "max_concurrent_jobs = 3\n" + CATALOGUE + TASK + button + more))
    (task,) = found.tasks
    assert (task.key, task.model, task.max_tokens, task.temperature) == ("unknown", "acme/a", 5, 0.5)
    assert task.copy_buttons == [CopyButton(id="x", label="X", content="{{STEP_CONTENT}}")]
    assert found.max_concurrent_jobs == 3
    assert found.codex_cli == CodexCli(preferred_model="p")
    assert found.configuration == {"some_key": {"a": [1]}}


def test_regions_and_documents_are_lists(tmp_path: Path) -> None:
    found = read_seed(write_files(tmp_path, CATALOGUE + REGION + DOCUMENT))
    assert found.regions == (RegionEntry(label="Here", url="https://here.example", is_default=True),)
    document = DocumentEntry(
        doc_type="terms", region="eu", version="1", effective_at=date(2026, 1, 2), url="/legal/eu/terms"
    )
    assert found.documents == (document,)


def test_prompts_stand_in_a_folder_beside_the_file(tmp_path: Path) -> None:
    assert read_seed(write_files(tmp_path, CATALOGUE)).prompts == ()
    (prompt,) = read_seed(write_files(tmp_path, CATALOGUE, some_task=PROMPT)).prompts
    assert (prompt.task_type, prompt.version, prompt.description) == ("some_task", "1.0", "What it is for")
    assert prompt.system_prompt == "Do {{THIS}}.\n\nThen that."


def test_the_head_of_a_prompt_may_hold_colons() -> None:
    head = split_prompt("x", "description: a: b\nversion: 2\n\nText")
    assert head == {"task_type": "x", "description": "a: b", "version": "2", "system_prompt": "Text"}


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("[providers]", "[providers", "the catalogue is no TOML"),
        ("[providers]", "[sources]", "the catalogue: providers are missing"),
        ("[providers]", "[sources]", "the catalogue: nobody reads 'sources'"),
        ("[providers]", "models = 5\n[providers]", "no TOML"),
        ("[providers]", "tasks = 5\n[providers]", "the catalogue: tasks is of the wrong type"),
        ("[providers]", "max_concurrent_jobs = true\n[providers]", "max_concurrent_jobs is of the wrong type"),
        ("[providers]", "regions = {}\n[providers]", "regions is of the wrong type"),
        ('[models."acme/a"]', '[other."acme/a"]', "models are missing"),
        ('acme = "Acme"', "acme = 5", "provider acme: "),
        ('acme = "Acme"', 'Acme = "Acme"', "provider Acme: .*code"),
        ('[models."acme/a"]', '[models."acme"]', "model acme: .*id"),
        ('name = "A"', "", "model acme/a: .*`name`"),
        ('name = "A"', "name = 1", "model acme/a: .*name"),
        ('name = "A"', 'name = "A"\ncolour = "red"', "model acme/a: .*`colour`"),
        ('name = "A"', 'name = "A"\nprovider = 5', "model acme/a: .*provider"),
        ('name = "A"', 'name = "A"\nmodel_type = "film"', "model acme/a: .*model_type"),
        ('name = "A"', 'name = "A"\ncreated_on = "soon"', "model acme/a: .*created_on"),
        ("context_window = 100", 'context_window = "x"', "model acme/a: .*context_window"),
        ("context_window = 100", "context_window = -1", "model acme/a: .*context_window"),
        ("context_window = 100", "context_window = 2_147_483_648", "model acme/a: .*context_window"),
        ("max_output_tokens = 10", "max_output_tokens = 0", "model acme/a: .*max_output_tokens"),
        ("pricing = {", "prices = {", "model acme/a: .*`prices`"),
        (f'[models."acme/a"]\n{MODEL}', '[models]\n"acme/a" = 1', "model acme/a: "),
    ],
)
def test_what_is_no_catalogue_is_refused_and_the_place_named(tmp_path: Path, old: str, new: str, where: str) -> None:
    assert old in CATALOGUE
    with pytest.raises(SeedInvalid, match=where):
        read_seed(write_files(tmp_path, CATALOGUE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("max_tokens = 5", "max_tokens = 0", "task unknown: .*max_tokens"),
        ("temperature = 0.5", "temperature = 2.5", "task unknown: .*temperature"),
        ('allowed_models = ["acme/a"]', "allowed_models = []", "task unknown: .*allowed_models"),
        ("[tasks.unknown]", "[tasks.Unknown]", "task Unknown: .*key"),
        ("[tasks.unknown]", "[codex_cli]\nmodel = 1\n[tasks.unknown]", "codex_cli: .*`model`"),
        ('doc_type = "terms"', 'doc_type = "cookies"', "document 1: .*doc_type"),
        ('url = "/legal/eu/terms"', 'url = "https://x.example"', "document 1: .*url"),
        ('url = "https://here.example"', 'url = "here"', "region 1: .*url"),
    ],
)
def test_so_is_what_is_no_task_no_document_and_no_region(tmp_path: Path, old: str, new: str, where: str) -> None:
    whole = CATALOGUE + TASK + DOCUMENT + REGION
    assert old in whole
    with pytest.raises(SeedInvalid, match=where):
        read_seed(write_files(tmp_path, whole.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Do this.\n\nThen that.\n", "prompt x: .*`Do this.`"),
        ("description: y\n\nText\n", "prompt x: .*`version`"),
        ("version: 1\n\n", "prompt x: .*system_prompt"),
        ("version: 1\nauthor: z\n\nText\n", "prompt x: .*`author`"),
    ],
)
def test_so_is_what_is_no_prompt(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(SeedInvalid, match=where):
        read_seed(write_files(tmp_path, CATALOGUE, x=text))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    wrong = CATALOGUE.replace('name = "A"', "").replace('other = "Other"', "other = 5") + TASK.replace("0.5", "3.0")
    with pytest.raises(SeedInvalid) as refused:
        read_seed(write_files(tmp_path, wrong, x="version: 1\n\n"))
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        "provider other",
        "model acme/a",
        "task unknown",
        "prompt x",
    ]


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, CATALOGUE, x=PROMPT)
    (tmp_path / "prompts" / "x.md").write_bytes(PROMPT.encode("utf-16"))
    with pytest.raises(SeedInvalid, match=r"x\.md is not UTF-8"):
        read_seed(path)
    path.write_bytes(CATALOGUE.encode("utf-16"))
    with pytest.raises(SeedInvalid, match=r"catalogue\.toml is not UTF-8"):
        read_seed(path)
