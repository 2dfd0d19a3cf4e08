"""Buying credits and leaving a card on Stripe's pages: for people, who are sent there."""

from decimal import Decimal

import msgspec
from quart import Blueprint

from server.billing.stripe_api import Session
from server.guard import access, caller
from server.operations import Answer, operation
from server.pages import NO_STORE
from server.services import services

blueprint = Blueprint("checkout", __name__, url_prefix="/api/billing/checkout")


class CreditPurchaseWish(msgspec.Struct):
    """US dollars before tax; a number, or one in a string. Other members are passed over."""

    amount: Decimal


class CheckoutPageAnswer(msgspec.Struct, rename="camel"):
    """Where to send the person, and the id to ask for the status with. Without a URL the page is closed already."""

    session_id: str
    url: str | None


class CheckoutStatusAnswer(msgspec.Struct, rename="camel"):
    """`status` is `open`, `complete` or `expired`, `paymentStatus` Stripe's own word, such as `paid` or `unpaid`."""

    status: str
    payment_status: str
    customer_email: str | None


@blueprint.post("/custom-credit-session")
@access(is_for_people=True)
@operation("Buy credits")
async def start_purchase(body: CreditPurchaseWish) -> Answer[CheckoutPageAnswer]:
    """Makes a page at Stripe where the credits are paid. They are booked once the payment has come in."""
    return _tell_page(await services().billing.checkout.start_purchase(caller(), body.amount))


@blueprint.post("/setup-session")
@access(is_for_people=True)
@operation("Leave a card")
async def start_setup() -> Answer[CheckoutPageAnswer]:
    """Makes a page at Stripe where a card can be left for later. Nothing is paid."""
    return _tell_page(await services().billing.checkout.start_setup(caller()))


@blueprint.get("/session-status/<session_id>")
@access(is_for_people=True)
@operation("Show the status of a checkout")
async def show_status(session_id: str) -> Answer[CheckoutStatusAnswer]:
    """Of a page that you opened. What has been paid is booked by the time this says so."""
    found = await services().billing.checkout.find_status(caller().user_id, session_id)
    status = CheckoutStatusAnswer(found.status, found.payment_status, found.customer_email)
    return Answer(status, headers=NO_STORE)


def _tell_page(session: Session) -> Answer[CheckoutPageAnswer]:
    return Answer(CheckoutPageAnswer(session.id, session.url), headers=NO_STORE)
