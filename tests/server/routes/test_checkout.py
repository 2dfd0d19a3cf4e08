"""Checkout as clients see it: exact shapes, owners, and amounts as they were written. Stripe is played in memory."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from server.billing.checkout import Checkout
from server.billing.customers import Customers
from server.billing.payments import Payments
from server.errors import RequestInvalid
from server.operations import decode_body
from server.routes.checkout import CreditPurchaseWish
from server.services import use_services
from storage.accounts import User
from storage.billing_customers import BillingCustomers
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.server.served import Served, open_served, token_headers

BUY = "/api/billing/checkout/custom-credit-session"
LEAVE_CARD = "/api/billing/checkout/setup-session"
STATUS = "/api/billing/checkout/session-status/"


@pytest.fixture
def stripe() -> FakeStripeApi:
    return FakeStripeApi()


@pytest.fixture
async def served(
    database_url: str, redis_url: str, tmp_path: Path, stripe: FakeStripeApi
) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        billing, table = served.services.billing, BillingCustomers(served.services.database)
        payments = Payments(stripe, billing.purchases, table, served.services.auditor)
        checkout = Checkout(Customers(stripe, table), stripe, billing.purchases, payments, billing.terms)
        use_services(replace(served.services, billing=replace(billing, checkout=checkout)), served.app.extensions)
        yield served


async def make_buyer(served: Served, stripe: FakeStripeApi) -> User:
    """With a card that Stripe knows."""
    user, table = await served.make_user(), BillingCustomers(served.services.database)
    await table.get_or_make(user.id)
    await table.note_customer(user.id, stripe.add_customer().id, 0)
    return user


async def test_a_purchase_from_the_page_to_the_credits(served: Served, stripe: FakeStripeApi) -> None:
    user = await make_buyer(served, stripe)
    headers = token_headers(user)
    page = await served.ask("POST", BUY, headers, b'{"amount": 10.0}')
    session_id = next(iter(stripe.sessions))
    assert (page.status, page.headers["cache-control"]) == (200, "no-store")
    assert page.json == {"sessionId": session_id, "url": stripe.sessions[session_id].url}
    open_ = await served.ask("GET", STATUS + session_id, headers)
    email = "ann@example.com"
    assert (open_.status, open_.json) == (200, {"status": "open", "paymentStatus": "unpaid", "customerEmail": email})
    stripe.complete_session(session_id)
    paid = await served.ask("GET", STATUS + session_id, headers)
    assert paid.json == {"status": "complete", "paymentStatus": "paid", "customerEmail": email}
    assert (await served.services.billing.credits.balance(user.id)).balance_usd == Decimal("8.00")


async def test_a_page_for_a_card_has_the_same_shape_and_needs_no_body(served: Served, stripe: FakeStripeApi) -> None:
    headers = token_headers(await served.make_user())
    page = await served.ask("POST", LEAVE_CARD, headers)
    session_id = next(iter(stripe.sessions))
    assert page.json == {"sessionId": session_id, "url": stripe.sessions[session_id].url}
    status = await served.ask("GET", STATUS + session_id, headers)
    assert (status.json["status"], status.json["paymentStatus"]) == ("open", "no_payment_required")


async def test_an_amount_that_is_not_sold_is_a_400_with_the_bounds(served: Served, stripe: FakeStripeApi) -> None:
    headers = token_headers(await make_buyer(served, stripe))
    for amount in (b"2.99", b"1000.01", b'"NaN"', b"-10", b"10.001"):
        answer = await served.ask("POST", BUY, headers, b'{"amount": %s}' % amount)
        assert (answer.status, answer.json["error_type"]) == (400, "invalid_argument")
        assert "amount: " in answer.json["message"]
    assert stripe.calls == []


async def test_who_has_no_card_is_told_so(served: Served, stripe: FakeStripeApi) -> None:
    answer = await served.ask("POST", BUY, token_headers(await served.make_user()), b'{"amount": 10}')
    assert (answer.status, answer.json["error_type"]) == (402, "payment_method_required")


async def test_somebody_elses_page_is_a_404_that_tells_nothing(served: Served, stripe: FakeStripeApi) -> None:
    ann, bob = token_headers(await make_buyer(served, stripe)), token_headers(await served.make_user("bob@example.com"))
    page = await served.ask("POST", BUY, ann, b'{"amount": 10}')
    answers = [await served.ask("GET", STATUS + id_, bob) for id_ in (page.json["sessionId"], "cs_unknown", "x%00y")]
    assert [answer.status for answer in answers] == [404, 404, 404]
    assert answers[0].body == answers[1].body


async def test_an_api_key_buys_nothing_and_sees_no_page(served: Served, stripe: FakeStripeApi) -> None:
    user = await make_buyer(served, stripe)
    page = await served.ask("POST", BUY, token_headers(user), b'{"amount": 10}')
    headers = {"X-API-Key": await make_key(served, user)}
    for method, path in (("POST", BUY), ("POST", LEAVE_CARD), ("GET", STATUS + page.json["sessionId"])):
        answer = await served.ask(method, path, headers, b'{"amount": 10}' if method == "POST" else b"")
        assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
    assert len(stripe.sessions) == 1


async def make_key(served: Served, user: User) -> str:
    headers = {**token_headers(user), "Content-Type": "application/json"}
    answer = await served.ask("POST", "/api/auth/api-keys", headers, b'{"label": "laptop"}')
    return str(answer.json["key"])


@pytest.mark.parametrize(
    ("body", "amount"),
    [
        (b'{"amount": 10.1}', "10.1"),
        (b'{"amount": 10.10}', "10.10"),
        (b'{"amount": "10.10", "note": 1}', "10.10"),
        (b'{"amount": 1e1}', "1E+1"),
        (b'{"amount": 999.9900000000000000000000000000000000001}', "999.9900000000000000000000000000000000001"),
    ],
)
def test_an_amount_is_read_exactly_as_it_is_written(body: bytes, amount: str) -> None:
    assert str(decode_body(body, CreditPurchaseWish).amount) == str(Decimal(amount))


@pytest.mark.parametrize(
    "body",
    [b"", b"10", b"{", b"\xff", b"{}", b'{"amount": null}', b'{"amount": true}', b'{"amount": "ten"}', b"[" * 100_000],
)
def test_a_body_without_an_amount_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(body, CreditPurchaseWish)
