"""The stand-in for Stripe keeps its word: what localstripe does, what the front adds, and who signs what."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import stripe as stripe_library
import trio

from tests.stripe_stand_in import DECLINED_CARD, Fault, StripeStandIn, open_stripe_stand_in
from tests.stripe_stand_in.deliveries import SECRET
from tests.stripe_stand_in.forms import read_form, write_form
from tests.stripe_stand_in.front import API_VERSION
from tests.stripe_stand_in.http_service import Reply, Request, build_reply, serve
from tests.stripe_stand_in.local_process import KEY

LINES = [
    {"price_data": {"currency": "usd", "unit_amount": 800, "product_data": {"name": "credits"}}, "quantity": 1},
    {"price_data": {"currency": "usd", "unit_amount": 200, "product_data": {"name": "fee"}}, "quantity": 1},
]


@pytest.fixture
async def stripe() -> AsyncIterator[StripeStandIn]:
    async with open_stripe_stand_in() as stripe:
        yield stripe


async def ask(stripe: StripeStandIn, method: str, path: str, form: dict[str, Any] | None = None, key: str = "") -> Any:
    """Status and decoded body, as a library of Stripe's would ask."""
    headers = {"Authorization": f"Bearer {KEY}", "Stripe-Version": API_VERSION}
    if key:
        headers["Idempotency-Key"] = key
    async with httpx2.AsyncClient(base_url=stripe.url, headers=headers, trust_env=False) as client:
        answer = await client.request(method, path, content=write_form(form or {}).encode())
    return answer.status_code, answer.json()


def build_checkout(customer: str, **members: Any) -> dict[str, Any]:
    return {
        "customer": customer,
        "mode": "payment",
        "line_items": LINES,
        "success_url": "https://x.example/ok?session_id={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://x.example/no",
        "payment_intent_data": {"metadata": {"purchase_id": "p1"}},
        **members,
    }


@asynccontextmanager
async def open_receiver() -> AsyncIterator[tuple[str, list[Request]]]:
    """Takes webhooks, and says yes to all."""
    received: list[Request] = []

    async def answer(request: Request) -> Reply:
        received.append(request)
        return build_reply(200, {"received": True})

    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, answer), received
        nursery.cancel_scope.cancel()


def test_a_form_is_read_as_it_was_written() -> None:
    tree = {"a": "1", "b": {"c": ["x", {"d": "y"}]}, "expand": ["latest_charge"]}
    assert read_form(write_form(tree)) == tree
    assert read_form("expand[]=a&expand[]=b") == {"expand": ["a", "b"]}


async def test_a_checkout_is_paid_by_localstripe_and_told_by_both(stripe: StripeStandIn) -> None:
    """localstripe: customer, card, charge, `invoice.payment_succeeded`. The front: the session and the other events."""
    customer = await stripe.make_customer(uuid4())
    await stripe.leave_card(customer)
    _, session = await ask(stripe, "POST", "/v1/checkout/sessions", build_checkout(customer))
    async with open_receiver() as (url, received):
        stripe.send_events_to(url)
        payment_id = await stripe.complete_checkout(session["id"])
        await stripe.events.wait_answered("checkout.session.completed", "front")
        await stripe.events.wait_answered("invoice.payment_succeeded", "localstripe")
    for request in received:
        signature = request.headers["stripe-signature"]
        stripe_library.WebhookSignature.verify_header(request.body, signature, SECRET, tolerance=300)
    told = [json.loads(request.body)["type"] for request in received]
    assert {"payment_intent.succeeded", "invoice.paid"} <= set(told)
    _, payment = await ask(stripe, "GET", f"/v1/payment_intents/{payment_id}?expand[0]=latest_charge")
    assert (payment["status"], payment["amount_received"]) == ("succeeded", 1000)
    assert payment["metadata"] == {"purchase_id": "p1"}
    assert payment["latest_charge"]["payment_intent"] == payment_id
    _, completed = await ask(stripe, "GET", f"/v1/checkout/sessions/{session['id']}")
    assert (completed["status"], completed["payment_status"]) == ("complete", "paid")


async def test_a_declined_card_leaves_the_session_open(stripe: StripeStandIn) -> None:
    """The decline is localstripe's."""
    customer = await stripe.make_customer(uuid4())
    await stripe.leave_card(customer, DECLINED_CARD)
    _, session = await ask(stripe, "POST", "/v1/checkout/sessions", build_checkout(customer))
    assert await stripe.complete_checkout(session["id"]) is None
    assert (await ask(stripe, "GET", f"/v1/checkout/sessions/{session['id']}"))[1]["status"] == "open"
    assert stripe.events.all[-1].type == "payment_intent.payment_failed"


async def test_an_invoice_goes_from_draft_to_paid_with_tax_on_top(stripe: StripeStandIn) -> None:
    """localstripe holds and charges it; its items, tax and finalizing are the front's."""
    customer = await stripe.make_customer(uuid4())
    await stripe.leave_card(customer)
    stripe.tax(10)
    form = {"customer": customer, "automatic_tax": {"enabled": True}, "metadata": {"type": "auto_topoff"}}
    _, invoice = await ask(stripe, "POST", "/v1/invoices", form)
    item = {"customer": customer, "invoice": invoice["id"], "currency": "usd"}
    for cents in (800, 200):
        await ask(stripe, "POST", "/v1/invoiceitems", {**item, "amount": cents})
    _, opened = await ask(stripe, "POST", f"/v1/invoices/{invoice['id']}/finalize")
    assert (opened["status"], opened["subtotal"], opened["total"]) == ("open", 1000, 1100)
    _, paid = await ask(stripe, "POST", f"/v1/invoices/{invoice['id']}/pay", {"off_session": True})
    assert (paid["status"], paid["amount_paid"], paid["metadata"]) == ("paid", 1100, {"type": "auto_topoff"})
    payment = await stripe.local.get(f"/v1/payment_intents/{paid['payment_intent']}")
    assert (payment["amount"], payment["status"]) == (1100, "succeeded")


