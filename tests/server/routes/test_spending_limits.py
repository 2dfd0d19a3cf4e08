"""Spending limits as people set them, and as no API key does."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.errors import ArgumentInvalid, RequestInvalid
from server.operations import decode_body
from server.routes.spending_limits import SpendingLimitWish, check_wish
from storage.accounts import User
from storage.spending_limits import NewLimit
from tests.server.served import Answer, Served, open_served, token_headers
from tests.storage.calls import build_hold, build_settlement

PATH = "/api/billing/spending-limits"
KEYS = "/api/auth/api-keys"


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def put(served: Served, headers: dict[str, str], limit_usd: object = 5, **members: object) -> Answer:
    wish = {"period": "day", "limitUsd": limit_usd, **members}
    return await served.ask("PUT", PATH, headers, json.dumps(wish).encode())


async def show(served: Served, user: User) -> Any:
    answer = await served.ask("GET", PATH, token_headers(user))
    assert answer.status == 200, answer.body
    return answer.json["limits"]


async def make_key(served: Served, user: User) -> Any:
    body = b'{"label": "laptop", "scopes": ["read", "write"]}'
    return (await served.ask("POST", KEYS, token_headers(user), body)).json


async def list_audited(served: Served, action: str) -> list[Any]:
    return [row.entry for row in await served.services.auditor.log.find_latest(None, action, 10)]


async def test_a_limit_is_shown_with_what_is_spent_held_and_left(served: Served) -> None:
    user, credits_ = await served.make_user(), served.services.billing.credits
    await credits_.grant(user.id, Decimal(9), idempotency_key="grant", description="test")
    spent, running = build_hold(user.id, "1"), build_hold(user.id, "2")
    await credits_.hold(spent)
    await credits_.settle(build_settlement(spent, "0.25"))
    await credits_.hold(running)
    answer = await put(served, token_headers(user), "5.000000", alertPercents=[90, 10, 90])
    assert answer.status == 200, answer.body
    limit = answer.json
    assert await show(served, user) == [limit]
    now = datetime.now(UTC)
    assert limit.pop("createdAt") == limit.pop("updatedAt")
    assert datetime.fromisoformat(limit.pop("periodStart")) <= now < datetime.fromisoformat(limit.pop("resetsAt"))
    assert str(UUID(limit["id"])) == limit.pop("id")
    assert limit == {
        "apiKeyId": None,
        "period": "day",
        "limitUsd": 5,
        "spentUsd": 0.25,
        "heldUsd": 2,
        "leftUsd": 2.75,
        "percent": 5,
        "alertPercents": [10, 90],
    }


async def test_setting_and_removing_a_limit_is_audited(served: Served) -> None:
    user = await served.make_user()
    limit = (await put(served, token_headers(user), 5)).json
    assert (await put(served, token_headers(user), 4.5)).json["id"] == limit["id"]
    assert (await served.ask("DELETE", f"{PATH}/{limit['id']}", token_headers(user))).status == 204
    assert await show(served, user) == []
    again = await served.ask("DELETE", f"{PATH}/{limit['id']}", token_headers(user))
    assert (again.status, again.json["error_type"]) == (404, "not_found")
    told = [entry.details["limitUsd"] for entry in await list_audited(served, "spending_limit_updated")]
    assert told == ["5.000000", "4.500000"]
    (removed,) = await list_audited(served, "spending_limit_removed")
    assert (removed.subject_id, removed.entity_id, removed.details["period"]) == (user.id, limit["id"], "day")


async def test_an_api_key_sees_limits_and_changes_none(served: Served) -> None:
    user = await served.make_user()
    key = await make_key(served, user)
    limit = (await put(served, token_headers(user), 5, apiKeyId=key["id"])).json
    assert limit["apiKeyId"] == key["id"]
    headers = {"X-API-Key": key["key"]}
    assert (await served.ask("GET", PATH, headers)).json["limits"] == [limit]
    for answer in (await put(served, headers, 500), await served.ask("DELETE", f"{PATH}/{limit['id']}", headers)):
        assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
    assert await show(served, user) == [limit]


async def test_nobody_limits_or_frees_somebody_else(served: Served) -> None:
    user, other = await served.make_user(), await served.make_user("bob@example.com")
    key = await make_key(served, user)
    limit = (await put(served, token_headers(user), 5, apiKeyId=key["id"])).json
    assert await show(served, other) == []
    foreign = await put(served, token_headers(other), 0, apiKeyId=key["id"])
    assert (foreign.status, foreign.json["error_type"]) == (404, "not_found")
    assert (await served.ask("DELETE", f"{PATH}/{limit['id']}", token_headers(other))).status == 404
    assert await show(served, user) == [limit]
    assert len(await list_audited(served, "spending_limit_updated")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"period": "year"},
        {"period": None},
        {"limitUsd": -1},
        {"limitUsd": "1000000.01"},
        {"limitUsd": "NaN"},
        {"limitUsd": 0.0000001},
        {"limitUsd": None},
        {"apiKeyId": "mine"},
        {"alertPercents": [0]},
        {"alertPercents": [101]},
        {"alertPercents": [1.5]},
        {"alertPercents": [*range(1, 12)]},
    ],
)
def test_a_limit_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((RequestInvalid, ArgumentInvalid)):
        check_wish(decode_body(json.dumps({"period": "day", "limitUsd": 1, **change}).encode(), SpendingLimitWish))


def test_what_a_limit_leaves_open_has_its_usual_value() -> None:
    key_id = uuid4()
    body = b'{"period": "month", "limitUsd": 0.1, "more": 1}'
    assert check_wish(decode_body(body, SpendingLimitWish)) == NewLimit(None, "month", Decimal("0.1"))
    body = b'{"period": "day", "limitUsd": 0, "apiKeyId": "%s", "alertPercents": []}' % str(key_id).encode()
    assert check_wish(decode_body(body, SpendingLimitWish)) == NewLimit(key_id, "day", Decimal(0), [])
