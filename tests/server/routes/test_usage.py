"""Summaries of usage as clients decode them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from proxy.ledger import Hold
from server.errors import RequestInvalid
from server.routes.usage import label_key, read_grouping
from storage.accounts import User
from storage.api_keys import ApiKey, NewKey, make_api_key
from tests.server.served import Answer, Served, open_served, token_headers
from tests.storage.calls import USAGE, build_hold, build_settlement

SUMMARY = "/api/billing/usage-summary"
BREAKDOWN = "/api/billing/usage/breakdown"
CACHED = USAGE.cache_read_tokens + USAGE.cache_write_tokens + USAGE.cache_write_1h_tokens
KEY = ApiKey(UUID(int=7), "0a1b2c", "laptop", ("read",), datetime(2025, 1, 1, tzinfo=UTC), None, None, None)


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def ask(served: Served, user: User, path: str, **query: str) -> Answer:
    """The dates go into the address as they are, the way clients send them."""
    times = {"start_date": "2000-01-01T00:00:00.000+00:00", "end_date": "2100-01-01T00:00:00Z", **query}
    return await served.ask(
        "GET", f"{path}?{'&'.join(f'{name}={value}' for name, value in times.items())}", token_headers(user)
    )


async def show(served: Served, user: User, path: str, **query: str) -> Any:
    answer = await ask(served, user, path, **query)
    assert answer.status == 200, answer.body
    return answer.json


async def call(served: Served, hold: Hold, charge: str) -> None:
    credits_ = served.services.billing.credits
    await credits_.hold(hold)
    await credits_.settle(build_settlement(hold, charge))


async def make_customer(served: Served, email: str = "ann@example.com") -> User:
    user = await served.make_user(email)
    await served.services.billing.credits.grant(user.id, Decimal(9), idempotency_key=email, description="test")
    return user


async def test_a_summary_has_every_key_that_clients_decode(served: Served) -> None:
    user = await make_customer(served)
    await call(served, build_hold(user.id), "0.25")
    await call(served, replace(build_hold(user.id), model_id="gone/model"), "0.5")
    shown = await show(served, user, SUMMARY)
    durations = [each.pop("totalDurationMs") for each in (*shown["detailedUsage"], shown["summary"])]
    assert durations[0] + durations[1] == durations[2]
    figures = {
        "totalRequests": 1,
        "totalInputTokens": USAGE.prompt_tokens,
        "totalOutputTokens": USAGE.completion_tokens,
        "totalCachedTokens": CACHED,
    }
    known = {
        "serviceName": "openai/gpt-4.1-mini",
        "modelDisplayName": served.services.catalogue.models["openai/gpt-4.1-mini"].name,
        "providerCode": "openai",
    }
    unknown = {"serviceName": "gone/model", "modelDisplayName": "gone/model", "providerCode": "unknown"}
    assert shown == {
        "detailedUsage": [{**unknown, "totalCost": 0.5, **figures}, {**known, "totalCost": 0.25, **figures}],
        "summary": {"totalCost": 0.75, **{name: 2 * figure for name, figure in figures.items()}},
    }


async def test_without_usage_a_summary_is_empty_and_whole(served: Served) -> None:
    shown = await show(served, await served.make_user(), SUMMARY)
    assert shown["detailedUsage"] == []
    assert set(shown["summary"].values()) == {0}
    assert len(shown["summary"]) == 6


async def test_dates_may_be_escaped_or_not_and_a_bad_one_is_refused(served: Served) -> None:
    user = await make_customer(served)
    await call(served, build_hold(user.id), "0.25")
    for start in ("2000-01-01T00:00:00+02:00", quote("2000-01-01T00:00:00+02:00", safe=""), "2000-01-01T00:00:00Z"):
        assert (await show(served, user, SUMMARY, start_date=start))["summary"]["totalRequests"] == 1
    later = await show(served, user, SUMMARY, start_date="2099-01-01T00:00:00Z")
    assert later["summary"]["totalRequests"] == 0
    extreme = {"start_date": "0001-01-01T00:00:00+15:59", "end_date": "9999-12-31T23:59:59-15:59"}
    assert (await show(served, user, SUMMARY, **extreme))["summary"]["totalRequests"] == 1
    for path in (SUMMARY, BREAKDOWN):
        refused = await ask(served, user, path, end_date="yesterday")
        assert (refused.status, refused.json["error_type"]) == (400, "validation_error")
        assert "end_date" in refused.json["message"]


async def test_a_breakdown_is_grouped_as_it_is_asked_for(served: Served) -> None:
    user = await make_customer(served)
    new = NewKey(uuid4(), user.id, "a" * 64, "0a1b2c", "laptop", ("read", "write"), None)
    async with served.services.database.as_operator("test").transaction() as connection:
        await make_api_key(connection, new)
    await call(served, build_hold(user.id), "0.25")
    await call(served, replace(build_hold(user.id), api_key_id=new.id, task_type="web"), "0.5")
    labels = {
        "key": [(str(new.id), "laptop (0a1b2c…)", 0.5), (None, "Signed in", 0.25)],
        "task": [("web", "web", 0.5), ("general", "general", 0.25)],
        "provider": [("openai", "openai", 0.75)],
        "model": [("openai/gpt-4.1-mini", served.services.catalogue.models["openai/gpt-4.1-mini"].name, 0.75)],
    }
    for by, expected in labels.items():
        shown = await show(served, user, BREAKDOWN, group_by=by)
        assert [(each["key"], each["label"], each["totalCost"]) for each in shown["groups"]] == expected
        assert (shown["groupBy"], shown["summary"]["totalCost"]) == (by, 0.75)
    days = (await show(served, user, BREAKDOWN, group_by="day"))["groups"]
    assert sum(day["totalRequests"] for day in days) == 2
    assert datetime.fromisoformat(days[0]["key"]).tzinfo is None


async def test_usage_is_the_callers_own(served: Served) -> None:
    user, other = await make_customer(served), await make_customer(served, "bob@example.com")
    await call(served, build_hold(user.id), "0.25")
    for path in (SUMMARY, BREAKDOWN):
        assert (await show(served, other, path))["summary"]["totalRequests"] == 0


def test_a_grouping_that_is_none_is_refused() -> None:
    assert read_grouping({}) == "model"
    with pytest.raises(RequestInvalid, match="model, provider, day, task, key"):
        read_grouping({"group_by": "user_id; --"})


def test_a_key_goes_by_its_label_and_how_it_begins() -> None:
    keys = {str(KEY.id): KEY}
    assert [label_key(keys, id_) for id_ in (str(KEY.id), None, "?")] == ["laptop (0a1b2c…)", "Signed in", "unknown"]
