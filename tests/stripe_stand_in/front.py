"""Stripe's API as our server meets it: what every request has to bring, and who answers it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.stripe_stand_in.deliveries import Delivery
from tests.stripe_stand_in.faults import Fault
from tests.stripe_stand_in.http_service import HungUp, Reply, Request, build_reply
from tests.stripe_stand_in.local_process import KEY, StripeError
from tests.stripe_stand_in.objects import Object, make_id, refuse
from tests.stripe_stand_in.played import Played

API_VERSION = "2024-06-20"
EVENTS_PATH = "/_events"
"""Where localstripe sends its own."""

Handler = Callable[[Played, str, Mapping[str, Any]], Awaitable[Object]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a request with an idempotency key got; None while it is under way."""

    request: tuple[str, str, bytes]
    reply: Reply | None


@dataclass(slots=True)
class Front:
    played: Played
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _remembered: dict[str, Remembered] = field(default_factory=dict)

    async def answer(self, request: Request) -> Reply:
        if request.path == EVENTS_PATH:
            return await self._pass_on(request)
        self.requests.append(request)
        fault = self._take_fault(request)
        if fault is not None and fault.kind == "hangs":
            await trio.sleep_forever()
        if fault is not None and fault.kind == "unavailable":
            return build_reply(503, {"error": {"type": "api_error", "message": "Stripe is not well"}})
        reply = await self._answer_once(request)
        if fault is not None:
            raise HungUp
        return reply

    async def _pass_on(self, request: Request) -> Reply:
        delivery = Delivery("", "localstripe", request.body, request.headers["stripe-signature"])
        delivery.type = delivery.event["type"]
        async with self.played.paying:
            self.played.deliveries.put_nowait(delivery)
        return build_reply(200, {})

    def _take_fault(self, request: Request) -> Fault | None:
        fault = next((each for each in self.faults if each.hits(request.method, request.path)), None)
        if fault is not None:
            self.faults.remove(fault)
        return fault

    async def _answer_once(self, request: Request) -> Reply:
        """https://docs.stripe.com/api/idempotent_requests: what began to be done is remembered by its key."""
        key = request.headers.get("idempotency-key")
        if key is None or request.method != "POST":
            return await self._answer(request)
        asked = (request.method, request.path, request.body)
        known = self._remembered.get(key)
        if known is not None:
            return _replay(known, asked)
        self._remembered[key] = Remembered(asked, None)
        try:
            reply = await self._answer(request)
        finally:
            del self._remembered[key]
        if reply.status in {200, 402}:
            self._remembered[key] = Remembered(asked, reply)
        return reply

    async def _answer(self, request: Request) -> Reply:
        try:
            _check_head(request)
            return build_reply(200, await self._route(request), **{"Request-Id": make_id("req")})
        except StripeError as error:
            missing = {"code": "resource_missing"} if error.status == 404 else {}  # which localstripe does not say
            return build_reply(error.status, {"error": {**missing, **error.error}}, **{"Request-Id": make_id("req")})

    async def _route(self, request: Request) -> Object:
        line = f"{request.method} {request.path}"
        for pattern, handler in ROUTES.items():
            if match := re.fullmatch(pattern, line):
                return await handler(self.played, match[1] if match.groups() else "", request.form)
        if request.method == "GET":
            return await self.played.local.get(request.path, **request.form)
        if request.method == "DELETE":
            return await self.played.local.delete(request.path)
        return await self.played.local.post(request.path, request.form)


def _check_head(request: Request) -> None:
    if request.headers.get("authorization") != f"Bearer {KEY}":
        raise refuse("Invalid API Key provided", status=401)
    if request.headers.get("stripe-version") != API_VERSION:
        raise refuse(f"This account was promised API version {API_VERSION}")


