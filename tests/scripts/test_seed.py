"""`python -m scripts.seed`, as an operator types it."""

from pathlib import Path

import psycopg
import pytest

from storage.seed import read_seed
from tests.scripts.commands import run_command
from tests.storage.test_seed import CATALOGUE


def test_our_own_catalogue_is_written(owner_database_url: str) -> None:
    done = run_command("seed", environment={"DATABASE_OWNER_URL": owner_database_url})
    assert (done.status, done.output, done.errors) == (0, f"{len(read_seed()['models'])} models are on offer\n", "")


def test_another_catalogue_can_be_named(owner_database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    done = run_command("seed", "--file", str(path), environment={"DATABASE_URL": owner_database_url})
    assert (done.status, done.output) == (0, "1 models are on offer\n")
    with psycopg.connect(owner_database_url) as owner:
        assert owner.execute("SELECT id FROM models WHERE status = 'active'").fetchall() == [("acme/a",)]


def test_a_catalogue_that_is_none_is_told_and_changes_nothing(owner_database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    unpriced = CATALOGUE.replace("pricing", "prices").encode()
    for content, message in ((b"\xff", "no TOML"), (b"", "providers"), (unpriced, "acme/a: pricing")):
        path.write_bytes(content)
        done = run_command("seed", "--file", str(path), environment={"DATABASE_URL": owner_database_url})
        assert (done.status, done.output) == (1, "")
        assert done.errors.startswith("the catalogue could not be written: ")
        assert message in done.errors
    with psycopg.connect(owner_database_url) as owner:
        assert owner.execute("SELECT FROM providers WHERE code = 'acme'").fetchall() == []


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "DATABASE_OWNER_URL (or DATABASE_URL) is missing"),
        ([], {"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}, "the catalogue could not be written: "),
        (["--file", "/nowhere.toml"], {"DATABASE_URL": "x"}, "the catalogue could not be written: "),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], environment: dict[str, str], message: str) -> None:
    done = run_command("seed", *arguments, environment=environment)
    assert (done.status, done.output) == (1, "")
    assert done.errors.startswith(message)
    assert "Traceback" not in done.errors


def test_a_server_that_owns_nothing_may_not_seed(database_url: str) -> None:
    done = run_command("seed", environment={"DATABASE_URL": database_url})
    assert done.status == 1
    assert "permission denied" in done.errors
