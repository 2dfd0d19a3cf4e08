"""The path of devices for who asks for it without a WebSocket."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.served import Served, open_served, token_headers

PATH = "/ws/device-link"


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def test_a_caller_is_asked_for_an_upgrade_and_nobody_else_is(served: Served) -> None:
    assert (await served.ask("GET", PATH)).status == 401
    answer = await served.ask("GET", PATH, token_headers(await served.make_user()))
    assert (answer.status, answer.json["error_type"]) == (426, "bad_request")
    assert (answer.headers["upgrade"], answer.headers["sec-websocket-version"]) == ("websocket", "13")
    assert "upgrade" in answer.headers["connection"].lower()
