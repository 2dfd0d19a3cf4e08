"""Buying credits and leaving a card on Stripe's pages: for people, who are sent there."""

from decimal import Decimal

import msgspec
from quart import Blueprint, Response, request

from server.billing.stripe_api import Session
from server.errors import RequestInvalid
from server.guard import access, caller
from server.pages import NO_STORE
from server.services import services

blueprint = Blueprint("checkout", __name__, url_prefix="/api/billing/checkout")


class _Order(msgspec.Struct):
    """US dollars before tax; a number, or one in a string. Other members are passed over."""

    amount: Decimal


class _Page(msgspec.Struct, rename="camel"):
    session_id: str
    url: str | None


class _Status(msgspec.Struct, rename="camel"):
    status: str
    payment_status: str
    customer_email: str | None


@blueprint.post("/custom-credit-session")
@access(is_for_people=True)
async def start_purchase() -> Response:
    amount = read_amount(await request.get_data(cache=False, as_text=False, parse_form_data=False))
    return _tell_page(await services().billing.checkout.start_purchase(caller(), amount))


@blueprint.post("/setup-session")
@access(is_for_people=True)
async def start_setup() -> Response:
    return _tell_page(await services().billing.checkout.start_setup(caller()))


@blueprint.get("/session-status/<session_id>")
@access(is_for_people=True)
async def show_status(session_id: str) -> Response:
    found = await services().billing.checkout.find_status(caller().user_id, session_id)
    return _as_json(_Status(found.status, found.payment_status, found.customer_email))


def read_amount(body: bytes) -> Decimal:
    """Exactly as it is written. Raises RequestInvalid."""
    try:
        return msgspec.json.decode(body, type=_Order).amount
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body: {error}") from error


def _tell_page(session: Session) -> Response:
    return _as_json(_Page(session.id, session.url))


def _as_json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), headers=NO_STORE, content_type="application/json")
