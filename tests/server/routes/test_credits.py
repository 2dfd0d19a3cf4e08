"""Credits as clients ask for them, and as administrators change them."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.errors import ArgumentInvalid, RequestInvalid
from server.operations import decode_body
from server.routes.credits import AdjustmentWish, RefundWish, check_adjustment, check_refund
from storage.accounts import User
from tests.server.served import Answer, Served, open_served, token_headers
from tests.storage.calls import build_hold, build_settlement

BASE = "/api/billing/credits"


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def show(served: Served, user: User, path: str) -> Any:
    answer = await served.ask("GET", BASE + path, token_headers(user))
    assert answer.status == 200, answer.body
    return answer.json


async def grant(served: Served, user: User, amount: str = "5", description: str = "a grant") -> None:
    credits_ = served.services.billing.credits
    assert await credits_.grant(user.id, Decimal(amount), idempotency_key=str(uuid4()), description=description)


async def call(served: Served, user: User, charge: str = "0.25") -> UUID:
    hold = build_hold(user.id)
    await served.services.billing.credits.hold(hold)
    await served.services.billing.credits.settle(build_settlement(hold, charge))
    return hold.id


async def post(served: Served, path: str, body: object, role: str = "admin", **headers: str) -> Answer:
    sent = {**token_headers(await served.make_user(f"{role}@example.com", role)), **headers}
    return await served.ask("POST", f"{BASE}/admin/{path}", sent, json.dumps(body).encode())


def build_wish(user_id: UUID | str, amount: object = "1.5", **members: object) -> dict[str, object]:
    kind = {"transaction_type": "adjustment", "description": "for the trouble"}
    return {"user_id": str(user_id), "amount": amount, **kind, **members}


async def list_audited(served: Served, action: str) -> list[Any]:
    return [row.entry for row in await served.services.auditor.log.find_latest(None, action, 10)]


async def test_a_balance_is_a_number_for_the_desktop_and_a_string_for_who_wants_all_places(served: Served) -> None:
    user = await served.make_user()
    await grant(served, user, "1.234567")
    ends = datetime.now(UTC) + timedelta(days=1)
    bookings = served.services.billing.bookings
    await bookings.grant_free(user.id, Decimal(2), ends, idempotency_key="bonus", description="welcome")
    shown = await show(served, user, "/balance")
    times = {shown.pop(name) for name in ("createdAt", "freeCreditsGrantedAt", "freeCreditsExpiresAt")}
    assert all(len(time) == 24 and time.endswith("Z") for time in times)
    assert shown.pop("updatedAt") == shown.pop("lastUpdated")
    assert shown == {
        "userId": str(user.id),
        "balance": 1.234567,
        "balanceDecimal": "1.234567",
        "currency": "USD",
        "freeCreditBalance": "2.000000",
        "freeCreditsExpired": False,
    }


async def test_an_account_without_credits_has_a_balance_too(served: Served) -> None:
    shown = await show(served, await served.make_user(), "/balance")
    assert (shown["balance"], shown["balanceDecimal"], shown["freeCreditsGrantedAt"]) == (0, "0.000000", None)
    assert shown["createdAt"] == shown["lastUpdated"]


async def test_the_history_has_pages_and_a_search(served: Served) -> None:
    user = await served.make_user()
    for number in range(3):
        await grant(served, user, "1", f"gift {number}")
    await call(served, user)
    first = await show(served, user, "/unified-history?limit=2")
    assert [entry["transactionType"] for entry in first["entries"]] == ["usage", "adjustment"]
    assert (first["totalCount"], first["hasMore"], first["entries"][0]["balanceAfter"]) == (4, True, 2.75)
    last = await show(served, user, "/unified-history?limit=500&offset=2")
    assert (len(last["entries"]), last["totalCount"], last["hasMore"]) == (2, 4, False)
    found = await show(served, user, "/unified-history?search=GIFT%201")
    assert [entry["description"] for entry in found["entries"]] == ["gift 1"]
    assert found["totalCount"] == 1
    beyond = await show(served, user, "/unified-history?offset=99999999999")
    assert beyond == {"entries": [], "totalCount": 4, "hasMore": False}


async def test_details_stats_and_transactions_tell_the_same(served: Served) -> None:
    user = await served.make_user()
    await grant(served, user)
    request_id = await call(served, user)
    details, stats = await show(served, user, "/details?limit=1"), await show(served, user, "/stats")
    assert details["stats"] == stats
    assert (stats["currentBalance"], stats["totalConsumed"], stats["transactionCount"]) == (4.75, -0.25, 2)
    (charge,) = details["transactions"]
    assert (charge["relatedApiUsageId"], charge["price"], charge["netAmount"]) == (str(request_id), -0.25, "-0.250000")
    assert (details["totalTransactionCount"], details["hasMore"]) == (2, True)
    plain = await show(served, user, "/transaction-history?offset=1")
    assert [entry["amount"] for entry in plain["transactions"]] == ["5.000000"]


async def test_nobody_is_shown_what_is_somebody_elses(served: Served) -> None:
    user, other = await served.make_user(), await served.make_user("bob@example.com")
    await grant(served, user, "7.654321", "a secret gift")
    for path in ("/unified-history", "/details", "/transaction-history", "/stats", "/balance"):
        answer = await served.ask("GET", BASE + path, token_headers(other))
        assert answer.status == 200
        assert b"7.654321" not in answer.body
        assert b"secret" not in answer.body
        assert b"7.654321" in (await served.ask("GET", BASE + path, token_headers(user))).body


async def test_a_page_that_is_none_is_refused(served: Served) -> None:
    user = await served.make_user()
    answer = await served.ask("GET", f"{BASE}/unified-history?limit=many", token_headers(user))
    assert (answer.status, answer.json["error_type"]) == (400, "validation_error")


async def test_an_administrator_adjusts_a_balance_with_a_reason_which_is_audited(served: Served) -> None:
    user = await served.make_user()
    answer = await post(served, "adjust", build_wish(user.id, 1.5))
    assert answer.status == 200, answer.body
    told = answer.json
    adjusted_at = told["adjustment"].pop("adjustedAt")
    assert told == {
        "success": True,
        "adjustment": {
            "userId": str(user.id),
            "amount": "1.500000",
            "transactionType": "adjustment",
            "description": "for the trouble",
        },
        "newBalance": "1.500000",
        "currency": "USD",
    }
    (entry,) = (await show(served, user, "/unified-history"))["entries"]
    assert (entry["date"], entry["description"], entry["price"]) == (adjusted_at, "for the trouble", 1.5)
    (audited,) = await list_audited(served, "credits_adjusted")
    assert (audited.subject_id, audited.details) == (user.id, {"amountUsd": "1.500000"})
    assert "trouble" not in str(audited)


async def test_an_adjustment_with_a_key_is_booked_and_audited_once(served: Served) -> None:
    user, other = await served.make_user(), await served.make_user("bob@example.com")
    for _ in range(2):
        answer = await post(served, "adjust", build_wish(user.id), **{"Idempotency-Key": "ticket 5"})
        assert (answer.status, answer.json["newBalance"]) == (200, "1.500000")
    changed = await post(served, "adjust", build_wish(user.id, 2, idempotency_key="ticket 5"))
    assert (changed.status, changed.json["error_type"]) == (409, "already_exists")
    for_other = await post(served, "adjust", build_wish(other.id, idempotency_key="ticket 5"))
    assert (for_other.status, for_other.json["newBalance"]) == (200, "1.500000")
    assert len(await list_audited(served, "credits_adjusted")) == 2


async def test_more_than_is_there_is_not_taken_and_nobody_unknown_is_given_anything(served: Served) -> None:
    user = await served.make_user()
    await grant(served, user, "1")
    refused = await post(served, "adjust", build_wish(user.id, "-1.000001"))
    assert (refused.status, refused.json["error_type"]) == (402, "credit_insufficient")
    unknown = await post(served, "adjust", build_wish(uuid4()))
    assert (unknown.status, unknown.json["error_type"]) == (404, "not_found")
    assert await list_audited(served, "credits_adjusted") == []
    assert (await post(served, "adjust", build_wish(user.id, "-1"))).json["newBalance"] == "0.000000"


async def test_an_administrator_gives_back_what_a_call_cost_once(served: Served) -> None:
    user = await served.make_user()
    await grant(served, user)
    wish = {"request_id": str(await call(served, user)), "description": "a bad answer"}
    answer = await post(served, "refund", wish)
    assert (answer.status, answer.json["refund"]) == (
        200,
        {
            "requestId": wish["request_id"],
            "userId": str(user.id),
            "amount": "0.250000",
            "freeAmount": "0.000000",
            "description": "a bad answer",
        },
    )
    again = await post(served, "refund", wish)
    assert (again.status, again.json["error_type"]) == (404, "not_found")
    assert (await show(served, user, "/stats"))["currentBalance"] == 5
    (audited,) = await list_audited(served, "call_refunded")
    assert (audited.subject_id, audited.entity_id) == (user.id, wish["request_id"])


async def test_whoever_is_no_administrator_changes_nothing(served: Served) -> None:
    user = await served.make_user("user@example.com")
    for path, body in (("adjust", build_wish(user.id)), ("refund", {"request_id": str(uuid4()), "description": "x"})):
        answer = await post(served, path, body, role="user")
        assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
    assert (await show(served, user, "/stats"))["transactionCount"] == 0


WISH = build_wish(UUID(int=1))


def read_adjustment(wish: dict[str, object], header_key: str | None) -> AdjustmentWish:
    return check_adjustment(decode_body(json.dumps(wish).encode(), AdjustmentWish), header_key)


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "NaN"},
        {"amount": "1000000.000001"},
        {"amount": 0},
        {"amount": "0.0000001"},
        {"amount": None},
        {"description": " "},
        {"description": "a\nb"},
        {"description": "a" * 501},
        {"description": None},
        {"user_id": "me"},
        {"transaction_type": "gift"},
        {"idempotency_key": "k" * 201},
        {"idempotency_key": "ä"},
        {"idempotency_key": "one\x00"},
        {"idempotency_key": "another"},
    ],
)
def test_an_adjustment_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((RequestInvalid, ArgumentInvalid)):
        read_adjustment({**WISH, **change}, "key" if "another" in change.values() else None)


def test_an_adjustment_without_a_key_gets_one_of_its_own() -> None:
    first, second = (read_adjustment(WISH, None) for _ in range(2))
    assert first.idempotency_key
    assert first.idempotency_key != second.idempotency_key
    assert read_adjustment(WISH, "mine").idempotency_key == "mine"


def test_a_refund_wants_a_reason() -> None:
    assert check_refund(RefundWish(UUID(int=1), " x ")).description == "x"
    with pytest.raises(RequestInvalid, match="description"):
        check_refund(RefundWish(UUID(int=1), ""))