def _replay(known: Remembered, asked: tuple[str, str, bytes]) -> Reply:
    if known.request != asked:
        message = "Keys for idempotent requests can only be used with the same parameters they were first used with"
        return build_reply(400, {"error": {"type": "idempotency_error", "message": message}})
    if known.reply is None:
        error = {"type": "invalid_request_error", "code": "idempotency_key_in_use", "message": "under way"}
        return build_reply(409, {"error": error})
    return Reply(known.reply.status, known.reply.body, {**known.reply.headers, "Idempotent-Replayed": "true"})


async def _delete_customer(played: Played, customer_id: str, _: Mapping[str, Any]) -> Object:
    played.deleted_customers.add(customer_id)
    return await played.local.delete(f"/v1/customers/{customer_id}")


async def _search_customers(played: Played, _: str, form: Mapping[str, Any]) -> Object:
    return await played.search_customers(form["query"])


async def _list_cards(played: Played, customer_id: str, form: Mapping[str, Any]) -> Object:
    """localstripe wants the type to be said."""
    chosen = {"type": "card", "customer": customer_id, **form}
    return await played.local.get("/v1/payment_methods", **chosen)


async def _create_portal(played: Played, _: str, form: Mapping[str, Any]) -> Object:
    await played.local.get(f"/v1/customers/{form.get('customer')}")
    portal = {"id": make_id("bps"), "object": "billing_portal.session", "customer": form["customer"]}
    url = f"https://billing.stripe.com/p/session/{portal['id']}"
    return {**portal, "livemode": False, "return_url": form.get("return_url"), "url": url}


async def _list_disputes(played: Played, _: str, form: Mapping[str, Any]) -> Object:
    wanted = {name: form[name] for name in ("charge", "payment_intent") if name in form}
    found = [each for each in played.disputes if all(each[name] == value for name, value in wanted.items())]
    return {"object": "list", "data": found, "has_more": False, "url": "/v1/disputes"}


async def _show_session(played: Played, session_id: str, _: Mapping[str, Any]) -> Object:
    return played.show_session(session_id)


async def _expire_session(played: Played, session_id: str, _: Mapping[str, Any]) -> Object:
    return played.expire_session(session_id)


ROUTES: Mapping[str, Handler] = {
    r"GET /v1/customers/search": _search_customers,
    r"GET /v1/customers/(\w+)": lambda played, id_, form: played.find_customer(id_, form),
    r"DELETE /v1/customers/(\w+)": _delete_customer,
    r"GET /v1/customers/(\w+)/payment_methods": _list_cards,
    r"GET /v1/payment_methods": _list_cards,
    r"POST /v1/billing_portal/sessions": _create_portal,
    r"POST /v1/checkout/sessions": lambda played, _, form: played.create_session(form),
    r"GET /v1/checkout/sessions/(\w+)": _show_session,
    r"POST /v1/checkout/sessions/(\w+)/expire": _expire_session,
    r"GET /v1/payment_intents": lambda played, _, form: played.list_payments(form),
    r"GET /v1/payment_intents/(\w+)": lambda played, id_, form: played.show_payment(id_, form.get("expand", [])),
    r"GET /v1/charges/(\w+)": lambda played, id_, _: played.show_charge(id_),
    r"POST /v1/refunds": lambda played, _, form: played.refund(form),
    r"GET /v1/disputes": _list_disputes,
    r"GET /v1/invoices": lambda played, _, form: played.list_invoices(form),
    r"POST /v1/invoices": lambda played, _, form: played.create_invoice(form),
    r"POST /v1/invoiceitems": lambda played, _, form: played.add_item(form),
    r"GET /v1/invoices/(\w+)": lambda played, id_, _: played.show_invoice(id_),
    r"DELETE /v1/invoices/(\w+)": lambda played, id_, _: played.delete_invoice(id_),
    r"POST /v1/invoices/(\w+)/finalize": lambda played, id_, _: played.finalize_invoice(id_),
    r"POST /v1/invoices/(\w+)/pay": lambda played, id_, _: played.pay_invoice(id_),
    r"POST /v1/invoices/(\w+)/void": lambda played, id_, _: played.void_invoice(id_),
}
"""All else is localstripe's."""
