"""Models as the shipped clients are told of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.served import Answer, Served, open_served, token_headers

PATH = "/api/models"
MODEL = "openai/gpt-4.1-mini"
CHANGES = (
    b"""
    UPDATE models SET name = 'Mini', context_window = 1000, max_output_tokens = 100, capabilities = '{"vision": true}',
        description = 'Small',
        pricing_info = '{"input_per_million": "0.40", "output_per_million": 2.0, "cached_input_per_million": 0.1}'
    WHERE id = 'openai/gpt-4.1-mini'
    """,
    b"UPDATE models SET model_type = 'text' WHERE model_type = 'chat'",
    b"UPDATE models SET model_type = 'chat' WHERE id = 'sandbox/echo'",
)


@pytest.fixture
async def served(database_url: str, redis_url: str, owner_database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    with psycopg.connect(owner_database_url) as owner:
        for change in CHANGES:
            owner.execute(change)
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, ENVIRONMENT="development", OPENAI_API_KEY="sk-1") as served:
        yield served


async def ask(served: Served, path: str = "", method: str = "GET") -> Answer:
    return await served.ask(method, PATH + path, token_headers(await served.make_user()))


async def show(served: Served, path: str = "") -> Any:
    answer = await ask(served, path)
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_model_has_all_that_clients_decode(served: Served) -> None:
    model = await show(served, f"/{MODEL}")
    provider = model.pop("provider")
    assert model == {
        "id": MODEL,
        "name": "Mini",
        "contextWindow": 1000,
        "maxOutputTokens": 100,
        "priceInput": "0.4",
        "priceOutput": "2",
        "pricing": {"input_per_million": "0.4", "output_per_million": "2", "cached_input_per_million": "0.1"},
        "modelType": "text",
        "capabilities": {"vision": True},
        "status": "active",
        "available": True,
        "description": "Small",
    }
    names = {"id", "code", "name", "description", "websiteUrl", "apiBaseUrl", "capabilities", "status"}
    assert set(provider) == names
    assert provider["code"] == "openai"


async def test_a_slash_may_follow_any_of_these_paths(served: Served) -> None:
    for path in ("", "/by-provider/openai", "/by-type/text"):
        assert await show(served, f"{path}/") == await show(served, path) != []


@pytest.mark.parametrize("id_", [MODEL.replace("/", "%2F"), MODEL.replace("/", "%2f"), f"{MODEL}/"])
async def test_the_slash_of_an_id_may_be_escaped_and_one_may_follow(served: Served, id_: str) -> None:
    assert (await show(served, f"/{id_}"))["id"] == MODEL


@pytest.mark.parametrize("id_", ["openai/none", "none", "by-provider", "by-type/", "openai//gpt-4.1", "%2Fopenai"])
async def test_an_unknown_model_is_told_in_the_envelope(served: Served, id_: str) -> None:
    answer = await ask(served, f"/{id_}")
    assert (answer.status, answer.json["code"], answer.json["errorType"]) == (404, 404, "not_found")


async def test_each_model_is_listed_once_in_order(served: Served) -> None:
    found = await show(served)
    ids = [model["id"] for model in found]
    assert len(ids) == len(set(ids)) > 5
    names = [(model["provider"]["name"].encode(), model["name"].encode()) for model in found]
    assert names == sorted(names)
    assert await show(served, f"/{MODEL}") in found
    resold = {model["id"] for model in found if model["provider"]["code"] == "openrouter"}
    assert not [id_ for id_ in resold if id_.startswith("openai/")]


async def test_all_providers_of_a_model_are_listed_on_demand(served: Served) -> None:
    found = await show(served, "?include=all_providers")
    assert {model["provider"]["code"] for model in found if model["id"] == MODEL} == {"openai", "openrouter"}
    assert {model["available"] for model in found if model["id"] == MODEL} == {True}
    wrong = await ask(served, "?include=everything")
    assert (wrong.status, wrong.json["error_type"]) == (400, "validation_error")


async def test_models_of_a_provider_are_those_that_it_sells(served: Served) -> None:
    found = await show(served, "/by-provider/openrouter")
    names = [model["name"].encode() for model in found]
    assert names == sorted(names)
    assert MODEL in [model["id"] for model in found]
    assert {model["provider"]["code"] for model in found} == {"openrouter"}
    assert await show(served, "/by-provider/acme") == []


async def test_models_are_listed_by_their_type(served: Served) -> None:
    chat, text = await show(served, "/by-type/chat"), await show(served, "/by-type/text")
    assert [model["id"] for model in chat] == ["sandbox/echo"]
    assert MODEL in [model["id"] for model in text]
    assert {model["modelType"] for model in text} == {"text"}
    assert await show(served, "/by-type/video") == []


async def test_a_model_that_nobody_here_can_be_asked_for_is_not_available(served: Served) -> None:
    found = await show(served, "/by-provider/anthropic")
    assert {model["available"] for model in found} == {False}


async def test_a_change_of_the_catalogue_is_told(served: Served, owner_database_url: str) -> None:
    await show(served)
    with psycopg.connect(owner_database_url) as owner:
        owner.execute(b"UPDATE models SET name = 'Maxi' WHERE id = %s", [MODEL])
    await served.services.catalogue.refresh()
    assert (await show(served, f"/{MODEL}"))["name"] == "Maxi"


async def test_the_older_mounts_lead_here(served: Served) -> None:
    headers = token_headers(await served.make_user())
    for path in (f"/api/v1/models/{MODEL}", f"/api-key/models/{MODEL}"):
        assert (await served.ask("GET", path, headers)).json["id"] == MODEL


async def test_a_post_to_a_model_is_not_allowed(served: Served) -> None:
    answer = await ask(served, f"/{MODEL}", "POST")
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]
