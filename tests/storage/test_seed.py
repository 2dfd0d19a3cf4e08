"""The catalogue as a file: what it must have, and what writing it changes."""

from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from proxy.pricing import read_price
from proxy.provider import load_providers
from storage.seed import SeedInvalid, read_seed, seed

MODEL = """
name = "A"
context_window = 100
max_output_tokens = 10
capabilities = { vision = true }
pricing = { input_per_million = "1", output_per_million = "2" }
mappings = { acme = "a-1", other = "a-2" }
"""
CATALOGUE = f'[providers]\nacme = "Acme"\nother = "Other"\n[models."acme/a"]\n{MODEL}'


def fetch(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    return path


def test_our_own_catalogue_can_be_charged_and_served() -> None:
    catalogue = read_seed()
    assert catalogue["models"]
    for model in catalogue["models"].values():
        read_price(model["pricing"])
    assert set(catalogue["providers"]) <= set(load_providers())


def test_what_the_file_says_is_what_the_database_has(path: Path, owner_database_url: str) -> None:
    assert seed(owner_database_url, path) == 1
    columns = "name, provider_code, context_window, max_output_tokens, capabilities, pricing_info, status"
    assert fetch(owner_database_url, "SELECT " + columns + " FROM models WHERE id = 'acme/a'") == [  # noqa: S608 - our own columns
        (
            "A",
            "acme",
            100,
            10,
            {"vision": True},
            {"input_per_million": "1", "output_per_million": "2"},
            "active",
        )
    ]
    mappings = "SELECT provider_code, provider_model_id FROM model_mappings WHERE model_id = 'acme/a' ORDER BY 1"
    assert fetch(owner_database_url, mappings) == [("acme", "a-1"), ("other", "a-2")]


def test_seeding_again_changes_nothing(path: Path, owner_database_url: str) -> None:
    everything = "SELECT * FROM models LEFT JOIN model_mappings ON model_id = id ORDER BY id, model_id"
    seed(owner_database_url, path)
    before = fetch(owner_database_url, everything)
    assert seed(owner_database_url, path) == 1
    assert fetch(owner_database_url, everything) == before


def test_a_model_that_is_not_listed_any_more_goes_out_of_service_and_can_come_back(
    path: Path, owner_database_url: str
) -> None:
    seed(owner_database_url, path)
    status = "SELECT status FROM models WHERE id = 'openai/gpt-4.1-mini'"
    assert fetch(owner_database_url, status) == [("inactive",)]
    seed(owner_database_url)
    assert fetch(owner_database_url, status) == [("active",)]


def test_changed_prices_and_mappings_replace_the_old(path: Path, owner_database_url: str) -> None:
    seed(owner_database_url, path)
    path.write_text(CATALOGUE.replace('"1"', '"3"').replace(', other = "a-2"', ""))
    seed(owner_database_url, path)
    price = "SELECT pricing_info->>'input_per_million' FROM models WHERE id = 'acme/a'"
    assert fetch(owner_database_url, price) == [("3",)]
    assert fetch(owner_database_url, "SELECT count(*) FROM model_mappings WHERE model_id = 'acme/a'") == [(1,)]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("[providers]", "[providers", "no TOML"),
        ("[providers]", "[sources]", "providers"),
        ('[models."acme/a"]', '[other."acme/a"]', "models"),
        ('name = "A"', "", "acme/a: name"),
        ('name = "A"', "name = 1", "acme/a: name"),
        ("context_window = 100", 'context_window = "x"', "acme/a: context_window"),
        ("max_output_tokens = 10", "", "acme/a: max_output_tokens"),
        ("pricing = {", "prices = {", "acme/a: pricing"),
        ('mappings = { acme = "a-1", other', "mappings = { other", "acme"),
        ('[models."acme/a"]', '[models."nobody/a"]', "nobody"),
        (f'[models."acme/a"]\n{MODEL}', '[models]\n"acme/a" = 1', "acme/a"),
    ],
)
def test_what_is_no_catalogue_is_refused_and_the_place_named(path: Path, old: str, new: str, where: str) -> None:
    assert old in CATALOGUE
    path.write_text(CATALOGUE.replace(old, new))
    with pytest.raises(SeedInvalid, match=where):
        read_seed(path)


def test_a_file_in_another_encoding_is_refused(path: Path) -> None:
    path.write_bytes(CATALOGUE.encode("utf-16"))
    with pytest.raises(SeedInvalid, match="no TOML"):
        read_seed(path)


def test_what_the_database_refuses_changes_nothing(path: Path, owner_database_url: str) -> None:
    path.write_text(CATALOGUE.replace("max_output_tokens = 10", "max_output_tokens = 0"))
    with pytest.raises(errors.CheckViolation):
        seed(owner_database_url, path)
    assert fetch(owner_database_url, "SELECT FROM providers WHERE code = 'acme'") == []
    assert fetch(owner_database_url, "SELECT FROM models WHERE status = 'inactive'") == []
