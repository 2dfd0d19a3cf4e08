"""The page that says whether this server can be replaced: for who knows the token, and exact."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from server.routes.deployment import is_token
from server.version import VERSION
from storage.journal import open_journal
from tests.server.served import Served, open_served

TOKEN = "deploy-me"
PATH = "/health/deployment"


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
async def served(stores: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served(stores, tmp_path, VIBE_DEPLOYMENT_TOKEN=TOKEN, DEPLOYMENT_COLOR="blue") as served:
        yield served


@pytest.mark.parametrize("authorization", [TOKEN, f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_the_token_comes_bare_or_as_a_bearer(authorization: str) -> None:
    assert is_token(authorization, TOKEN)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"{TOKEN}x", TOKEN[:-1], "é", TOKEN.upper()]
)
def test_anything_else_is_not_the_token(authorization: str) -> None:
    assert not is_token(authorization, TOKEN)


async def test_without_a_token_the_page_is_closed(stores: Mapping[str, str], tmp_path: Path) -> None:
    async with open_served(stores, tmp_path) as served:
        answer = await served.ask("GET", PATH, {"Authorization": ""})
    assert (answer.status, answer.json["error"], answer.json["code"]) == (503, "Service Unavailable", 503)
    assert "VIBE_DEPLOYMENT_TOKEN" in answer.json["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": TOKEN}])
async def test_a_wrong_token_is_refused(served: Served, headers: Mapping[str, str]) -> None:
    answer = await served.ask("GET", PATH, headers)
    assert (answer.status, answer.json["error"], answer.json["errorType"]) == (
        401,
        "Unauthorized",
        "authentication_error",
    )
    assert TOKEN not in answer.json["message"]


async def test_an_idle_server_is_ready_to_go(served: Served) -> None:
    answer = await served.ask("GET", PATH, {"Authorization": TOKEN})
    assert answer.status == 200
    assert 0 <= answer.json["uptimeSeconds"] < 60
    assert {name: value for name, value in answer.json.items() if name != "uptimeSeconds"} == {
        "status": "ok",
        "version": VERSION,
        "activeStreams": 0,
        "activeRequests": 0,
        "deploymentColor": "blue",
        "port": served.port,
        "readyForShutdown": True,
    }


async def test_another_request_is_waited_for(served: Served) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(b"POST /auth0/finalize-login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        with trio.fail_after(5):
            while not (answer := await served.ask("GET", PATH, {"Authorization": TOKEN})).json["activeRequests"]:
                pass
    assert (answer.json["activeRequests"], answer.json["readyForShutdown"]) == (1, False)


async def test_a_running_call_is_waited_for(served: Served, tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        slot = journal.open_slot(uuid4())
        busy = await served.ask("GET", PATH, {"Authorization": TOKEN})
        slot.clear()
    assert (busy.json["activeStreams"], busy.json["readyForShutdown"]) == (1, False)
