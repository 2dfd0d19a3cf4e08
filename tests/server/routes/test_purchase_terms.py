"""What credits cost and what is given for nothing, as clients see it and administrators change it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.billing.terms import FREE_AMOUNT, FREE_DAYS
from server.errors import ArgumentInvalid, RequestInvalid
from server.operations import decode_body
from server.routes import purchase_terms
from server.routes.purchase_terms import FreeCreditsWish
from storage.configuration import write_configuration
from tests.server.served import Answer, Served, open_served, token_headers

TIERS = "/api/billing/credits/purchase-fee-tiers"
CONFIGURATION = "/api/config/billing"
CHANGED = "billing_configuration_changed"


def read_changes(body: bytes) -> dict[str, str]:
    return purchase_terms.read_changes(decode_body(body, FreeCreditsWish))


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def ask(served: Served, method: str, path: str, body: bytes = b"", role: str = "user") -> Answer:
    user = await served.make_user(f"{role}@example.com", role)
    return await served.ask(method, path, token_headers(user), body)


async def write(served: Served, **values: object) -> None:
    async with served.services.database.as_operator("test").transaction() as connection:
        await write_configuration(connection, values, "system")


async def list_changes(served: Served) -> list[Any]:
    rows = await served.services.auditor.log.find_latest(None, CHANGED, 10)
    return [row.entry.details["values"] for row in rows]


async def test_the_tiers_are_told_with_decimals_in_strings_and_the_last_without_an_end(served: Served) -> None:
    answer = await ask(served, "GET", TIERS)
    assert answer.status == 200
    assert answer.json == {
        "tiers": [
            {"min": "3", "max": "12", "feeRate": "0.20", "label": "STARTER"},
            {"min": "12", "max": "99", "feeRate": "0.10", "label": "SAVER"},
            {"min": "99", "max": None, "feeRate": "0.05", "label": "BULK"},
        ]
    }


async def test_other_tiers_count_at_once_and_are_no_powers_of_ten(served: Served) -> None:
    await write(served, credit_purchase_fee_tiers={"tiers": [{"min": "1E+1", "max": None, "fee_rate": 0.000001}]})
    answer = await ask(served, "GET", TIERS)
    assert answer.json == {"tiers": [{"min": "10", "max": None, "feeRate": "0.000001", "label": ""}]}


async def test_what_signing_up_brings_is_told_to_everybody_who_is_signed_in(served: Served) -> None:
    answer = await ask(served, "GET", CONFIGURATION)
    assert (answer.status, answer.json) == (200, {"freeCreditsAmount": "2.00", "freeCreditsExpiryDays": 180})


async def test_an_administrator_changes_it_and_the_audit_log_says_who(served: Served) -> None:
    body = b'{"freeCreditsAmount": "3.5", "freeCreditsExpiryDays": 30, "more": 1}'
    answer = await ask(served, "PUT", CONFIGURATION, body, role="admin")
    assert (answer.status, answer.json) == (200, {"freeCreditsAmount": "3.50", "freeCreditsExpiryDays": 30})
    assert await served.services.billing.terms.configuration.read([FREE_AMOUNT, FREE_DAYS]) == {
        FREE_AMOUNT: "3.50",
        FREE_DAYS: "30",
    }
    assert served.services.live.configuration[FREE_DAYS] == "30"
    ((entry,),) = [[row.entry for row in await served.services.auditor.log.find_latest(None, CHANGED, 10)]]
    assert entry.actor.startswith("user:")
    assert (entry.entity_type, entry.entity_id, entry.status) == ("configuration", "billing", "success")
    assert entry.details == {"values": {FREE_AMOUNT: "3.50", FREE_DAYS: "30"}}


async def test_one_member_leaves_the_other_as_it_is(served: Served) -> None:
    body = b'{"freeCreditsAmount": null, "freeCreditsExpiryDays": 365}'
    answer = await ask(served, "PUT", CONFIGURATION, body, role="admin")
    assert answer.json == {"freeCreditsAmount": "2.00", "freeCreditsExpiryDays": 365}
    assert await list_changes(served) == [{FREE_DAYS: "365"}]


async def test_the_same_again_is_no_change(served: Served) -> None:
    for _ in range(2):
        answer = await ask(served, "PUT", CONFIGURATION, b'{"freeCreditsExpiryDays": 365}', role="admin")
        assert (answer.status, answer.json["freeCreditsExpiryDays"]) == (200, 365)
    assert await list_changes(served) == [{FREE_DAYS: "365"}]


async def test_nothing_to_change_changes_nothing(served: Served) -> None:
    answer = await ask(served, "PUT", CONFIGURATION, b"{}", role="admin")
    assert (answer.status, answer.json["freeCreditsExpiryDays"]) == (200, 180)
    assert await list_changes(served) == []


async def test_nobody_else_may_change_it(served: Served) -> None:
    answer = await ask(served, "PUT", CONFIGURATION, b'{"freeCreditsAmount": "1000"}')
    assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
    assert await served.services.billing.terms.configuration.read([FREE_AMOUNT]) == {}


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (b'{"freeCreditsAmount": "3.50", "freeCreditsExpiryDays": 366}', "invalid_argument"),
        (b'{"freeCreditsAmount": "-0.01", "freeCreditsExpiryDays": 30}', "validation_error"),
    ],
)
async def test_one_member_that_cannot_be_leaves_both_as_they_are(
    served: Served, body: bytes, error_type: str
) -> None:
    answer = await ask(served, "PUT", CONFIGURATION, body, role="admin")
    assert (answer.status, answer.json["error_type"]) == (400, error_type)
    assert await served.services.billing.terms.configuration.read([FREE_AMOUNT, FREE_DAYS]) == {}
    assert await list_changes(served) == []


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'{"freeCreditsAmount": 0}', {FREE_AMOUNT: "0.00"}),
        (b'{"freeCreditsAmount": -0.0}', {FREE_AMOUNT: "0.00"}),
        (b'{"freeCreditsAmount": 1E2}', {FREE_AMOUNT: "100.00"}),
        (b'{"freeCreditsAmount": "0.123456"}', {FREE_AMOUNT: "0.123456"}),
        (b'{"freeCreditsAmount": 2.5000}', {FREE_AMOUNT: "2.50"}),
        (b'{"freeCreditsExpiryDays": 1}', {FREE_DAYS: "1"}),
    ],
)
def test_values_are_stored_as_strings_of_plain_decimals(body: bytes, rows: dict[str, str]) -> None:
    assert read_changes(body) == rows


@pytest.mark.parametrize(
    "amount", [b"-1", b'"NaN"', b'"Infinity"', b"0.0000001", b"1000.01", b"1e999999", b"true", b"[]"]
)
def test_an_amount_that_cannot_be_is_named(amount: bytes) -> None:
    with pytest.raises(RequestInvalid, match="freeCreditsAmount"):
        read_changes(b'{"freeCreditsAmount": %s}' % amount)


@pytest.mark.parametrize("days", [b"0", b"366", b"-1", b"9223372036854775807"])
def test_days_out_of_their_bounds_are_named(days: bytes) -> None:
    with pytest.raises(ArgumentInvalid, match="freeCreditsExpiryDays"):
        read_changes(b'{"freeCreditsExpiryDays": %s}' % days)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"freeCreditsExpiryDays": 1.5}', b"[" * 100_000])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        read_changes(body)
