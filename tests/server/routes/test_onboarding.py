"""Videos for newcomers, as iOS asks for them before anybody has signed in."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.live_configuration import CONFIGURATION
from storage.configuration import write_configuration
from tests.server.served import Served, open_served

PATH = "/public/onboarding"


async def write_videos(served: Served, value: object) -> None:
    async with served.services.database.as_operator("test").transaction() as connection:
        await write_configuration(connection, {"onboarding_videos": value}, "test")
    await served.services.live.refresh({CONFIGURATION})


async def test_every_value_is_a_url_also_where_the_row_has_something_else(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, CDN_BASE_URL="https://cdn.example.com/") as served:
        assert (await served.ask("GET", PATH)).json == {"videos": {}}
        await write_videos(served, {"intro": "/a/intro.m3u8", "plan": "not a url", "voice": 7})
        answer = await served.ask("GET", PATH)
    assert (answer.status, answer.json) == (200, {"videos": {"intro": "https://cdn.example.com/a/intro.m3u8"}})
    assert all(urlsplit(url).hostname for url in answer.json["videos"].values())


@pytest.mark.parametrize("value", [{"intro": "a"}, "broken", None])
async def test_without_a_cdn_there_are_none(value: object, database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        await write_videos(served, value)
        answer = await served.ask("GET", PATH)
    assert (answer.status, answer.json) == (200, {"videos": {}})
