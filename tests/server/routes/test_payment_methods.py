"""Cards, invoices and addresses as clients see them: exact shapes, own rows only. Stripe is a server of the test's."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from server.auth.credentials import hash_api_key
from server.errors import RequestInvalid
from server.routes.payment_methods import InvoicesQuery, describe_customer, read_query, show_paid
from storage.accounts import User
from storage.api_keys import NewKey, make_api_key
from storage.billing_customers import BillingCustomers
from tests.server.billing.stripe_objects import ADDRESS, build_customer, build_invoice
from tests.server.billing.stripe_server import StripeServer, open_stripe_server, refuse, tell
from tests.server.billing.test_stripe_reader import INVOICE
from tests.server.served import Served, open_served, token_headers

CUSTOMER: dict[str, Any] = {
    "id": "cus_1",
    "object": "customer",
    "name": "Ann Example",
    "email": "ann@example.com",
    "phone": None,
    "tax_exempt": "none",
    "address": asdict(ADDRESS),
    "invoice_settings": {"default_payment_method": "pm_1"},
    "tax_ids": {"data": [{"type": "us_ein", "value": "12-3456789", "country": "US", "verification": None}]},
}
CARD = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034}
METHODS = {
    "data": [
        {"id": "pm_2", "type": "of_tomorrow", "created": 2},
        {"id": "pm_1", "type": "card", "card": CARD, "created": 1},
    ]
}
FIND = "GET /v1/customers/cus_1"
LIST = "GET /v1/invoices"


@dataclass(frozen=True, slots=True)
class Stage:
    served: Served
    stripe: StripeServer
    user: User

    async def get(self, path: str) -> Any:
        return await self.served.ask("GET", f"/api/billing{path}", token_headers(self.user))

    async def note(self, customer_id: str = "cus_1") -> None:
        table = BillingCustomers(self.served.services.database)
        await table.get_or_make(self.user.id)
        await table.note_customer(self.user.id, customer_id, 0)


@pytest.fixture
async def stage(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_stripe_server() as stripe:
        settings = {
            "STRIPE_API_BASE": stripe.url,
            "STRIPE_SECRET_KEY": "sk_test_0123456789",
            "STRIPE_WEBHOOK_SECRET": "whsec_0123456789",
            "STRIPE_PUBLISHABLE_KEY": "pk_test_0123456789",
            "STRIPE_PORTAL_RETURN_URL": "https://example.com/account",
        }
        async with open_served(stores, tmp_path, **settings) as served:
            yield Stage(served, stripe, await served.make_user())


async def test_methods_are_shown_also_those_of_a_kind_that_nobody_knows(stage: Stage) -> None:
    await stage.note()
    stage.stripe.on(FIND, tell(CUSTOMER))
    stage.stripe.on("GET /v1/payment_methods", tell(METHODS))
    answer = await stage.get("/payment-methods?limit=1&offset=7")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {
        "totalMethods": 2,
        "hasDefault": True,
        "methods": [
            {"id": "pm_2", "type": "of_tomorrow", "card": None, "created": 2, "isDefault": False},
            {
                "id": "pm_1",
                "type": "card",
                "card": {"brand": "visa", "last4": "4242", "expMonth": 12, "expYear": 2034},
                "created": 1,
                "isDefault": True,
            },
        ],
    }


async def test_who_is_no_customer_yet_has_nothing_and_stripe_is_not_asked(stage: Stage) -> None:
    assert (await stage.get("/payment-methods")).json == {"totalMethods": 0, "hasDefault": False, "methods": []}
    assert (await stage.get("/invoices")).json == {"invoices": [], "totalInvoices": 0, "hasMore": False}
    assert (await stage.get("/customer-info")).json is None
    assert stage.stripe.requests == []


async def test_invoices_are_shown_with_what_was_paid_in_words(stage: Stage) -> None:
    await stage.note()
    stage.stripe.on(LIST, tell({"data": [INVOICE], "has_more": True}))
    assert (await stage.get("/invoices?limit=500&starting_after=in_0")).json == {
        "invoices": [
            {
                "id": "in_1",
                "created": 1_700_000_000,
                "dueDate": None,
                "amountPaidDisplay": "11.90",
                "amountPaid": 1190,
                "currency": "usd",
                "status": "paid",
                "invoicePdfUrl": "https://pay.stripe.com/invoice/in_1/pdf",
            }
        ],
        "totalInvoices": 1,
        "hasMore": True,
    }
    assert stage.stripe.last_form == {"customer": "cus_1", "limit": "100", "starting_after": "in_0"}


async def test_a_stripe_that_fails_is_an_error_and_no_empty_list(stage: Stage) -> None:
    await stage.note()
    stage.stripe.on(LIST, refuse(429, "rate_limit"))
    answer = await stage.get("/invoices")
    assert (answer.status, answer.json["error_type"]) == (503, "external_service_error")
    assert answer.headers["retry-after"] == "5"
    stage.stripe.on(LIST, refuse(400, "parameter_invalid"))
    answer = await stage.get("/invoices")
    assert (answer.status, answer.json["error_type"]) == (502, "external_service_error")
    assert b"ann@" not in answer.body
    assert b"sk_test" not in answer.body


async def test_an_invoice_of_somebody_else_is_none_to_begin_after(stage: Stage) -> None:
    await stage.note()
    stage.stripe.on(LIST, refuse(400, "resource_missing"))
    answer = await stage.get("/invoices?starting_after=in_theirs")
    assert (answer.status, answer.json["error_type"]) == (404, "not_found")


async def test_the_customer_is_shown_as_clients_decode_it(stage: Stage) -> None:
    await stage.note()
    stage.stripe.on(FIND, tell(CUSTOMER))
    assert (await stage.get("/customer-info")).json == {
        "customerName": "Ann Example",
        "customerEmail": "ann@example.com",
        "phone": None,
        "taxExempt": "none",
        "taxIds": [{"type_": "us_ein", "value": "12-3456789", "country": "US", "verificationStatus": None}],
        "addressLine1": "1 Main Street",
        "addressLine2": None,
        "addressCity": "Springfield",
        "addressState": "IL",
        "addressPostalCode": "62701",
        "addressCountry": "US",
        "hasBillingInfo": True,
    }


async def test_the_portal_is_opened_for_a_customer_that_is_made_for_it(stage: Stage) -> None:
    stage.stripe.on("POST /v1/customers", tell({"id": "cus_1", "object": "customer"}))
    stage.stripe.on(FIND, tell(CUSTOMER))
    stage.stripe.on("POST /v1/billing_portal/sessions", tell({"url": "https://billing.stripe.com/p/1"}))
    answer = await stage.served.ask("POST", "/api/billing/create-portal-session", token_headers(stage.user))
    assert (answer.status, answer.json) == (200, {"url": "https://billing.stripe.com/p/1"})
    assert stage.stripe.last_form == {"customer": "cus_1", "return_url": "https://example.com/account"}
    made = stage.stripe.requests[0]
    assert made.form["email"] == "ann@example.com"
    assert made.headers["idempotency-key"] == f"customer_{stage.user.id}_0"


async def test_an_api_key_learns_nothing_of_its_owner_and_does_not_open_the_portal(stage: Stage) -> None:
    key = "0123456789abcdef" * 4
    secret = stage.served.services.config.api_key_secret
    new = NewKey(uuid4(), stage.user.id, hash_api_key(secret, key), "012345", "laptop", ("read", "write"), None)
    async with stage.served.services.database.as_operator("test").transaction() as connection:
        await make_api_key(connection, new)
    headers = {"X-API-Key": key}
    asked = [("GET", name) for name in ("payment-methods", "invoices", "customer-info")]
    for method, name in (*asked, ("POST", "create-portal-session")):
        refused = await stage.served.ask(method, f"/api/billing/{name}", headers)
        assert (refused.status, refused.json["error_type"]) == (403, "forbidden")
    assert stage.stripe.requests == []


async def test_the_publishable_key_is_shown(stage: Stage) -> None:
    assert (await stage.get("/stripe/publishable-key")).json == {"publishableKey": "pk_test_0123456789"}


async def test_a_server_that_sells_nothing_says_so(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        headers = token_headers(await served.make_user())
        for method, path in (("GET", "stripe/publishable-key"), ("POST", "create-portal-session")):
            answer = await served.ask(method, f"/api/billing/{path}", headers)
            assert (answer.status, answer.json["error_type"]) == (503, "configuration_error")


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        ({}, (50, None)),
        ({"limit": "0"}, (1, None)),
        ({"limit": "-5"}, (1, None)),
        ({"limit": "101"}, (100, None)),
        ({"limit": "7", "starting_after": "in_1"}, (7, "in_1")),
        ({"starting_after": ""}, (50, None)),
    ],
)
def test_a_page_is_brought_into_its_bounds(arguments: dict[str, str], page: tuple[int, str | None]) -> None:
    assert read_query(arguments) == InvoicesQuery(*page)


@pytest.mark.parametrize(
    "arguments",
    [{"limit": "many"}, {"limit": "1.5"}, {"limit": "9" * 5000}, {"limit": "١"}, {"starting_after": "cus_1"}]
    + [{"starting_after": text} for text in ("in_1&customer=cus_2", "in_", "in_1/../x", "in_1\n")],
)
def test_a_page_that_is_none_is_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(RequestInvalid):
        read_query(arguments)


@pytest.mark.parametrize(
    ("currency", "settled", "shown"),
    [("usd", None, "12.34"), ("eur", None, "12.34"), ("jpy", None, "1234"), ("kwd", None, "1.234"), ("jpy", 5, "0.05")],
)
def test_what_was_paid_is_shown_in_dollars_if_stripe_says_it(currency: str, settled: int | None, shown: str) -> None:
    invoice = build_invoice(status="paid", total_cents=1234)
    assert show_paid(replace(invoice, currency=currency, settled_usd_cents=settled)) == shown


def test_the_shipping_address_stands_in_for_that_of_the_bills() -> None:
    shipped = replace(build_customer(), billing_address=None, shipping_address=replace(ADDRESS, city="Shelbyville"))
    info = describe_customer(shipped)
    assert (info.address_city, info.has_billing_info) == ("Shelbyville", True)
    assert describe_customer(replace(shipped, billing_address=ADDRESS)).address_city == "Springfield"
    assert not describe_customer(replace(shipped, name=None)).has_billing_info
    assert not describe_customer(replace(shipped, shipping_address=None)).has_billing_info
