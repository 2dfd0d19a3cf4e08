"""Where Stripe sends its events. They are believed by their signature alone, and answered once they are stored."""

import logging
import time

import msgspec
from quart import Blueprint, request

from server.billing.event_reading import Event, find_other_mode, read_event
from server.billing.event_signature import verify
from server.errors import StripeNotConfigured
from server.guard import access
from server.operations import operation, read_body
from server.services import services

blueprint = Blueprint("stripe_webhooks", __name__)

logger = logging.getLogger(__name__)


class StripeEvent(msgspec.Struct):
    """More is read and nothing else of it is believed: https://docs.stripe.com/api/events/object"""

    id: str
    type: str


class StripeEventAnswer(msgspec.Struct):
    received: bool = True


@blueprint.post("/webhooks/stripe")
@access(is_public=True, budget="webhooks")
@operation("Receive an event of Stripe", body=StripeEvent)
async def receive() -> StripeEventAnswer:
    """For Stripe alone: the header `Stripe-Signature` proves that the event is its. The answer says that the event is
    stored; after any other answer Stripe sends it again, for three days.
    """
    settings = services().billing.settings
    if settings.secret_key is None:
        raise StripeNotConfigured("this server sells nothing: STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET are not set")
    payload = await read_body()
    verify(payload, request.headers.get("Stripe-Signature"), settings.webhook_secrets, time.time())
    event = read_event(payload)
    if _is_of_our_mode(event, settings.secret_key):
        await services().billing.inbox.take(event.id, event.type, payload)
    return StripeEventAnswer()


def _is_of_our_mode(event: Event, secret_key: str) -> bool:
    """What happens in Stripe's test mode buys nothing from a server that sells. Raises StripeNotConfigured for the
    other way round: real money came in and our key cannot see it.
    """
    match find_other_mode(event, secret_key):
        case "test":
            logger.warning("an event of Stripe's test mode was passed over", extra={"event_id": event.id})
            return False
        case "live":
            raise StripeNotConfigured("STRIPE_SECRET_KEY is a key of the test mode, and this event is none of it")
        case None:
            return True
