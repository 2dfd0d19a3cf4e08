"""Stripe's objects as API version 2024-06-20 shows them, made of what was asked or of what localstripe holds. Pure.

https://docs.stripe.com/api/checkout/sessions/object, …/payment_intents/object, …/charges/object, …/disputes/object,
…/invoices/object
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.stripe_stand_in.local_process import StripeError

Object = dict[str, Any]

CHECKOUT_PARAMETERS = {
    *("customer", "client_reference_id", "mode", "line_items", "success_url", "cancel_url", "payment_intent_data"),
    *("setup_intent_data", "billing_address_collection", "tax_id_collection", "customer_update", "automatic_tax"),
    *("invoice_creation", "metadata", "payment_method_types", "currency", "expires_at", "expand"),
}
INVOICE_PARAMETERS = {
    *("customer", "collection_method", "auto_advance", "pending_invoice_items_behavior", "automatic_tax", "metadata"),
    *("currency", "description", "discounts", "expand"),
}
ITEM_PARAMETERS = {
    *("customer", "invoice", "amount", "currency", "description", "tax_behavior", "tax_code", "metadata", "price_data"),
    *("quantity", "unit_amount", "unit_amount_decimal", "discountable"),
}
DAY_SECONDS = 86400


def make_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def refuse(message: str, code: str = "", status: int = 400, type_: str = "invalid_request_error") -> StripeError:
    return StripeError(status, {"type": type_, "message": message, **({"code": code} if code else {})})


def check_parameters(form: Mapping[str, Any], known: set[str]) -> None:
    """Stripe refuses what it does not know, which localstripe does too; so a misspelt name is found here."""
    if unknown := set(form) - known:
        raise refuse(f"Received unknown parameter: {sorted(unknown)[0]}", "parameter_unknown")


def build_session(form: Mapping[str, Any], tax_percent: int) -> Object:
    """Of `POST checkout/sessions`, open."""
    check_parameters(form, CHECKOUT_PARAMETERS)
    mode = form.get("mode")
    if mode not in {"payment", "setup"}:
        raise refuse("mode must be payment or setup here", "parameter_invalid")
    for name in ("success_url", "cancel_url"):
        if not str(form.get(name, "")).startswith(("http://", "https://")):
            raise refuse(f"Not a valid URL: {name}", "url_invalid")
    session_id = make_id("cs_test")
    subtotal = _sum_lines(form) if mode == "payment" else None
    tax = (subtotal or 0) * tax_percent // 100 if _is_on(form.get("automatic_tax")) else 0
    return {
        "id": session_id,
        "object": "checkout.session",
        "amount_subtotal": subtotal,
        "amount_total": None if subtotal is None else subtotal + tax,
        "automatic_tax": {"enabled": _is_on(form.get("automatic_tax")), "liability": None, "status": None},
        "billing_address_collection": form.get("billing_address_collection"),
        "cancel_url": form["cancel_url"],
        "client_reference_id": form.get("client_reference_id"),
        "created": int(time.time()),
        "currency": "usd" if mode == "payment" else form.get("currency"),
        "customer": form.get("customer"),
        "customer_details": None,
        "customer_email": None,
        "expires_at": int(time.time()) + DAY_SECONDS,
        "invoice": None,
        "livemode": False,
        "metadata": dict(form.get("metadata", {})),
        "mode": mode,
        "payment_intent": None,
        "payment_method_types": ["card"],
        "payment_status": "unpaid" if mode == "payment" else "no_payment_required",
        "setup_intent": None,
        "status": "open",
        "success_url": form["success_url"].replace("{CHECKOUT_SESSION_ID}", session_id),
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": tax},
        "url": f"https://checkout.stripe.com/c/pay/{session_id}",
    }


def build_invoice(form: Mapping[str, Any], local: Object) -> Object:
    """A draft; `local` is localstripe's."""
    return {
        **show_invoice(local),
        "auto_advance": str(form.get("auto_advance", "false")).lower() == "true",
        "automatic_tax": {"enabled": _is_on(form.get("automatic_tax")), "liability": None, "status": None},
        "collection_method": form.get("collection_method", "charge_automatically"),
        "currency": form.get("currency", "usd"),
        "lines": build_list([], "/v1/invoices/lines"),
        "metadata": dict(form.get("metadata", {})),
        "status": "draft",
        "subtotal": 0,
        "tax": None,
    }


