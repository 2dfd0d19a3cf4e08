"""Starting as operators do, with everything right and with everything wrong."""

import subprocess

import httpx2
import pytest

from tests.end_to_end.caller import SHIPPED, build_chat
from tests.end_to_end.cloche import Stores, build_environment, find_port, open_cloche, start_hypercorn
from tests.fakes import open_fake_upstream, openai_stream


def start_and_fail(environment: dict[str, str], *options: str) -> tuple[int, str]:
    process = start_hypercorn(environment, find_port(), *options)
    try:
        _, log = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, log.decode()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_all_problems_with_settings_are_told_at_once_a_line_each(stores: Stores, workers: str) -> None:
    environment = build_environment(stores, "ftp://nowhere", {"JWT_SECRET": "short", "LOG_LEVEL": "loud"})
    del environment["DATABASE_URL"]
    environment["REDIS_URL"] = "localhost"
    status, log = start_and_fail(environment, "-w", workers)
    assert status != 0
    for name in ("DATABASE_URL is missing", "REDIS_URL is wrong", "JWT_SECRET is wrong", "OPENAI_BASE_URL is wrong"):
        assert log.count(name) >= 1, log
    assert "Traceback" not in log
    assert "short" not in log


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"DATABASE_URL": "postgresql://someone:hidden@127.0.0.1:9/none"}, "PostgreSQL"),
        ({"REDIS_URL": "redis://:hidden@127.0.0.1:9"}, "Redis"),
    ],
)
def test_a_store_that_is_not_there_is_told_without_its_password(
    stores: Stores, settings: dict[str, str], phrase: str
) -> None:
    status, log = start_and_fail(build_environment(stores, "http://127.0.0.1:9", settings))
    assert (status != 0, phrase in log) == (True, True), log
    assert "hidden" not in log
    assert "Traceback" not in log


async def test_two_workers_share_the_port_and_the_accounts(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(["Hello"], usage=(8, 1))) as upstream,
        open_cloche(stores, upstream.url, options=("-w", "2")) as cloche,
    ):
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=20) as client:
            for _ in range(10):
                assert (await client.post(SHIPPED, json=build_chat())).status_code == 200
        assert cloche.query("SELECT count(*) FROM usage") == [(10,)]
        cloche.check_accounts()


async def test_readiness_opens_no_connections(stores: Stores) -> None:
    async with open_cloche(stores) as cloche, httpx2.AsyncClient(base_url=cloche.url) as client:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cloche'"
        assert (await client.get("/health/ready")).json() == {"status": "ready", "postgresql": "ok", "redis": "ok"}
        before = cloche.query(count)
        for _ in range(20):
            assert (await client.get("/health/ready")).status_code == 200
        assert cloche.query(count) == before
        assert (await client.get("/health")).json()["status"] == "ok"


async def test_errors_of_the_framework_come_in_the_envelope_too(stores: Stores) -> None:
    async with open_cloche(stores, MAX_BODY_BYTES="1000") as cloche:
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers)) as client:
            answers = {
                401: await client.post(SHIPPED, json=build_chat(), headers={"Authorization": "Bearer nonsense"}),
                404: await client.get("/api/nothing"),
                405: await client.get(SHIPPED),
                413: await client.post(SHIPPED, content=b"x" * 2000),
                400: await client.post(SHIPPED, content=b"{"),
            }
            for status, answer in answers.items():
                body = answer.json()
                assert (answer.status_code, body["code"], body["error_type"]) == (status, status, body["errorType"])
                assert isinstance(body["message"], str)
            assert answers[405].headers["allow"]
            assert (await client.post("/v1/chat/completions", content=b"x" * 2000)).json()["error"]["message"]
