"""Reading the catalogue."""

from pathlib import Path

import psycopg

from storage.catalogue import ModelRow, read_models
from storage.postgres import open_database
from storage.seed import seed
from tests.storage.test_seed import CATALOGUE

MODEL = ModelRow(
    id="acme/a",
    name="A",
    provider_code="acme",
    context_window=100,
    max_output_tokens=10,
    capabilities={"vision": True},
    pricing_info={"input_per_million": "1", "output_per_million": "2"},
    provider_models={"acme": "a-1", "other": "a-2"},
)


async def read(url: str) -> list[ModelRow]:
    async with open_database(url, size=1) as database:
        return await read_models(database)


def change(owner_url: str, statement: str) -> None:
    with psycopg.connect(owner_url) as connection:
        connection.execute(statement.encode())


async def test_active_models_come_with_all_that_is_known_of_them(
    tmp_path: Path, owner_database_url: str, database_url: str
) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    seed(owner_database_url, path)
    assert await read(database_url) == [MODEL]
    change(owner_database_url, "DELETE FROM model_mappings")
    assert [model.provider_models for model in await read(database_url)] == [{}]


async def test_they_come_in_the_order_of_their_ids(database_url: str) -> None:
    ids = [model.id for model in await read(database_url)]
    assert len(ids) > 1
    assert ids == sorted(ids)


async def test_what_is_out_of_service_is_not_read(owner_database_url: str, database_url: str) -> None:
    change(owner_database_url, "UPDATE models SET status = 'inactive' WHERE id = 'openai/gpt-4.1-mini'")
    ids = {model.id for model in await read(database_url)}
    assert "openai/gpt-4.1" in ids
    assert "openai/gpt-4.1-mini" not in ids
    change(owner_database_url, "UPDATE providers SET status = 'deprecated' WHERE code = 'openai'")
    left = {model.provider_code for model in await read(database_url)}
    assert left == {"anthropic", "google", "openrouter", "sandbox", "xai"}


async def test_a_provider_in_beta_is_on_offer(owner_database_url: str, database_url: str) -> None:
    change(owner_database_url, "UPDATE providers SET status = 'beta'")
    assert await read(database_url)