def show_invoice(local: Object) -> Object:
    """What localstripe holds, with members that it leaves out; the charge as an id."""
    charge = local.get("charge")
    members = {"due_date": None, "hosted_invoice_url": None, "invoice_pdf": None, "paid": local["status"] == "paid"}
    return {**members, **local, "charge": charge["id"] if isinstance(charge, dict) else charge}


def add_item(invoice: Object, form: Mapping[str, Any], tax_percent: int) -> Object:
    """Of `POST invoiceitems`; the sums of the invoice follow."""
    check_parameters(form, ITEM_PARAMETERS)
    price = form.get("price_data", {})
    unit = form.get("amount", form.get("unit_amount", price.get("unit_amount")))
    if unit is None:
        raise refuse("Missing required param: amount", "parameter_missing")
    amount = int(unit) * int(form.get("quantity", 1))
    item = {
        "id": make_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": form.get("currency", price.get("currency")),
        "customer": form["customer"],
        "description": form.get("description"),
        "invoice": invoice["id"],
        "metadata": dict(form.get("metadata", {})),
    }
    invoice["lines"]["data"].append({**item, "id": make_id("il"), "object": "line_item"})
    invoice["subtotal"] += amount
    if invoice["automatic_tax"]["enabled"]:
        invoice["tax"] = invoice["subtotal"] * tax_percent // 100
    invoice["total"] = invoice["amount_due"] = invoice["subtotal"] + (invoice["tax"] or 0)
    return item


def show_payment(local: Object, expand: Sequence[str], disputes: Sequence[Object]) -> Object:
    """localstripe shows the charge whole always; Stripe its id, unless it is to be expanded."""
    charge = local.get("latest_charge")
    shown = None if charge is None else show_charge(charge, local["id"], disputes)
    is_expanded = any(name.split(".")[0] == "latest_charge" for name in expand)
    return {
        **{name: value for name, value in local.items() if name != "charges"},
        "amount_received": local["amount"] if local["status"] == "succeeded" else 0,
        "latest_charge": shown if is_expanded or shown is None else shown["id"],
    }


def show_charge(local: Object, payment_intent_id: str | None, disputes: Sequence[Object]) -> Object:
    mine = [dispute for dispute in disputes if dispute["charge"] == local["id"]]
    return {
        **local,
        "amount_captured": local["amount"] if local["captured"] and local["paid"] else 0,
        "disputed": bool(mine),
        "payment_intent": payment_intent_id,
    }


def build_dispute(charge: Object, cents: int) -> Object:
    return {
        "id": make_id("du"),
        "object": "dispute",
        "amount": cents,
        "charge": charge["id"],
        "created": int(time.time()),
        "currency": charge["currency"],
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": "fraudulent",
        "status": "needs_response",
    }


def build_list(objects: Sequence[Object], url: str, *, has_more: bool = False) -> Object:
    return {"object": "list", "data": list(objects), "has_more": has_more, "url": url}


def build_page(objects: Sequence[Object], form: Mapping[str, Any], url: str) -> Object:
    """Newest first; of `limit` and `starting_after`."""
    ids = [each["id"] for each in objects]
    start = ids.index(form["starting_after"]) + 1 if form.get("starting_after") in ids else 0
    end = start + int(form.get("limit", 10))
    return build_list(objects[start:end], url, has_more=end < len(objects))


def build_event(type_: str, object_: Object, previous: Mapping[str, Any] | None = None) -> Object:
    """https://docs.stripe.com/api/events/object?api-version=2024-06-20"""
    data: Object = {"object": object_}
    return {
        "id": make_id("evt"),
        "object": "event",
        "api_version": "2024-06-20",
        "created": int(time.time()),
        "data": data if previous is None else {**data, "previous_attributes": previous},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
    }


def _sum_lines(form: Mapping[str, Any]) -> int:
    lines = form.get("line_items")
    if not isinstance(lines, list):
        raise refuse("Missing required param: line_items", "parameter_missing")
    return sum(_price_line(line) * int(line["quantity"]) for line in lines)


def _price_line(line: Mapping[str, Any]) -> int:
    price = line.get("price_data", {})
    if price.get("currency") != "usd" or not price.get("product_data", {}).get("name"):
        raise refuse("Missing required param: line_items[0][price_data]", "parameter_missing")
    return int(price["unit_amount"])


def _is_on(parameter: Any) -> bool:
    return isinstance(parameter, Mapping) and str(parameter.get("enabled", "")).lower() == "true"
