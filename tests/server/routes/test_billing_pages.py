"""The pages that Stripe sends people back to: for everybody, and the same whatever the query says."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.served import Answer, Served, open_served

PAGES = {
    "/billing": "Billing",
    "/billing/success": "Your order is placed",
    "/billing/cancel": "Nothing was bought",
    "/billing/payment-method/success": "Your card is saved",
    "/billing/payment-method/cancel": "No card was saved",
}


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


def read_title(answer: Answer) -> str:
    found = re.search(r"<h1>(.*)</h1>", answer.body.decode())
    assert found is not None
    return found.group(1)


async def test_each_is_a_page_for_whoever_comes(served: Served) -> None:
    for path, title in PAGES.items():
        answer = await served.ask("GET", path)
        assert (answer.status, read_title(answer)) == (200, title)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_what_the_query_says_is_not_shown(served: Served) -> None:
    for path in PAGES:
        plain = await served.ask("GET", path)
        asked = await served.ask("GET", f"{path}?session_id=cs_test_1&error=%3Cscript%3E&title=x")
        assert asked.body == plain.body


async def test_they_are_only_to_be_looked_at(served: Served) -> None:
    for path in PAGES:
        assert (await served.ask("POST", path)).status == 405


async def test_whoever_asks_too_often_is_told_so_on_a_page(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, RATE_LIMIT_MAX_REQUESTS="1") as served:
        await served.ask("GET", "/billing/success")
        answer = await served.ask("GET", "/billing/success?x=1")
        assert (answer.status, read_title(answer)) == (429, "This page cannot be shown now")
        assert "retry-after" in answer.headers