async def test_an_invoice_that_the_bank_declines_is_a_402_and_can_be_voided(stripe: StripeStandIn) -> None:
    customer = await stripe.make_customer(uuid4())
    await stripe.leave_card(customer, DECLINED_CARD)
    _, invoice = await ask(stripe, "POST", "/v1/invoices", {"customer": customer})
    item = {"customer": customer, "invoice": invoice["id"], "currency": "usd", "amount": 1000}
    await ask(stripe, "POST", "/v1/invoiceitems", item)
    await ask(stripe, "POST", f"/v1/invoices/{invoice['id']}/finalize")
    status, body = await ask(stripe, "POST", f"/v1/invoices/{invoice['id']}/pay")
    assert (status, body["error"]["type"], body["error"]["code"]) == (402, "card_error", "card_declined")
    assert (await ask(stripe, "POST", f"/v1/invoices/{invoice['id']}/void"))[1]["status"] == "void"


async def test_a_card_that_was_left_is_attached_and_the_setup_has_succeeded(stripe: StripeStandIn) -> None:
    """The setup intent is localstripe's."""
    customer = await stripe.make_customer(uuid4())
    form = {"customer": customer, "mode": "setup", "success_url": "https://x.example", "cancel_url": "https://x.example"}
    _, session = await ask(stripe, "POST", "/v1/checkout/sessions", form)
    method = await stripe.complete_setup(session["id"])
    _, completed = await ask(stripe, "GET", f"/v1/checkout/sessions/{session['id']}")
    setup = await stripe.local.get(f"/v1/setup_intents/{completed['setup_intent']}")
    assert (setup["status"], setup["payment_method"]) == ("succeeded", method)
    _, cards = await ask(stripe, "GET", f"/v1/payment_methods?customer={customer}")
    assert [card["id"] for card in cards["data"]] == [method]


async def test_refunds_and_disputes_show_on_the_charge(stripe: StripeStandIn) -> None:
    """Refunds are localstripe's, disputes the front's."""
    customer = await stripe.make_customer(uuid4())
    await stripe.leave_card(customer)
    _, session = await ask(stripe, "POST", "/v1/checkout/sessions", build_checkout(customer))
    payment_id = await stripe.complete_checkout(session["id"])
    assert payment_id is not None
    await stripe.refund(payment_id, 300)
    dispute_id = await stripe.open_dispute(payment_id, 700)
    _, payment = await ask(stripe, "GET", f"/v1/payment_intents/{payment_id}?expand[]=latest_charge")
    charge = payment["latest_charge"]
    assert (charge["amount_refunded"], charge["disputed"]) == (300, True)
    stripe.close_dispute(dispute_id, is_won=True)
    _, disputes = await ask(stripe, "GET", f"/v1/disputes?payment_intent={payment_id}")
    assert [(each["status"], each["amount"]) for each in disputes["data"]] == [("won", 700)]


async def test_a_key_is_honoured_once_and_what_nobody_knows_is_refused(stripe: StripeStandIn) -> None:
    form = {"email": "ann@example.com", "metadata": {"user_id": "u1"}}
    first = await ask(stripe, "POST", "/v1/customers", form, key="k")
    assert await ask(stripe, "POST", "/v1/customers", form, key="k") == first
    status, body = await ask(stripe, "POST", "/v1/customers", {"email": "bob@example.com"}, key="k")
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    assert await stripe.find_customer("u1") == first[1]["id"]
    form = build_checkout(first[1]["id"], misspelt="1")
    status, body = await ask(stripe, "POST", "/v1/checkout/sessions", form)
    assert (status, body["error"]["code"]) == (400, "parameter_unknown")


async def test_a_lost_answer_has_done_its_work(stripe: StripeStandIn) -> None:
    stripe.fail_next(Fault("/v1/customers", "lost_answer"))
    with pytest.raises(httpx2.RemoteProtocolError):
        await ask(stripe, "POST", "/v1/customers", {"metadata": {"user_id": "u1"}}, key="k")
    stripe.fail_next(Fault("/v1/customers"))
    assert (await ask(stripe, "POST", "/v1/customers", {"metadata": {"user_id": "u1"}}, key="k"))[0] == 503
    _, customer = await ask(stripe, "POST", "/v1/customers", {"metadata": {"user_id": "u1"}}, key="k")
    assert await stripe.find_customer("u1") == customer["id"]


async def test_a_deleted_customer_is_told_as_deleted(stripe: StripeStandIn) -> None:
    customer = await stripe.make_customer(uuid4())
    await stripe.delete_customer(customer)
    assert (await ask(stripe, "GET", f"/v1/customers/{customer}"))[1]["deleted"] is True
    status, body = await ask(stripe, "GET", "/v1/payment_intents/pi_nobody")
    assert (status, body["error"]["code"]) == (404, "resource_missing")


async def test_payments_are_listed_the_newest_first_page_by_page(stripe: StripeStandIn) -> None:
    customer = await stripe.make_customer(uuid4())
    await stripe.leave_card(customer)
    made = []
    for _ in range(3):
        _, session = await ask(stripe, "POST", "/v1/checkout/sessions", build_checkout(customer))
        made.append(await stripe.complete_checkout(session["id"]))
    _, page = await ask(stripe, "GET", "/v1/payment_intents?limit=2&created[gte]=1000")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (made[:0:-1], True)
    _, rest = await ask(stripe, "GET", f"/v1/payment_intents?limit=2&starting_after={made[1]}")
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (made[:1], False)
