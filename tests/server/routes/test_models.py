"""`/v1/models`: the catalogue that can be called, in OpenAI's shape."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.served import Served, open_served, token_headers

PATH = "/v1/models"
MODEL = "openai/gpt-4.1-mini"


@pytest.fixture
async def served(database_url: str, redis_url: str, owner_database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    with psycopg.connect(owner_database_url) as owner:
        owner.execute(b"UPDATE models SET created_on = '2025-04-14' WHERE id = 'openai/gpt-4.1-mini'")
        owner.execute(b"UPDATE models SET model_type = 'transcription', created_on = NULL WHERE id = 'openai/gpt-4o'")
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    settings = {"OPENAI_API_KEY": "sk-1", "OPENROUTER_API_KEY": "sk-2", "ENVIRONMENT": "production"}
    async with open_served(stores, tmp_path, **settings) as served:
        yield served


async def list_models(served: Served) -> Any:
    answer = await served.ask("GET", PATH, token_headers(await served.make_user()))
    assert (answer.status, answer.json["object"]) == (200, "list")
    return {model["id"]: model for model in answer.json["data"]}


async def test_what_can_be_called_is_listed_with_its_facts(served: Served) -> None:
    found = await list_models(served)
    assert list(found) == sorted(found)
    row = served.services.catalogue.rows[MODEL]
    pricing = found[MODEL].pop("pricing")
    assert found[MODEL] == {
        "id": MODEL,
        "object": "model",
        "created": 1744588800,
        "owned_by": "openai",
        "name": row.name,
        "context_window": row.context_window,
        "max_output_tokens": row.max_output_tokens,
        "model_type": "text",
        "capabilities": row.capabilities,
        "providers": [{"provider": "openai", "state": "closed"}, {"provider": "openrouter", "state": "closed"}],
    }
    assert (pricing["input_per_million"], pricing["output_per_million"]) == ("0.4", "1.6")
    assert not [id_ for id_ in found if id_.startswith("sandbox/")]


async def test_models_that_transcribe_are_listed_too(served: Served) -> None:
    model = (await list_models(served))["openai/gpt-4o"]
    assert (model["model_type"], model["created"]) == ("transcription", 0)


async def test_models_of_providers_without_a_key_are_left_out(served: Served, owner_database_url: str) -> None:
    with psycopg.connect(owner_database_url) as owner:
        owner.execute(b"DELETE FROM model_mappings WHERE provider_code = 'openrouter'")
    await served.services.catalogue.refresh()
    assert {model["owned_by"] for model in (await list_models(served)).values()} == {"openai"}


async def test_the_state_of_a_breaker_is_that_of_the_moment(served: Served) -> None:
    await list_models(served)
    for _ in range(5):
        await served.services.breakers.note_failure("openai", MODEL)
    providers = (await list_models(served))[MODEL]["providers"]
    assert [found["state"] for found in providers] == ["open", "closed"]


async def test_one_is_shown_as_it_is_listed_and_an_unknown_one_told_in_openais_shape(served: Served) -> None:
    headers = token_headers(await served.make_user())
    found = await list_models(served)
    for id_ in (MODEL, MODEL.replace("/", "%2F"), f"{MODEL}/"):
        assert (await served.ask("GET", f"{PATH}/{id_}", headers)).json == found[MODEL]
    unknown = await served.ask("GET", f"{PATH}/openai/none", headers)
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
