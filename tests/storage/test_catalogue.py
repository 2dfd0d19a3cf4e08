"""Reading the catalogue."""

from datetime import date
from pathlib import Path

import psycopg

from storage.catalogue import ModelRow, ProviderRow, read_models, read_providers
from storage.postgres import open_database
from storage.seed import seed
from tests.storage.seed.catalogues import CATALOGUE

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


async def test_what_a_model_is_and_when_it_was_published_come_along(owner_database_url: str, database_url: str) -> None:
    facts = "model_type = 'transcription', description = 'Hears', created_on = '2025-03-20'"
    change(owner_database_url, f"UPDATE models SET {facts} WHERE id = 'openai/gpt-4.1'")  # noqa: S608 - a constant
    model = next(model for model in await read(database_url) if model.id == "openai/gpt-4.1")
    assert (model.model_type, model.description, model.created_on) == ("transcription", "Hears", date(2025, 3, 20))


async def test_providers_come_in_the_order_of_their_names_byte_by_byte_but_for_those_out_of_service(
    owner_database_url: str, database_url: str
) -> None:
    facts = ("'D'", "'https://w.test'", "'https://api.test'", "'{\"text\": true}'", "'beta'")
    names = ("description", "website_url", "api_base_url", "capabilities", "status")
    change(owner_database_url, f"UPDATE providers SET ({', '.join(names)}) = ({', '.join(facts)})")  # noqa: S608 - constants
    change(owner_database_url, "UPDATE providers SET name = 'a small letter' WHERE code = 'openai'")
    change(owner_database_url, "UPDATE providers SET status = 'deprecated' WHERE code = 'xai'")
    async with open_database(database_url, size=1) as database:
        found = await read_providers(database)
    assert [row.code for row in found] == ["anthropic", "google", "openrouter", "sandbox", "openai"]
    values = ("a small letter", "D", "https://w.test", "https://api.test", {"text": True}, "beta")
    assert found[-1] == ProviderRow(found[-1].id, "openai", *values)
    assert len({row.id for row in found}) == len(found)
