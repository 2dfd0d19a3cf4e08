"""Providers as clients are told of them, and their health."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.server.served import Answer, Served, open_served, token_headers
from tests.storage.redis_server import RedisServer

PATH = "/api/providers"
MODEL, OTHER = "openai/gpt-4.1", "openai/gpt-4.1-mini"
UP = {"state": "up", "openModels": [], "successes": 0, "failures": 0}
NO_KEY = {"state": "not_configured", "openModels": [], "successes": 0, "failures": 0}
DESCRIBE = b"""
    UPDATE providers SET description = 'd', website_url = 'https://w.test', api_base_url = NULL,
        capabilities = '{"text": true}'
"""
SAY_CODE = b"""
    UPDATE providers SET capabilities = CASE code
        WHEN 'openai' THEN '{"code": true}'::jsonb WHEN 'xai' THEN '{"code": false}' ELSE '{"code": 1}' END
"""
FACTS = {"id", "code", "name", "description", "websiteUrl", "apiBaseUrl", "capabilities", "status"}


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, ENVIRONMENT="development", OPENAI_API_KEY="sk-1") as served:
        yield served


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.kill()


async def ask(served: Served, path: str = "") -> Answer:
    return await served.ask("GET", PATH + path, token_headers(await served.make_user()))


async def show(served: Served, path: str = "") -> Any:
    answer = await ask(served, path)
    assert answer.status == 200, answer.body
    return answer.json


async def show_health(served: Served, code: str = "openai") -> Any:
    return (await show(served, f"/by-code/{code}"))["health"]


async def fail(served: Served, model: str, times: int = 5) -> None:
    for _ in range(times):
        await served.services.breakers.note_failure("openai", model)


async def change_and_refresh(served: Served, owner_database_url: str, statement: bytes) -> None:
    with psycopg.connect(owner_database_url) as owner:
        owner.execute(statement)
    await served.services.catalogue.refresh()


async def test_providers_are_listed_by_name_with_all_that_clients_decode(
    served: Served, owner_database_url: str
) -> None:
    await change_and_refresh(served, owner_database_url, DESCRIBE)
    found = await show(served)
    assert [provider["name"] for provider in found] == sorted(provider["name"] for provider in found)
    assert {provider["code"] for provider in found} == {"anthropic", "google", "openai", "openrouter", "sandbox", "xai"}
    openai = next(provider for provider in found if provider["code"] == "openai")
    assert set(openai) == {*FACTS, "health"}
    assert isinstance(openai.pop("id"), int)
    assert openai == {
        "code": "openai",
        "name": "OpenAI",
        "description": "d",
        "websiteUrl": "https://w.test",
        "apiBaseUrl": None,
        "capabilities": {"text": True},
        "status": "active",
        "health": UP,
    }


async def test_the_sandbox_is_known_in_development_alone(database_url: str, redis_url: str, tmp_path: Path) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, ENVIRONMENT="production") as served:
        assert "sandbox" not in [provider["code"] for provider in await show(served, "/with-counts")]
        assert (await ask(served, "/by-code/sandbox")).status == 404


async def test_models_are_counted_at_home(served: Served, owner_database_url: str) -> None:
    with psycopg.connect(owner_database_url) as owner:
        rows = owner.execute("SELECT provider_code, count(*) FROM models WHERE status = 'active' GROUP BY 1").fetchall()
    counted: dict[str, int] = dict(rows)
    found = await show(served, "/with-counts")
    assert set(found[0]) == {*FACTS, "health", "modelCount"}
    assert {provider["code"]: provider["modelCount"] for provider in found} == {
        provider["code"]: counted.get(provider["code"], 0) for provider in found
    }
    assert counted["openai"] > 1


async def test_one_is_shown_by_its_code(served: Served) -> None:
    openai = await show(served, "/by-code/openai")
    assert openai in await show(served)
    unknown = await ask(served, "/by-code/acme")
    assert (unknown.status, unknown.json["error_type"], unknown.json["errorType"]) == (404, "not_found", "not_found")


async def test_a_capability_has_to_be_said_with_true(served: Served, owner_database_url: str) -> None:
    await change_and_refresh(served, owner_database_url, SAY_CODE)
    assert [provider["code"] for provider in await show(served, "/by-capability/code")] == ["openai"]
    assert await show(served, "/by-capability/flying") == []


async def test_nobody_is_told_without_credentials(served: Served) -> None:
    assert (await served.ask("GET", PATH)).status == 401


async def test_a_provider_without_a_key_is_not_configured(served: Served) -> None:
    assert await show_health(served, "anthropic") == NO_KEY
    assert await show_health(served, "sandbox") == UP


async def test_outcomes_are_counted_and_failures_degrade(served: Served) -> None:
    for model in (MODEL, OTHER):
        await served.services.breakers.note_success("openai", model)
    await served.services.breakers.refresh()
    await fail(served, MODEL, 1)
    assert await show_health(served) == {"state": "degraded", "openModels": [], "successes": 2, "failures": 1}


async def test_a_provider_whose_every_model_that_was_asked_rests_is_down(served: Served) -> None:
    await fail(served, MODEL)
    assert await show_health(served) == {"state": "down", "openModels": [MODEL], "successes": 0, "failures": 0}


async def test_a_provider_of_which_a_model_works_is_degraded(served: Served) -> None:
    await served.services.breakers.note_success("openai", OTHER)
    await served.services.breakers.refresh()
    await fail(served, MODEL)
    assert await show_health(served) == {"state": "degraded", "openModels": [MODEL], "successes": 1, "failures": 0}


async def test_one_look_asks_redis_once_for_all_providers(served: Served, redis_url: str) -> None:
    headers = token_headers(await served.make_user())
    with redis.Redis.from_url(redis_url) as looker:
        counts = []
        for _ in range(3):
            counts.append(looker.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0))
            assert (await served.ask("GET", PATH, headers)).status == 200
    listed = served.services.catalogue_answers.listing.breakers
    assert counts[1] - counts[0] >= len(listed) > 10
    assert counts[2] - counts[1] < len(listed)


async def test_while_redis_is_away_this_process_tells_what_it_knows(
    database_url: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": own_redis.url}
    async with open_served(stores, tmp_path, OPENAI_API_KEY="sk-1", OPENROUTER_API_KEY="sk-2") as served:
        user = await served.make_user()
        await fail(served, MODEL)
        own_redis.kill()
        answer = await served.ask("GET", PATH, token_headers(user))
    assert answer.status == 200, answer.body
    health = {provider["code"]: provider["health"] for provider in answer.json}
    assert health["openai"] == {"state": "degraded", "openModels": [MODEL], "successes": 0, "failures": 0}
    assert health["openrouter"] == {"state": "unknown", "openModels": [], "successes": 0, "failures": 0}
    assert health["anthropic"] == NO_KEY
