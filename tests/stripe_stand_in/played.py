"""What localstripe cannot do, done with what it can: checkout, invoices, disputes. Raises StripeError."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from tests.stripe_stand_in import objects
from tests.stripe_stand_in.deliveries import Deliveries, Delivery, sign
from tests.stripe_stand_in.local_process import LocalStripe, StripeError
from tests.stripe_stand_in.objects import Object, refuse

FREE_PLAN = "costs-nothing"


class Played:
    """The state of the front. Amounts are cents; `tax_percent` goes on top where a request asks for automatic tax."""

    def __init__(self, local: LocalStripe, deliveries: Deliveries) -> None:
        self.local = local
        self.deliveries = deliveries
        self.tax_percent = 0
        self.paying = trio.Lock()
        """Held until a payment has all that Stripe would have made it with: localstripe's events wait for that."""
        self.sessions: dict[str, Object] = {}
        self.invoices: dict[str, Object] = {}
        self.disputes: list[Object] = []
        self.deleted_customers: set[str] = set()
        self._payment_of_charge: dict[str, str] = {}
        self._subscribed: set[str] = set()

    def tell(self, type_: str, object_: Object, previous: Mapping[str, Any] | None = None) -> None:
        """An event of the front's own making goes out."""
        payload = json.dumps(objects.build_event(type_, object_, previous)).encode()
        self.deliveries.put_nowait(Delivery(type_, "front", payload, sign(payload)))

    # Customers and cards

    async def find_customer(self, customer_id: str, form: Mapping[str, Any]) -> Object:
        if customer_id in self.deleted_customers:
            return {"id": customer_id, "object": "customer", "deleted": True}
        customer = await self.local.get(f"/v1/customers/{customer_id}", expand=form.get("expand", []))
        return {**customer, "tax_exempt": "none"}

    async def search_customers(self, query: str) -> Object:
        """Only `metadata['name']:'value'`."""
        name, _, value = query.removeprefix("metadata['").partition("']:'")
        customers = await self.local.list_all("/v1/customers")
        found = [each for each in customers if each["metadata"].get(name) == value.removesuffix("'")]
        return {"object": "search_result", "data": found, "has_more": False, "url": "/v1/customers/search"}

    async def attach_card(self, customer_id: str, number: str, billing: Mapping[str, Any] | None = None) -> str:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
        form = {"type": "card", "card": card, **({"billing_details": billing} if billing else {})}
        method = await self.local.post("/v1/payment_methods", form)
        attached = await self.local.post(f"/v1/payment_methods/{method['id']}/attach", {"customer": customer_id})
        self.tell("payment_method.attached", attached)
        return str(method["id"])

    # Payments

    async def show_payment(self, payment_intent_id: str, expand: Sequence[str]) -> Object:
        local = await self.local.get(f"/v1/payment_intents/{payment_intent_id}")
        self._note_charge(local)
        return objects.show_payment(local, expand, self.disputes)

    async def list_payments(self, form: Mapping[str, Any]) -> Object:
        every = await self.local.list_all("/v1/payment_intents")
        bounds = form.get("created", {})
        since = max(int(bounds.get("gte", 0)), int(bounds.get("gt", -1)) + 1)
        customer = form.get("customer")
        chosen = [each for each in every if each["created"] >= since and customer in {None, each["customer"]}]
        chosen.reverse()
        expand = [name.removeprefix("data.") for name in form.get("expand", [])]
        shown = [objects.show_payment(each, expand, self.disputes) for each in chosen]
        return objects.build_page(shown, form, "/v1/payment_intents")

    async def show_charge(self, charge_id: str) -> Object:
        local = await self.local.get(f"/v1/charges/{charge_id}")
        if charge_id not in self._payment_of_charge:
            for payment in await self.local.list_all("/v1/payment_intents"):
                self._note_charge(payment)
        return objects.show_charge(local, self._payment_of_charge.get(charge_id), self.disputes)

    async def find_charge(self, payment_intent_id: str) -> Object:
        payment = await self.show_payment(payment_intent_id, [])
        return await self.show_charge(payment["latest_charge"])

    async def refund(self, form: Mapping[str, Any]) -> Object:
        charge_id = form.get("charge") or (await self.find_charge(form["payment_intent"]))["id"]
        before = (await self.show_charge(charge_id))["amount_refunded"]
        refund = await self.local.post("/v1/refunds", {**form, "charge": charge_id, "payment_intent": None})
        self.tell("charge.refunded", await self.show_charge(charge_id), {"amount_refunded": before})
        return refund

    # Invoices

    async def create_invoice(self, form: Mapping[str, Any]) -> Object:
        objects.check_parameters(form, objects.INVOICE_PARAMETERS)
        customer = form["customer"]
        await self._subscribe(customer)
        await self.local.post("/v1/invoiceitems", {"customer": customer, "amount": 0, "currency": "usd"})
        local = await self.local.post("/v1/invoices", {"customer": customer})
        invoice = self.invoices[local["id"]] = objects.build_invoice(form, local)
        await self._carry_over(invoice)
        return await self.show_invoice(invoice["id"])

    async def add_item(self, form: Mapping[str, Any]) -> Object:
        invoice = self.invoices.get(form.get("invoice", ""))
        if invoice is None or invoice["status"] != "draft":
            raise refuse("Invoice items go on a draft here", "invoice_not_editable")
        item = objects.add_item(invoice, form, self.tax_percent)
        await self._carry_over(invoice)
        return item

    async def finalize_invoice(self, invoice_id: str) -> Object:
        invoice = self._find_invoice(invoice_id)
        if invoice["status"] != "draft":
            raise refuse("This invoice is already finalized", "invoice_already_finalized")
        invoice["status"] = "open"
        shown = await self.show_invoice(invoice_id)
        self.tell("invoice.finalized", shown)
        return shown

    async def pay_invoice(self, invoice_id: str, metadata: Mapping[str, str] | None = None) -> Object:
        """localstripe charges the card and sends `invoice.payment_succeeded`, or `.payment_failed`. The metadata is the
        payment intent's.
        """
        invoice = self._find_invoice(invoice_id)
        if invoice["status"] in {"paid", "void"}:
            raise refuse("Invoice is already paid", "invoice_not_editable")
        invoice["status"] = "open"
        async with self.paying:
            local = await self._charge(invoice_id, metadata or {})
        payment = await self.show_payment(local["payment_intent"], [])
        if local["status"] != "paid":
            self.tell("payment_intent.payment_failed", payment)
            raise _build_decline(payment)
        self.tell("payment_intent.succeeded", payment)
        shown = await self.show_invoice(invoice_id)
        self.tell("invoice.paid", shown)
        return shown

    async def void_invoice(self, invoice_id: str) -> Object:
        invoice = self._find_invoice(invoice_id)
        if (await self.show_invoice(invoice_id))["status"] != "open":
            raise refuse("Only open invoices can be voided", "invoice_not_editable")
        invoice["status"] = "void"
        shown = await self.show_invoice(invoice_id)
        self.tell("invoice.voided", shown)
        return shown

    async def delete_invoice(self, invoice_id: str) -> Object:
        if self._find_invoice(invoice_id)["status"] != "draft":
            raise refuse("Only drafts can be deleted", "invoice_not_editable")
        del self.invoices[invoice_id]
        return await self.local.delete(f"/v1/invoices/{invoice_id}")

    async def show_invoice(self, invoice_id: str) -> Object:
        local = objects.show_invoice(await self.local.get(f"/v1/invoices/{invoice_id}"))
        own = self.invoices.get(invoice_id)
        if own is None:
            return local
        if local["status"] == "paid" and own["status"] != "void":
            own["status"] = "paid"
        paid = own["total"] if own["status"] == "paid" else 0
        of_payment = {name: local[name] for name in ("payment_intent", "charge")}
        return {**own, **of_payment, "amount_paid": paid, "amount_remaining": own["total"] - paid, "paid": paid > 0}

    async def list_invoices(self, form: Mapping[str, Any]) -> Object:
        own = [each for each in self.invoices.values() if form.get("customer") in {None, each["customer"]}]
        shown = [await self.show_invoice(each["id"]) for each in reversed(own)]
        return objects.build_page(shown, form, "/v1/invoices")

    # Checkout

    async def create_session(self, form: Mapping[str, Any]) -> Object:
        await self.local.get(f"/v1/customers/{form.get('customer')}")
        session = objects.build_session(form, self.tax_percent)
        self.sessions[session["id"]] = {**session, "_form": form}
        return session

    def show_session(self, session_id: str) -> Object:
        if session_id not in self.sessions:
            raise refuse(f"No such checkout.session: {session_id}", "resource_missing", status=404)
        session = self.sessions[session_id]
        return {name: value for name, value in session.items() if not name.startswith("_")}

    def expire_session(self, session_id: str) -> Object:
        session = self.take_open_session(session_id)
        session.update(status="expired", url=None)
        self.tell("checkout.session.expired", self.show_session(session_id))
        return self.show_session(session_id)

    def take_open_session(self, session_id: str) -> Object:
        if self.show_session(session_id)["status"] != "open":
            raise refuse("Only open sessions can be completed or expired")
        return self.sessions[session_id]

    def _find_invoice(self, invoice_id: str) -> Object:
        if invoice_id not in self.invoices:
            raise refuse(f"No such invoice: {invoice_id}", "resource_missing", status=404)
        return self.invoices[invoice_id]

    def _note_charge(self, payment: Object) -> None:
        if payment["latest_charge"] is not None:
            self._payment_of_charge[payment["latest_charge"]["id"]] = payment["id"]

    async def _charge(self, invoice_id: str, metadata: Mapping[str, str]) -> Object:
        try:
            local = await self.local.post(f"/v1/invoices/{invoice_id}/pay")
        except StripeError as error:  # localstripe has a 404 where Stripe has its own code
            raise refuse("There is no default payment method", "resource_missing") from error
        if metadata:
            await self.local.post(f"/v1/payment_intents/{local['payment_intent']}", {"metadata": metadata})
        return local

    async def _subscribe(self, customer_id: str) -> None:
        """localstripe makes invoices for subscribers alone: https://github.com/adrienverge/localstripe"""
        if not self._subscribed:
            plan = {"id": FREE_PLAN, "amount": 0, "currency": "usd", "interval": "month", "product": {"name": "none"}}
            await self.local.post("/v1/plans", plan)
        if customer_id not in self._subscribed:
            self._subscribed.add(customer_id)
            await self.local.post("/v1/subscriptions", {"customer": customer_id, "items": [{"plan": FREE_PLAN}]})

    async def _carry_over(self, invoice: Object) -> None:
        """The lines of its invoices cannot be changed; what is owed from before can."""
        members = {"starting_balance": -invoice["total"], "currency": "usd", "metadata": invoice["metadata"]}
        await self.local.post_json(f"/v1/invoices/{invoice['id']}", members)


def _build_decline(payment: Object) -> StripeError:
    error = payment["last_payment_error"] or {}
    return StripeError(
        402,
        {
            "type": "card_error",
            "code": error.get("code", "card_declined"),
            "decline_code": "generic_decline",
            "message": error.get("message", "Your card was declined."),
            "payment_intent": payment,
        },
    )
