"""Buying credits on Stripe's page, or leaving a card there: where it is, and how far it has come.

Our order stands before Stripe is asked. Whoever is interrupted in between leaves an open order that nobody pays, for
its page was shown to nobody; `sweep_open` ends it.
"""

import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from server.auth.callers import Caller
from server.billing.customers import Customers
from server.billing.payments import Payments
from server.billing.stripe_api import CheckoutOrder, Session, StripeApi
from server.billing.terms_reader import TermsReader
from server.errors import NotFound, StripeNotConfigured, StripeRefused, StripeUnavailable
from storage.purchases import Purchase, PurchaseChanged, Purchases

STALE_HOURS = 26
"""A page of Stripe's lives for 24 hours, and may have been made some retries after its order:
https://docs.stripe.com/payments/checkout/managing-limited-inventory
"""
SESSION_ID = re.compile(r"cs_[A-Za-z0-9_]{1,250}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckoutStatus:
    """Stripe's words (see Session), and `processing` for what was paid and is not in the ledger yet."""

    status: str
    payment_status: str
    customer_email: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Checkout:
    """Every method raises StorageError, and what StripeApi does."""

    customers: Customers
    stripe: StripeApi
    purchases: Purchases
    payments: Payments
    terms: TermsReader

    async def start_purchase(self, who: Caller, amount_usd: Decimal) -> Session:
        """Where the caller pays. A repetition is another order, and costs nothing unless it is paid as well. Raises
        PurchaseRefused, PaymentMethodRequired and BillingAddressRequired.
        """
        if not self.stripe.settings.sells:  # nobody has a card here: that is not what is missing
            raise StripeNotConfigured("this server sells no credits")
        quote = (await self.terms.read()).quote(amount_usd)
        await self.customers.require_ready(who.user_id)
        customer_id = await self.customers.ensure(who.user_id, who.email, who.name)
        cents = (quote.gross_cents, quote.fee_cents, quote.net_cents)
        order = await self.purchases.open(uuid4(), who.user_id, "checkout", cents)
        session = await self.stripe.create_checkout_session(CheckoutOrder(order.id, who.user_id, customer_id, *cents))
        await self.purchases.note_session(order.id, session.id, customer_id)
        return session

    async def start_setup(self, who: Caller) -> Session:
        """Where the caller leaves a card. A repetition is another page."""
        customer_id = await self.customers.ensure(who.user_id, who.email, who.name)
        session = await self.stripe.create_setup_session(who.user_id, customer_id, f"setup:{uuid4()}")
        await self.purchases.note_setup_session(who.user_id, session.id)
        return session

    async def find_status(self, user_id: UUID, session_id: str) -> CheckoutStatus:
        """Of a session of this user's own. What has been paid is booked here and now, if no event was faster. Raises
        NotFound for anybody else's, and for what never was.
        """
        order = await self._find_order(user_id, session_id)
        session = await self.stripe.find_session(session_id)
        if session is None:
            raise _not_found()
        if order is None:
            await self._take_card(session)
        elif session.payment_status != "unpaid" and not await self._is_booked(order, session):
            return CheckoutStatus(session.status, "processing", session.customer_email)
        return CheckoutStatus(session.status, session.payment_status, session.customer_email)

    async def close_pages(self, user_id: UUID) -> None:
        """For a user who leaves for good: nobody pays for credits of an account that is gone. A page that cannot be
        closed, since it was paid or Stripe does not answer, is left; its payment would be told by the reconciliation.
        """
        for session_id in await self.purchases.find_open_sessions(user_id):
            try:
                await self.stripe.close_session(session_id)
            except (StripeRefused, StripeUnavailable) as error:
                logger.warning("a page of a user who leaves stays open", extra={"reason": str(error)})

    async def sweep_open(self, limit: int) -> int:
        """See what became of orders whose page has expired by now, the oldest first, and say how many came to an end.
        Safe to repeat. Raises StripeUnavailable; what was done until then stays so.
        """
        ended = 0
        before = datetime.now(UTC) - timedelta(hours=STALE_HOURS)
        for order in await self.purchases.find_open("checkout", before, limit):
            ended += await self._see_through(order)
        return ended

    async def _find_order(self, user_id: UUID, session_id: str) -> Purchase | None:
        """None for a session that sells nothing."""
        if SESSION_ID.fullmatch(session_id) is None:
            raise _not_found()
        order = await self.purchases.find_of_user(user_id, session_id)
        if order is None and not await self.purchases.owns_setup_session(user_id, session_id):
            raise _not_found()
        return order

    async def _is_booked(self, order: Purchase, session: Session) -> bool:
        if order.state == "paid":
            return True
        await self._try_to_sync(session)
        found = await self.purchases.find(order.id)
        return found is not None and found.state == "paid"

    async def _take_card(self, session: Session) -> None:
        """So that whoever is told that it is done can buy with it at once; done once, however often it is asked."""
        if session.status == "complete":
            await self._try_to_sync(session)

    async def _try_to_sync(self, session: Session) -> None:
        """What cannot be done now, an event of Stripe's or the next question will do."""
        try:
            await self.payments.sync_session(session.id)
        except (StripeUnavailable, PurchaseChanged) as error:
            logger.warning("a checkout is complete and not seen to yet", extra={"reason": str(error)})

    async def _see_through(self, order: Purchase) -> bool:
        if order.stripe_session_id is None:
            return await self.purchases.end(order.id, "expired", "its page was never shown")
        try:
            outcome = await self.payments.sync_session(order.stripe_session_id)
        except StripeRefused as error:
            logger.error(
                "Stripe does not tell what became of an order",
                extra={"purchase_id": str(order.id), "code": error.code},
            )
            return False
        if outcome == "not_ours":
            return await self.purchases.end(order.id, "expired", "Stripe knows no such page")
        if outcome == "refused":  # it has been told; to tell it again with every sweep helps nobody
            return await self.purchases.end(order.id, "failed", "Stripe contradicts it")
        found = await self.purchases.find(order.id)
        return found is None or found.state != "open"


def _not_found() -> NotFound:
    return NotFound("you have no such checkout session")
