"""Where Stripe's pages send people back to, if the product has no website of its own. Whatever the query says is
neither read nor shown: how a purchase went, the app asks for itself.
"""

from quart import Blueprint, Response

from server.errors import INTERNAL, ServerError, describe
from server.guard import access
from server.pages import show_page, show_problem
from storage.errors import StorageError

BACK_TO_APP = "You can close this window and go back to the app."

blueprint = Blueprint("billing_pages", __name__, url_prefix="/billing")


@blueprint.get("")
@access(is_public=True, budget="public")
async def show_billing() -> Response:
    """Also where Stripe's portal ends."""
    text = "Credits, cards and invoices are managed in the app, under Billing."
    return await show_page("Billing", text, advice=BACK_TO_APP)


@blueprint.get("/success")
@access(is_public=True, budget="public")
async def show_paid() -> Response:
    text = "Thank you. Your credits are there as soon as the payment is confirmed, usually within seconds."
    return await show_page("Your order is placed", text, advice=BACK_TO_APP)


@blueprint.get("/cancel")
@access(is_public=True, budget="public")
async def show_not_paid() -> Response:
    return await show_page("Nothing was bought", "You left before paying: nothing is charged.", advice=BACK_TO_APP)


@blueprint.get("/payment-method/success")
@access(is_public=True, budget="public")
async def show_card_left() -> Response:
    return await show_page("Your card is saved", "You can use it for purchases from now on.", advice=BACK_TO_APP)


@blueprint.get("/payment-method/cancel")
@access(is_public=True, budget="public")
async def show_no_card_left() -> Response:
    return await show_page("No card was saved", "Nothing has changed.", advice=BACK_TO_APP)


@blueprint.errorhandler(ServerError)
@blueprint.errorhandler(StorageError)
async def tell_browser(error: Exception) -> Response:
    return await show_problem(describe(error) or INTERNAL, "This page cannot be shown now")
