"""What Stripe says about a payment, brought into the ledger.

An event only says where to look: what is booked follows from the payment as Stripe knows it now, compared with our own
order. So events may come twice, late, or in any order.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from server.auditor import Auditor
from server.billing.order_checks import check_invoice, check_payment, check_session, read_purchase_id
from server.billing.stripe_api import StripeApi
from server.billing.stripe_objects import BillingDetails, Payment, Session, Setup
from server.errors import StripeRefused
from storage.audit import AuditEntry
from storage.billing_customers import BillingCustomers
from storage.purchases import Paid, PaymentUsedTwice, Purchase, PurchaseChanged, Purchases

Outcome = Literal["booked", "unchanged", "not_ours", "refused"]
"""`booked`: credits were given or taken. `unchanged`: nothing to do any more, or not yet. `not_ours`: no order of ours,
or its user is gone. `refused`: it contradicts our order; the log and the audit log say how, and nothing was booked.
"""

ROUNDS = 5
"""How often a payment is read again because somebody else booked for it meanwhile."""

DEAD_STATUSES = frozenset({"requires_payment_method", "canceled"})
"""Of a payment intent that failed: https://docs.stripe.com/payments/paymentintents/lifecycle"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Payments:
    """Every method is safe to repeat, in any order and at once. Raises StripeUnavailable and StorageError, and then it
    has to be tried again; StripeRefused for an id that is none.
    """

    stripe: StripeApi
    purchases: Purchases
    customers: BillingCustomers
    auditor: Auditor

    async def sync_payment(self, payment_intent_id: str) -> Outcome:
        """Book what was paid and take back what was returned."""
        return await self._sync(payment_intent_id, None)

    async def sync_invoice(self, invoice_id: str) -> Outcome:
        """The same for a top-off's invoice; one that nobody will pay ends its order."""
        invoice = await self.stripe.find_invoice(invoice_id)
        if invoice is None:
            return "not_ours"
        order = await self._find_order(invoice.id, invoice.metadata)
        if order is None:
            return "not_ours"
        reason = check_invoice(order, invoice, await self._find_customer_id(order))
        if reason is not None:
            return await self._refuse(order, ("invoice", invoice.id), reason)
        if invoice.status in {"void", "uncollectible"}:
            await self.purchases.end(order.id, "failed", f"the invoice is {invoice.status}")
        if invoice.status != "paid":
            return "unchanged"
        payment_id = invoice.payment_intent_id
        if payment_id is None and invoice.charge_id is not None:
            payment_id = await self.stripe.find_charge_payment(invoice.charge_id)
        if payment_id is None:
            return await self._refuse(order, ("invoice", invoice.id), "paid without a payment")
        return await self._sync(payment_id, order.id)

    async def sync_session(self, session_id: str) -> Outcome:
        """The same for a checkout session; one that expired, or whose payment failed in the end, ends its order. A card
        that was left becomes the default one: of a setup always, of a purchase if there is none.
        """
        session = await self.stripe.find_session(session_id)
        if session is None:
            return "not_ours"
        if session.mode == "setup":
            return await self._sync_setup(session)
        return await self._sync_purchase(session)

    async def _sync(self, payment_intent_id: str, order_id: UUID | None) -> Outcome:
        for _ in range(ROUNDS - 1):
            try:
                return await self._sync_once(payment_intent_id, order_id)
            except PurchaseChanged:
                logger.info("a purchase changed while its payment was read", extra={"payment": payment_intent_id})
        return await self._sync_once(payment_intent_id, order_id)

    async def _sync_once(self, payment_intent_id: str, order_id: UUID | None) -> Outcome:
        """Our order is read before Stripe is asked: if it has not changed when it is booked for, nobody has booked what
        is newer than our reading. One that was never booked for when it is read afterwards was not then, either.
        """
        known = await self.purchases.find_by_reference(payment_intent_id)
        payment = await self.stripe.find_payment(payment_intent_id)
        if payment is None:
            return "not_ours"
        order = known or await self._find_order_of(payment, order_id)
        if order is None:
            return "not_ours"
        reason = check_payment(order, payment, await self._find_customer_id(order))
        if reason is not None:
            return await self._refuse(order, ("payment_intent", payment.id), reason)
        if known is None and order.bookings:
            raise PurchaseChanged("the order was booked for while its payment was read")
        return await self._book(order, payment) if payment.status == "succeeded" else "unchanged"

    async def _book(self, order: Purchase, payment: Payment) -> Outcome:
        paid = Paid(payment.received_cents, payment.id, payment.charge_id)
        try:
            is_new = order.state != "paid" and await self.purchases.book(
                order.id, paid, lambda purchase: self._build_entry("credit_purchase_succeeded", purchase)
            )
        except PaymentUsedTwice:
            reason = "the payment was booked for another order"
            return await self._refuse(order, ("payment_intent", payment.id), reason)
        returned = (payment.refunded_cents, payment.disputed_cents)
        if returned == (order.refunded_cents, order.disputed_cents):
            return "booked" if is_new else "unchanged"
        difference_usd = await self.purchases.set_returned(
            order.id,
            *returned,
            lambda purchase: self._build_entry("credit_purchase_returned", purchase),
            seen_bookings=order.bookings + is_new,
        )
        return "booked" if is_new or difference_usd else "unchanged"

    async def _sync_purchase(self, session: Session) -> Outcome:
        order = await self._find_order(session.id, session.metadata)
        if order is None:
            return "not_ours"
        reason = check_session(order, session, await self._find_customer_id(order))
        if reason is not None:
            return await self._refuse(order, ("checkout_session", session.id), reason)
        outcome: Outcome = "unchanged"
        if session.payment_intent_id is not None:
            outcome = await self._sync(session.payment_intent_id, order.id)
        if session.status == "expired":
            await self.purchases.end(order.id, "expired", "nobody paid in time")
        elif session.payment_intent_id is not None and outcome != "refused":
            await self._look_after(order, session, session.payment_intent_id)
        return outcome

    async def _look_after(self, order: Purchase, session: Session, payment_intent_id: str) -> None:
        """What else a session leaves behind: a card that was paid with, or a payment that failed in the end."""
        if session.payment_status == "paid" and session.customer_id is not None:
            await self._keep_paying_card(session.customer_id, payment_intent_id)
        elif session.status == "complete":
            payment = await self.stripe.find_payment(payment_intent_id)
            if payment is not None and payment.status in DEAD_STATUSES:
                await self.purchases.end(order.id, "failed", "the payment failed")

    async def _keep_paying_card(self, customer_id: str, payment_intent_id: str) -> None:
        customer = await self.stripe.find_customer(customer_id)
        if customer is None or customer.default_payment_method is not None:
            return
        payment = await self.stripe.find_payment(payment_intent_id)
        if payment is not None and payment.payment_method_id is not None:
            await self._try_to_set_default(customer_id, payment.payment_method_id)

    async def _try_to_set_default(self, customer_id: str, payment_method_id: str) -> bool:
        """Some kinds pay once and cannot be kept."""
        try:
            await self.stripe.set_default_payment_method(customer_id, payment_method_id)
        except StripeRefused as error:
            logger.warning("a payment method did not become the default", extra={"reason": error.code})
            return False
        return True

    async def _try_to_set_billing(self, customer_id: str, billing: BillingDetails) -> None:
        """Without them the user is asked for them before it buys."""
        try:
            await self.stripe.set_billing_details(customer_id, billing)
        except StripeRefused as error:
            logger.warning("a customer did not get the address of its card", extra={"reason": error.code})

    async def _sync_setup(self, session: Session) -> Outcome:
        noted = await self.purchases.find_setup_session(session.id)
        if noted is None:
            return "not_ours"
        if noted.has_ended or session.status != "complete" or session.setup_intent_id is None:
            return "unchanged"
        setup = await self.stripe.find_setup(session.setup_intent_id)
        if setup is None or setup.status != "succeeded" or setup.payment_method_id is None:
            return "unchanged"
        reason = await self._keep_card(noted.user_id, session, setup, setup.payment_method_id)
        if reason is not None:
            return await self._refuse_setup(noted.user_id, session, reason)
        entry = self.auditor.build_entry(
            "payment_method_added",
            "success",
            actor="system",
            subject_id=noted.user_id,
            entity=("payment_method", setup.payment_method_id),
        )
        await self.purchases.end_setup_session(noted.user_id, session.id, entry)
        return "unchanged"

    async def _keep_card(self, user_id: UUID, session: Session, setup: Setup, payment_method_id: str) -> str | None:
        """Make it the default one, and its address the customer's. Returns what is in the way."""
        if session.client_reference_id != str(user_id):
            return "another user"
        customer = await self.customers.find(user_id)
        if customer is None or customer.customer_id is None or setup.customer_id != customer.customer_id:
            return "another customer"
        if not await self._try_to_set_default(customer.customer_id, payment_method_id):
            return "the payment method cannot be kept"
        if setup.billing is not None:
            await self._try_to_set_billing(customer.customer_id, setup.billing)
        return None

    async def _find_order_of(self, payment: Payment, order_id: UUID | None) -> Purchase | None:
        """Whose payment it is: told by who knows, by its metadata, or by its invoice."""
        if order_id is not None:
            return await self.purchases.find(order_id)
        if payment.invoice_id is None or read_purchase_id(payment.metadata):
            return await self._find_order(payment.id, payment.metadata)
        invoice = await self.stripe.find_invoice(payment.invoice_id)
        return await self._find_order(payment.invoice_id, invoice.metadata if invoice else {})

    async def _find_order(self, reference: str, metadata: Mapping[str, str]) -> Purchase | None:
        order = await self.purchases.find_by_reference(reference)
        purchase_id = read_purchase_id(metadata)
        if order is not None or purchase_id is None:
            return order
        order = await self.purchases.find(purchase_id)
        if order is None:
            logger.warning(
                "an order that Stripe knows is not there: its user may have been deleted",
                extra={"purchase": str(purchase_id), "reference": reference},
            )
        return order

    async def _find_customer_id(self, order: Purchase) -> str | None:
        if order.stripe_customer_id is not None:
            return order.stripe_customer_id
        customer = await self.customers.find(order.user_id)
        return customer.customer_id if customer else None

    async def _refuse(self, order: Purchase, entity: tuple[str, str], reason: str) -> Outcome:
        """Told once, however often it is found again."""
        entry = self._build_refusal(order.user_id, entity, reason, purchase_id=str(order.id))
        if await self.purchases.refuse(order.id, f"{entity[1]}: {reason}", entry):
            extra = {"purchase_id": str(order.id), "entity": entity[1], "reason": reason}
            logger.error("Stripe contradicts an order: nothing was booked", extra=extra)
        return "refused"

    async def _refuse_setup(self, user_id: UUID, session: Session, reason: str) -> Outcome:
        entry = self._build_refusal(user_id, ("checkout_session", session.id), reason)
        if await self.purchases.end_setup_session(user_id, session.id, entry):
            logger.error("a card that was left is not used", extra={"session": session.id, "reason": reason})
        return "refused"

    def _build_refusal(self, user_id: UUID, entity: tuple[str, str], reason: str, **details: str) -> AuditEntry:
        return self.auditor.build_entry(
            "purchase_refused", "refused", actor="system", subject_id=user_id, entity=entity, reason=reason, **details
        )

    def _build_entry(self, action: str, purchase: Purchase) -> AuditEntry:
        return self.auditor.build_entry(
            action,
            "success",
            actor="system",
            subject_id=purchase.user_id,
            entity=("payment_intent", purchase.stripe_payment_intent_id or ""),
            purchase_id=str(purchase.id),
            kind=purchase.kind,
            gross_cents=purchase.gross_cents,
            net_cents=purchase.net_cents,
            total_cents=purchase.total_cents,
            refunded_cents=purchase.refunded_cents,
            disputed_cents=purchase.disputed_cents,
            taken_back_usd=str(purchase.taken_back_usd),
        )
