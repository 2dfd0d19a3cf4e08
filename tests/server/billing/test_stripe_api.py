"""How Stripe is asked for each thing: path, parameters, key; and what its answers become."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from server.billing.stripe_api import StripeApi, open_stripe_api
from server.billing.stripe_objects import CheckoutOrder
from server.errors import CardDeclined, StripeNotConfigured, StripeRefused, StripeUnavailable
from tests.server.billing.stripe_objects import BILLING, build_settings
from tests.server.billing.stripe_server import StripeServer, open_stripe_server, refuse, tell
from tests.server.billing.test_stripe_reader import INVOICE, PAYMENT

PURCHASE, USER = UUID(int=1), UUID(int=2)
ORDER = CheckoutOrder(PURCHASE, USER, "cus_1", gross_cents=1000, fee_cents=200, net_cents=800)
SESSION = {
    "id": "cs_1",
    "object": "checkout.session",
    "mode": "payment",
    "status": "open",
    "payment_status": "unpaid",
    "url": "https://checkout.stripe.com/c/pay/cs_1",
}
PAY = "POST /v1/invoices/in_1/pay"
LOOK = "GET /v1/invoices/in_1"


@dataclass(frozen=True, slots=True)
class Stage:
    server: StripeServer
    api: StripeApi


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stripe_server() as server, open_stripe_api(server.settings) as api:
        yield Stage(server, api)


def as_invoice(status: str, **members: Any) -> Any:
    return tell({**INVOICE, "status": status, **members})


async def test_a_server_that_sells_nothing_asks_nobody() -> None:
    async with open_stripe_api(replace(build_settings(), secret_key=None, api_base="http://127.0.0.1:9")) as api:
        with pytest.raises(StripeNotConfigured):
            await api.find_customer("cus_1")
        with pytest.raises(StripeNotConfigured):
            [payment async for payment in api.list_payments(datetime.now(UTC))]


async def test_a_customer_is_made_with_our_key_and_its_user_in_the_metadata(stage: Stage) -> None:
    stage.server.on("POST /v1/customers", tell({"id": "cus_1", "object": "customer"}))
    assert await stage.api.create_customer(USER, "ann@example.com", "Ann", "customer_2_0") == "cus_1"
    assert stage.server.last_form == {
        "email": "ann@example.com",
        "name": "Ann",
        "metadata[user_id]": str(USER),
        "metadata[created_by]": "plantocode",
    }
    assert stage.server.requests[-1].headers["idempotency-key"] == "customer_2_0"


async def test_a_customer_that_is_gone_is_none(stage: Stage) -> None:
    assert await stage.api.find_customer("cus_1") is None
    stage.server.on("GET /v1/customers/cus_2", tell({"id": "cus_2", "object": "customer", "deleted": True}))
    assert await stage.api.find_customer("cus_2") is None
    assert stage.server.last_form == {"expand[0]": "tax_ids"}


async def test_a_lookup_that_is_refused_does_not_say_that_nothing_is_there(stage: Stage) -> None:
    stage.server.on("GET /v1/payment_intents/pi_1", refuse(400, "parameter_unknown"))
    with pytest.raises(StripeRefused):
        await stage.api.find_payment("pi_1")


@pytest.mark.parametrize("object_id", ["", "../balance", "in_1?expand[]=x", "in_1/pay", "in 1", "in_ü"])
async def test_what_is_no_id_reaches_no_path(stage: Stage, object_id: str) -> None:
    assert await stage.api.find_invoice(object_id) is None
    with pytest.raises(StripeRefused):
        await stage.api.pay_invoice(object_id, "key")
    assert stage.server.requests == []


async def test_a_checkout_page_is_the_whole_order_under_the_key_of_the_purchase(stage: Stage) -> None:
    stage.server.on("POST /v1/checkout/sessions", tell(SESSION))
    session = await stage.api.create_checkout_session(ORDER)
    assert (session.id, session.url) == ("cs_1", "https://checkout.stripe.com/c/pay/cs_1")
    form = stage.server.last_form
    assert stage.server.requests[-1].headers["idempotency-key"] == f"{PURCHASE}:session"
    prices = "line_items[{}][price_data]"
    assert form[f"{prices.format(0)}[unit_amount]"] == "800"
    assert form[f"{prices.format(1)}[unit_amount]"] == "200"
    assert form[f"{prices.format(0)}[tax_behavior]"] == "exclusive"
    assert form[f"{prices.format(0)}[product_data][tax_code]"] == "txcd_10103001"
    assert {name: form[name] for name in ("mode", "customer", "client_reference_id")} == {
        "mode": "payment",
        "customer": "cus_1",
        "client_reference_id": str(USER),
    }
    assert form["success_url"].endswith("/billing/success?session_id={CHECKOUT_SESSION_ID}")
    assert form["automatic_tax[enabled]"] == "true"
    assert form["invoice_creation[enabled]"] == "true"
    assert form["tax_id_collection[enabled]"] == "true"
    assert form["billing_address_collection"] == "required"
    assert (form["customer_update[address]"], form["customer_update[name]"]) == ("auto", "auto")
    assert form["payment_intent_data[setup_future_usage]"] == "off_session"
    assert form["payment_intent_data[metadata][purchase_id]"] == str(PURCHASE)
    assert form["metadata[purchase_id]"] == str(PURCHASE)


async def test_a_card_is_left_under_the_key_that_was_given(stage: Stage) -> None:
    stage.server.on("POST /v1/checkout/sessions", tell({**SESSION, "mode": "setup"}))
    assert (await stage.api.create_setup_session(USER, "cus_1", "setup:1")).mode == "setup"
    form = stage.server.last_form
    assert (form["mode"], form["currency"]) == ("setup", "usd")
    assert form["setup_intent_data[metadata][type]"] == "setup_payment_method"
    assert stage.server.requests[-1].headers["idempotency-key"] == "setup:1"


async def test_a_payment_without_a_dispute_is_one_question(stage: Stage) -> None:
    stage.server.on("GET /v1/payment_intents/pi_1", tell(PAYMENT))
    payment = await stage.api.find_payment("pi_1")
    assert payment is not None
    assert (payment.refunded_cents, payment.disputed_cents) == (90, 0)
    assert stage.server.last_form == {"expand[0]": "latest_charge"}
    assert len(stage.server.requests) == 1


async def test_disputes_of_a_disputed_charge_are_looked_up(stage: Stage) -> None:
    charge = {**PAYMENT["latest_charge"], "disputed": True}
    stage.server.on("GET /v1/payment_intents/pi_1", tell({**PAYMENT, "latest_charge": charge}))
    disputes = [{"id": "dp_1", "amount": 700, "status": "lost"}, {"id": "dp_2", "amount": 50, "status": "won"}]
    stage.server.on("GET /v1/disputes", tell({"data": disputes, "has_more": False}))
    payment = await stage.api.find_payment("pi_1")
    assert payment is not None
    assert payment.disputed_cents == 700
    assert stage.server.last_form == {"payment_intent": "pi_1", "limit": "100"}


async def test_a_payment_is_not_told_while_its_disputes_are_not_known(stage: Stage) -> None:
    charge = {**PAYMENT["latest_charge"], "disputed": True}
    stage.server.on("GET /v1/payment_intents/pi_1", tell({**PAYMENT, "latest_charge": charge}))
    stage.server.on("GET /v1/disputes", refuse(429, "rate_limit"))
    with pytest.raises(StripeUnavailable):
        await stage.api.find_payment("pi_1")


async def test_an_invoice_is_drafted_with_two_lines_of_its_own_under_keys_of_the_purchase(stage: Stage) -> None:
    stage.server.on("POST /v1/invoices", as_invoice("draft", subtotal=0))
    stage.server.on("POST /v1/invoiceitems", tell({"id": "ii_1"}))
    stage.server.on(LOOK, as_invoice("draft"))
    invoice = await stage.api.create_invoice(ORDER)
    assert (invoice.status, invoice.subtotal_cents) == ("draft", 1000)
    drafted, credits_, fee, _ = stage.server.requests
    keys = [request.headers["idempotency-key"] for request in (drafted, credits_, fee)]
    assert keys == [f"{PURCHASE}:invoice", f"{PURCHASE}:credits", f"{PURCHASE}:fee"]
    assert drafted.form["auto_advance"] == "false"
    assert drafted.form["collection_method"] == "charge_automatically"
    assert drafted.form["pending_invoice_items_behavior"] == "exclude"
    assert drafted.form["metadata"]["net_amount_cents"] == "800"
    lines = [(each.form["invoice"], each.form["amount"], each.form["description"]) for each in (credits_, fee)]
    assert lines == [("in_1", "800", "Credits"), ("in_1", "200", "Processing fee")]


async def test_an_invoice_that_is_final_is_found_so(stage: Stage) -> None:
    stage.server.on("POST /v1/invoices/in_1/finalize", refuse(400, "invoice_not_editable"))
    stage.server.on(LOOK, as_invoice("open"), as_invoice("draft"))
    assert (await stage.api.finalize_invoice("in_1")).status == "open"
    with pytest.raises(StripeRefused):
        await stage.api.finalize_invoice("in_1")


async def test_an_invoice_is_paid_off_session(stage: Stage) -> None:
    stage.server.on(PAY, as_invoice("paid"))
    assert (await stage.api.pay_invoice("in_1", "key:1")).paid_cents == 1190
    assert stage.server.last_form == {"off_session": "true"}
    assert stage.server.requests[-1].headers["idempotency-key"] == "key:1"


async def test_an_invoice_that_was_paid_already_is_paid(stage: Stage) -> None:
    stage.server.on(PAY, refuse(400, "invoice_already_paid"))
    stage.server.on(LOOK, as_invoice("paid"))
    assert (await stage.api.pay_invoice("in_1", "key:2")).status == "paid"


async def test_a_declined_card_is_told_by_its_codes(stage: Stage) -> None:
    stage.server.on(PAY, refuse(402, "card_declined", "card_error", decline_code="insufficient_funds"))
    stage.server.on(LOOK, as_invoice("open"))
    with pytest.raises(CardDeclined) as caught:
        await stage.api.pay_invoice("in_1", "key:1")
    assert (caught.value.code, caught.value.decline_code) == ("card_declined", "insufficient_funds")


async def test_a_draft_is_deleted_and_a_final_invoice_voided(stage: Stage) -> None:
    stage.server.on(LOOK, as_invoice("draft"), as_invoice("open"), as_invoice("void"))
    stage.server.on("DELETE /v1/invoices/in_1", tell({"id": "in_1", "deleted": True}))
    stage.server.on("POST /v1/invoices/in_1/void", as_invoice("void"))
    assert [(await stage.api.void_invoice("in_1")).status for _ in range(3)] == ["void", "void", "void"]
    assert stage.server.questions == [LOOK, "DELETE /v1/invoices/in_1", LOOK, "POST /v1/invoices/in_1/void", LOOK]


async def test_an_invoice_that_was_paid_meanwhile_is_not_voided(stage: Stage) -> None:
    stage.server.on(LOOK, as_invoice("open"), as_invoice("paid"))
    stage.server.on("POST /v1/invoices/in_1/void", refuse(400, ""))
    with pytest.raises(StripeRefused):
        await stage.api.void_invoice("in_1")


async def test_an_invoice_that_is_gone_cannot_be_voided(stage: Stage) -> None:
    with pytest.raises(StripeRefused) as caught:
        await stage.api.void_invoice("in_1")
    assert caught.value.code == "resource_missing"


async def test_invoices_are_listed_page_by_page(stage: Stage) -> None:
    stage.server.on("GET /v1/invoices", tell({"data": [INVOICE], "has_more": True}))
    page = await stage.api.list_invoices("cus_1", 1, "in_0")
    assert ([each.id for each in page.invoices], page.has_more) == (["in_1"], True)
    assert stage.server.last_form == {"customer": "cus_1", "limit": "1", "starting_after": "in_0"}
    assert len(stage.server.requests) == 1


async def test_what_came_in_is_asked_for_if_an_invoice_is_in_another_currency(stage: Stage) -> None:
    settled = {"id": "ch_1", "balance_transaction": {"amount": 1284, "currency": "usd"}}
    plain, expanded = {**INVOICE, "currency": "eur"}, {**INVOICE, "currency": "eur", "charge": settled}
    stage.server.on("GET /v1/invoices", tell({"data": [plain]}), tell({"data": [expanded]}))
    (invoice,) = (await stage.api.list_invoices("cus_1", 10, None)).invoices
    assert invoice.settled_usd_cents == 1284
    assert stage.server.last_form["expand[0]"] == "data.charge.balance_transaction"


async def test_all_payments_are_listed_over_the_pages(stage: Stage) -> None:
    pages = [
        tell({"data": [{**PAYMENT, "id": "pi_3"}, {**PAYMENT, "id": "pi_2"}], "has_more": True}),
        tell({"data": [PAYMENT], "has_more": False}),
    ]
    stage.server.on("GET /v1/payment_intents", *pages)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert [each.id async for each in stage.api.list_payments(since)] == ["pi_3", "pi_2", "pi_1"]
    assert stage.server.last_form == {
        "created[gte]": str(int(since.timestamp())),
        "limit": "100",
        "expand[0]": "data.latest_charge",
        "starting_after": "pi_2",
    }


async def test_the_rest_is_asked_as_stripe_wants_it(stage: Stage) -> None:
    server, api = stage.server, stage.api
    server.on("GET /v1/payment_methods", tell({"data": []}))
    assert await api.list_payment_methods("cus_1") == []
    assert server.last_form == {"customer": "cus_1", "limit": "100"}
    server.on("POST /v1/customers/cus_1", tell({"id": "cus_1"}))
    await api.set_default_payment_method("cus_1", "pm_1")
    assert server.last_form == {"invoice_settings[default_payment_method]": "pm_1"}
    await api.set_billing_details("cus_1", BILLING)
    assert (server.last_form["name"], server.last_form["address[line1]"]) == ("Ann Example", "1 Main Street")
    assert server.last_form["address[line2]"] == ""
    server.on("POST /v1/billing_portal/sessions", tell({"url": "https://billing.stripe.com/p/1"}))
    assert await api.create_portal_session("cus_1", "https://here") == "https://billing.stripe.com/p/1"
    assert server.last_form == {"customer": "cus_1", "return_url": "https://here"}
    server.on("GET /v1/charges/ch_1", tell({"id": "ch_1", "payment_intent": "pi_1"}))
    assert await api.find_charge_payment("ch_1") == "pi_1"
    server.on("GET /v1/setup_intents/seti_1", tell({"id": "seti_1", "status": "succeeded", "payment_method": "pm_1"}))
    setup = await api.find_setup("seti_1")
    assert setup is not None
    assert (setup.status, setup.payment_method_id) == ("succeeded", "pm_1")
    assert server.last_form == {"expand[0]": "payment_method"}
    server.on("GET /v1/checkout/sessions/cs_1", tell(SESSION))
    session = await api.find_session("cs_1")
    assert session is not None
    assert session.status == "open"
