"""What a test does with Stripe: leave a card, pay, refund, dispute, and see which events went out."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
import trio

from tests.stripe_stand_in import objects
from tests.stripe_stand_in.deliveries import SECRET, Deliveries, Delivery
from tests.stripe_stand_in.faults import Fault
from tests.stripe_stand_in.front import EVENTS_PATH, Front
from tests.stripe_stand_in.http_service import Request, serve
from tests.stripe_stand_in.local_process import KEY, LocalStripe, StripeError, find_missing, open_local_stripe
from tests.stripe_stand_in.objects import Object
from tests.stripe_stand_in.played import Played

GOOD_CARD = "4242424242424242"
DECLINED_CARD = "4000000000000341"
"""May be attached, and is declined when it is charged: https://docs.stripe.com/testing#declined-payments"""
AUTHENTICATION_CARD = "4000002500003155"
"""Wants its customer to be there."""

WEBHOOK_PATH = "/webhooks/stripe"
ADDRESS = {"line1": "1 Main Street", "city": "Springfield", "state": "IL", "postal_code": "62701", "country": "US"}


@dataclass(frozen=True, slots=True)
class StripeStandIn:
    """`url` is for STRIPE_API_BASE; `local` asks localstripe itself. Every method that does something at Stripe sends
    the events that Stripe would, to where `send_events_to` has said.
    """

    url: str
    local: LocalStripe
    _front: Front = field(repr=False)

    @property
    def settings(self) -> Mapping[str, str]:
        """Of a server that sells by this Stripe."""
        return {
            "STRIPE_API_BASE": self.url,
            "STRIPE_SECRET_KEY": KEY,
            "STRIPE_PUBLISHABLE_KEY": "pk_test_0123456789",
            "STRIPE_WEBHOOK_SECRET": SECRET,
        }

    @property
    def requests(self) -> list[Request]:
        """What our server has asked, in order."""
        return self._front.requests

    @property
    def events(self) -> Deliveries:
        """`makers`, `types`: who and what is sent by itself; `all`, `send()`, `post()`, `wait_answered()`."""
        return self._front.played.deliveries

    def send_events_to(self, server_url: str) -> None:
        self.events.url = f"{server_url}{WEBHOOK_PATH}"

    def fail_next(self, fault: Fault) -> None:
        self._front.faults.append(fault)

    def tax(self, percent: int) -> None:
        """From now on, where automatic tax is asked for."""
        self._front.played.tax_percent = percent

    def find_requests(self, method: str, path: str) -> list[Request]:
        return [each for each in self.requests if (each.method, each.path) == (method, path)]

    async def find_customer(self, user_id: object) -> str:
        """The one customer that our server has made for a user."""
        found = await self._front.played.search_customers(f"metadata['user_id']:'{user_id}'")
        (customer,) = found["data"]
        return str(customer["id"])

    async def make_customer(self, user_id: object, email: str = "ann@example.com") -> str:
        form = {"email": email, "metadata": {"user_id": str(user_id), "created_by": "plantocode"}}
        return str((await self.local.post("/v1/customers", form))["id"])

    async def leave_card(
        self, customer_id: str, number: str = GOOD_CARD, *, is_default: bool = True, has_address: bool = True
    ) -> str:
        """As in Stripe's portal: the card, and with it name and address."""
        method = await self._front.played.attach_card(customer_id, number)
        form: dict[str, Any] = {"name": "Ann Example", "address": ADDRESS} if has_address else {}
        if is_default:
            form["invoice_settings"] = {"default_payment_method": method}
        if form:
            await self.local.post(f"/v1/customers/{customer_id}", form)
        return method

    async def complete_checkout(self, session_id: str) -> str | None:
        """Somebody pays on Stripe's page, with the customer's default card; the payment intent's id, None if the card
        was declined and the session stays open.
        """
        played = self._front.played
        session = played.take_open_session(session_id)
        invoice = await self._bill(session)
        try:
            metadata = session["_form"].get("payment_intent_data", {}).get("metadata")
            paid = await played.pay_invoice(invoice["id"], metadata)
        except StripeError:
            return None
        payment = str(paid["payment_intent"])
        session.update(await self._complete(session), payment_status="paid", invoice=paid["id"], payment_intent=payment)
        played.tell("checkout.session.completed", played.show_session(session_id))
        return payment

    async def complete_setup(self, session_id: str, number: str = GOOD_CARD) -> str:
        """Somebody leaves a card on Stripe's page, with name and address; the payment method's id."""
        played = self._front.played
        session = played.take_open_session(session_id)
        billing = {"name": "Ann Example", "address": ADDRESS}
        method = await played.attach_card(session["customer"], number, billing)
        metadata = session["_form"].get("setup_intent_data", {}).get("metadata", {})
        form = {"customer": session["customer"], "metadata": metadata}
        setup = await self.local.post("/v1/setup_intents", form)
        setup = await self.local.post(f"/v1/setup_intents/{setup['id']}/confirm", {"payment_method": method})
        session.update(await self._complete(session), setup_intent=setup["id"])
        played.tell("setup_intent.succeeded", setup)
        played.tell("checkout.session.completed", played.show_session(session_id))
        return method

    async def refund(self, payment_intent_id: str, cents: int | None = None) -> None:
        """All of it without `cents`."""
        form = {"payment_intent": payment_intent_id, **({} if cents is None else {"amount": cents})}
        await self._front.played.refund(form)

    async def open_dispute(self, payment_intent_id: str, cents: int | None = None) -> str:
        played = self._front.played
        charge = await played.find_charge(payment_intent_id)
        dispute = objects.build_dispute(charge, charge["amount"] if cents is None else cents)
        played.disputes.append(dispute)
        played.tell("charge.dispute.created", dispute)
        played.tell("charge.dispute.funds_withdrawn", dispute)
        return str(dispute["id"])

    def close_dispute(self, dispute_id: str, *, is_won: bool) -> None:
        played = self._front.played
        dispute = next(each for each in played.disputes if each["id"] == dispute_id)
        dispute["status"] = "won" if is_won else "lost"
        played.tell("charge.dispute.closed", dispute)
        if is_won:
            played.tell("charge.dispute.funds_reinstated", dispute)

    async def delete_customer(self, customer_id: str) -> None:
        """localstripe sends `customer.deleted`."""
        self._front.played.deleted_customers.add(customer_id)
        await self.local.delete(f"/v1/customers/{customer_id}")

    def make_event(self, type_: str, object_: Object) -> Delivery:
        """Any event, as the front would send it; it goes out, unless `events` keeps it back."""
        self._front.played.tell(type_, object_)
        return self.events.all[-1]

    async def _bill(self, session: Object) -> Object:
        played = self._front.played
        form = session["_form"]
        bill = {"customer": session["customer"], "automatic_tax": form.get("automatic_tax")}
        invoice = await played.create_invoice(bill)
        for line in form["line_items"]:
            item = {"customer": session["customer"], "invoice": invoice["id"], "price_data": line["price_data"]}
            await played.add_item({**item, "quantity": line["quantity"]})
        return await played.finalize_invoice(invoice["id"])

    async def _complete(self, session: Object) -> Object:
        customer = await self.local.get(f"/v1/customers/{session['customer']}")
        details = {name: customer[name] for name in ("address", "email", "name", "phone")}
        return {"status": "complete", "url": None, "customer_details": {**details, "tax_exempt": "none", "tax_ids": []}}


@asynccontextmanager
async def open_stripe_stand_in() -> AsyncIterator[StripeStandIn]:
    """Skips the test where localstripe cannot run."""
    if missing := find_missing():
        pytest.skip(missing)
    async with (
        open_local_stripe() as local,
        httpx2.AsyncClient(trust_env=False) as client,
        trio.open_nursery() as nursery,
    ):
        front = Front(Played(local, Deliveries(client, nursery)))
        url = await nursery.start(partial(serve, front.answer))
        await local.post("/_config/webhooks/front", {"url": f"{url}{EVENTS_PATH}", "secret": SECRET})
        yield StripeStandIn(url, local, front)
        nursery.cancel_scope.cancel()
