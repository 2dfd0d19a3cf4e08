"""Whatever the routes of credits are asked, they answer it or say what is wrong: it is never an error of ours."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.billing.checkout import Checkout
from server.billing.customers import Customers
from server.services import use_services
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.server.served import Answer, Served, open_served, token_headers
from tests.server.test_route_table import fill_in, walk_routes

PLACES = ("/api/billing", "/api/config/billing")

QUERIES = (
    "limit=abc&offset=1",
    "limit=99999999999999999999&offset=-1",
    "limit=-1&offset=999999999999999999",
    "limit=%00",
    "search=%00",
    "limit=%D9%A3&search=%ED%A0%80%FF",
    "limit=1&offset=0&search=%25_%5C%27",
    "unread=%00&starting_after=in_%00",
    "starting_after=in_" + "x" * 300,
    "start_date=0001-01-01T00:00:00%2B23:59&end_date=9999-12-31T23:59:59-23:59",
    "start_date=0001-01-01T00:00:00%2B15:59&end_date=9999-12-31T23:59:59-15:59",
    "start_date=9999-12-31T23:59:59Z&end_date=0001-01-01T00:00:00Z&group_by=key",
    "start_date=2025-01-01T00:00:00Z&end_date=2026-01-01T00:00:00Z&group_by=%00",
)

NUMBERS = ("null", "true", "-1", "0", "1e400", "1e-400", "9" * 400, '"NaN"', '"sNaN"', '"-Infinity"', '"1e99999"', "[]")
ID = "00000000-0000-0000-0000-000000000007"
TEMPLATES = (
    '{"amount": %s}',
    f'{{"amount": %s, "user_id": "{ID}", "description": "a"}}',
    '{"enabled": true, "threshold": %s, "amount": 10}',
    '{"enabled": true, "threshold": 5, "amount": %s}',
    '{"enabled": false, "threshold": %s, "amount": %s}',
    '{"period": "day", "limitUsd": %s}',
    '{"period": "day", "limitUsd": 1, "alertPercents": [%s]}',
    '{"freeCreditsAmount": %s}',
    '{"freeCreditsExpiryDays": %s}',
    '{"ids": %s}',
)
BODIES = (
    *(b"", b"null", b"[]", b"{}", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"a": "\\ud800"}', b"NaN"),
    *(template.replace("%s", number).encode() for template in TEMPLATES for number in NUMBERS),
    f'{{"user_id": "{ID}", "amount": 1, "description": "\\u0000"}}'.encode(),
    f'{{"user_id": "{ID}", "amount": 1, "description": "a", "idempotency_key": "\\u0000"}}'.encode(),
    f'{{"request_id": "{ID}", "description": "a"}}'.encode(),
    f'{{"period": "day", "limitUsd": 1, "apiKeyId": "{ID}"}}'.encode(),
)


@pytest.fixture
def stripe() -> FakeStripeApi:
    return FakeStripeApi()


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path, stripe: FakeStripeApi) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        billing = served.services.billing
        customers = Customers(stripe, billing.billing_customers)
        checkout = Checkout(customers, stripe, billing.purchases, billing.payments, billing.terms)
        billing = replace(billing, stripe=stripe, customers=customers, checkout=checkout, settings=stripe.settings)
        use_services(replace(served.services, billing=billing), served.app.extensions)
        yield served


def walk_paths(served: Served) -> Iterator[tuple[str, str]]:
    for method, rule in walk_routes(served.app):
        if rule.rule.startswith(PLACES):
            yield method, fill_in(rule)


def find_fault(answer: Answer, asked: str) -> str | None:
    """None if it is an answer, or says what is wrong as clients read it."""
    if answer.status < 300:
        return None
    if answer.status >= 500 or answer.json.keys() != {"code", "message", "error_type", "errorType"}:
        return f"{asked}: {answer.status} {answer.body[:200]!r}"
    return None


async def test_no_query_and_no_body_is_an_error_of_ours(served: Served, stripe: FakeStripeApi) -> None:
    """Asked by an administrator who has a card, so that nothing is refused before it is read."""
    buyer, table = await served.make_user(role="admin"), served.services.billing.billing_customers
    await table.get_or_make(buyer.id)
    await table.note_customer(buyer.id, stripe.add_customer().id, 0)
    headers = token_headers(buyer)
    statuses, faults = set(), []
    for method, path in walk_paths(served):
        if method in {"GET", "DELETE"}:
            answers = [(query, await served.ask(method, f"{path}?{query}", headers)) for query in QUERIES]
        elif method != "HEAD":
            answers = [(repr(body[:90]), await served.ask(method, path, headers, body)) for body in BODIES]
        else:
            continue
        statuses |= {(path, answer.status) for _, answer in answers}
        faults += [fault for said, answer in answers if (fault := find_fault(answer, f"{method} {path} {said}"))]
    assert faults == []
    assert {path for path, status in statuses if status == 403} == set()


@pytest.mark.parametrize("id_", ["x", "%00", "cs_%00", "cs_" + "x" * 300, "%ED%A0%80", "..%2F..", "cs_a%2Fb"])
async def test_what_is_no_id_is_not_found(served: Served, id_: str) -> None:
    headers = token_headers(await served.make_user())
    for method, path in (("GET", "checkout/session-status"), ("DELETE", "spending-limits")):
        answer = await served.ask(method, f"/api/billing/{path}/{id_}", headers)
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")
