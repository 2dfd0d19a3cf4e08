"""`python -m scripts.seed`, as an operator types it."""

from pathlib import Path

import psycopg
import pytest

from storage.seed.reading import read_seed
from tests.scripts.commands import Done, run_command
from tests.storage.seed.catalogues import CATALOGUE, TASK, write_files


def run(url: str, *arguments: str) -> Done:
    return run_command("seed", *arguments, environment={"DATABASE_URL": url})


def change(url: str, statement: str) -> None:
    with psycopg.connect(url) as owner:
        owner.execute(statement.encode())


def models_in_service(url: str) -> list[str]:
    with psycopg.connect(url) as owner:
        return [model_id for (model_id,) in owner.execute("SELECT id FROM models WHERE status = 'active'")]


def test_a_database_that_is_up_to_date_has_nothing_to_do(owner_database_url: str) -> None:
    done = run_command("seed", environment={"DATABASE_OWNER_URL": owner_database_url})
    ending = f"nothing to do: {len(read_seed().models)} models are on offer"
    *outdated, last = done.output.splitlines()
    assert (done.status, last, done.errors) == (0, ending, "")
    assert [line for line in outdated if not line.startswith("! ")] == []


def test_the_difference_is_shown_and_then_written(owner_database_url: str, tmp_path: Path) -> None:
    change(owner_database_url, "UPDATE providers SET name = 'X' WHERE code = 'openai'")
    change(owner_database_url, "DELETE FROM models WHERE id <> 'openai/o3'")
    both = CATALOGUE.replace("[providers]", '[providers]\nopenai = "OpenAI"')
    arguments = ("--file", str(write_files(tmp_path, both)))
    shown = [
        *(f"- provider {code} (out of service)" for code in ("anthropic", "google", "openrouter", "sandbox", "xai")),
        "- model openai/o3 (out of service)",
        "~ provider openai: name X -> OpenAI",
    ]
    done = run(owner_database_url, *arguments, "--dry-run")
    assert models_in_service(owner_database_url) == ["openai/o3"]
    found = [line for line in done.output.splitlines() if not line.startswith("~ provider openai: ") or "name" in line]
    assert found == [
        *shown,
        "+ provider acme",
        "+ provider other",
        "+ model acme/a",
        "10 rows would be written: 1 models are on offer",
    ]
    written = run(owner_database_url, *arguments)
    assert written.output == done.output.replace("would be written", "written")
    assert models_in_service(owner_database_url) == ["acme/a"]
    assert run(owner_database_url, *arguments).output == "nothing to do: 1 models are on offer\n"


def test_what_an_administrator_has_changed_is_kept_unless_asked(owner_database_url: str, tmp_path: Path) -> None:
    arguments = ("--file", str(write_files(tmp_path, CATALOGUE + TASK)))
    run(owner_database_url, *arguments)
    change(owner_database_url, "UPDATE configuration SET value = '{}', updated_by = 'user:1'")
    kept = "= setting ai_settings: kept, an administrator has changed it\nnothing to do: 1 models are on offer\n"
    assert run(owner_database_url, *arguments).output == kept
    assert run(owner_database_url, *arguments, "--overwrite").output.endswith("1 row written: 1 models are on offer\n")
    assert run(owner_database_url, *arguments).output == "nothing to do: 1 models are on offer\n"


def test_what_has_to_be_looked_at_again_is_told(owner_database_url: str, tmp_path: Path) -> None:
    old = CATALOGUE.replace('name = "A"', 'name = "A"\nprice_ends_on = 2026-01-01\nretires_on = 2026-01-02')
    done = run(owner_database_url, "--file", str(write_files(tmp_path, old + TASK)))
    assert [line for line in done.output.splitlines() if line.startswith("! ")] == [
        "! model acme/a: its price ended on 2026-01-01",
        "! task unknown: acme/a was switched off by its provider on 2026-01-02",
    ]


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"\xff", ["catalogue.toml is not UTF-8"]),
        (b"x", ["the catalogue is no TOML"]),
        (b"", ["the catalogue: providers are missing", "the catalogue: models are missing"]),
        (CATALOGUE.replace("pricing", "prices").encode(), ["model acme/a: Object contains unknown field `prices`"]),
        (CATALOGUE.replace('"1"', '"-1"').encode(), ["model acme/a: it has no usable price"]),
        (
            (CATALOGUE + TASK.replace('["acme/a"]', '["x/b", "x/c"]')).encode(),
            ["task unknown: there is no model 'x/b'", "no model 'x/c'", "its model 'acme/a' must"],
        ),
        (
            f"{CATALOGUE}[configuration]\nbilling_free_credits_amount = -1\nnothing = 1".encode(),
            ["configuration: billing_free_credits_amount: it must be from 0", "configuration: nobody reads 'nothing'"],
        ),
    ],
)
def test_a_catalogue_that_is_none_is_told_and_changes_nothing(
    owner_database_url: str, tmp_path: Path, content: bytes, messages: list[str]
) -> None:
    (tmp_path / "catalogue.toml").write_bytes(content)
    before = models_in_service(owner_database_url)
    done = run(owner_database_url, "--file", str(tmp_path / "catalogue.toml"))
    assert (done.status, done.output) == (1, "")
    first, *rest = done.errors.splitlines()
    assert first == "the catalogue could not be written:"
    assert len(rest) == len(messages)
    assert all(message in line for message, line in zip(messages, rest, strict=True))
    assert models_in_service(owner_database_url) == before


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "DATABASE_OWNER_URL (or DATABASE_URL) is missing"),
        ([], {"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}, "the catalogue could not be written: "),
        (["--file", "/nowhere.toml"], {"DATABASE_URL": "x"}, "the catalogue could not be written: "),
        ([], {"DATABASE_URL": "postgres//x:hunter2@y/z"}, "the catalogue could not be written: DATABASE_OWNER_URL (or"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], environment: dict[str, str], message: str) -> None:
    done = run_command("seed", *arguments, environment=environment)
    assert (done.status, done.output) == (1, "")
    assert done.errors.startswith(message)
    assert "Traceback" not in done.errors
    assert "hunter2" not in done.errors


def test_a_server_that_owns_nothing_may_not_seed(database_url: str) -> None:
    done = run(database_url)
    assert done.status == 1
    assert "permission denied" in done.errors
