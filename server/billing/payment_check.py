"""Stripe against our books: every payment of the last days, and every purchase that we booked in them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from server.billing.order_checks import read_purchase_id
from server.billing.payments import Payments
from server.billing.report import PaymentProblem, StripeFindings
from server.billing.stripe_api import StripeApi
from server.billing.stripe_objects import Payment
from storage.purchases import Purchase, PurchaseChanged, Purchases
from storage.reconciliation import PaidOrder, Reconciliations

GRACE_MINUTES = 10
"""A payment that is younger may not have been booked yet: its event is on its way."""


@dataclass(slots=True)
class _Tally:
    payments: int = 0
    of_gone_users: int = 0
    problems: list[PaymentProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PaymentCheck:
    stripe: StripeApi
    purchases: Purchases
    payments: Payments
    books: Reconciliations

    async def run(self, days: int, *, repair: bool) -> StripeFindings:
        """Compare. What differs is looked at once more, for servers go on booking meanwhile; with `repair` it is then
        brought into the ledger, as an event would have done it, and told all the same. Safe to repeat, beside events.

        The payments of all these days are kept in memory. Raises StripeUnavailable, StripeRefused, StripeNotConfigured
        and StorageError.
        """
        now = datetime.now(UTC)
        since = now - timedelta(days=days)
        orders = {order.payment_intent_id: order for order in await self.books.find_paid(since)}
        listed = [payment async for payment in self.stripe.list_payments(since) if payment.status == "succeeded"]
        tally, young = _Tally(payments=len(orders)), (now - timedelta(minutes=GRACE_MINUTES)).timestamp()
        for payment in listed:
            order = orders.pop(payment.id, None)
            if (order is None and payment.created < young) or (order is not None and find_difference(order, payment)):
                await self._look_closely(payment, tally, repair=repair)
        for order in orders.values():  # their payments began before these days, or are not there
            await self._find_payment_of(order, tally, repair=repair)
        return StripeFindings(tally.payments, tally.of_gone_users, tally.problems)

    async def _find_payment_of(self, order: PaidOrder, tally: _Tally, *, repair: bool) -> None:
        payment = await self.stripe.find_payment(order.payment_intent_id)
        if payment is None or payment.status != "succeeded":
            text = f"purchase {order.id} was booked, and Stripe knows of no such payment"
            tally.problems.append(PaymentProblem(order.payment_intent_id, text))
        elif find_difference(order, payment):
            await self._look_closely(payment, tally, repair=repair)

    async def _look_closely(self, payment: Payment, tally: _Tally, *, repair: bool) -> None:
        text = await self._find_problem(payment.id, tally)
        if text is None:
            return
        is_repaired = repair and await self._repair(payment.id)
        tally.problems.append(PaymentProblem(payment.id, text, is_repaired))

    async def _repair(self, payment_intent_id: str) -> bool:
        try:
            outcome = await self.payments.sync_payment(payment_intent_id)
        except PurchaseChanged:  # by somebody else, again and again: the next run sees what came of it
            return False
        return outcome in {"booked", "unchanged"} and await self._find_problem(payment_intent_id, _Tally()) is None

    async def _find_problem(self, payment_intent_id: str, tally: _Tally) -> str | None:
        """Our side and Stripe's as both are now."""
        payment = await self.stripe.find_payment(payment_intent_id)
        order = await self.purchases.find_by_reference(payment_intent_id)
        if payment is None:
            return None
        if order is not None and (paid := read_paid(order)) is not None:
            return find_difference(paid, payment)
        purchase_id, user_id = await self._find_names(payment)
        if purchase_id is None:
            return None
        if await self.purchases.find(purchase_id) is not None:
            return f"{payment.received_cents} {payment.currency} cents came in for purchase {purchase_id}, not booked"
        if user_id is not None and not await self.books.find_users([user_id]):
            tally.of_gone_users += 1
            return None
        return f"it names purchase {purchase_id}, which is not in our books"

    async def _find_names(self, payment: Payment) -> tuple[UUID | None, UUID | None]:
        """The purchase and the user that the payment, or its invoice, was made for; None for what is not ours."""
        metadata = payment.metadata
        if read_purchase_id(metadata) is None and payment.invoice_id is not None:
            invoice = await self.stripe.find_invoice(payment.invoice_id)
            metadata = invoice.metadata if invoice is not None else {}
        return read_purchase_id(metadata), read_uuid(metadata.get("user_id", ""))


def find_difference(order: PaidOrder, payment: Payment) -> str | None:
    """What was booked, and what Stripe says: cents that came in, were refunded, and are disputed."""
    booked = (order.total_cents, order.refunded_cents, order.disputed_cents)
    told = (payment.received_cents, payment.refunded_cents, payment.disputed_cents)
    if booked == told:
        return None
    names = ("received", "refunded", "disputed")
    pairs = zip(names, booked, told, strict=True)
    told_otherwise = [f"{name} {ours}, Stripe says {theirs}" for name, ours, theirs in pairs if ours != theirs]
    return f"purchase {order.id}: {'; '.join(told_otherwise)} (cents)"


def read_paid(purchase: Purchase) -> PaidOrder | None:
    """None for one that was not paid."""
    if purchase.state != "paid" or purchase.total_cents is None or purchase.stripe_payment_intent_id is None:
        return None
    payment_intent_id, total_cents = purchase.stripe_payment_intent_id, purchase.total_cents
    return PaidOrder(purchase.id, payment_intent_id, total_cents, purchase.refunded_cents, purchase.disputed_cents)


def read_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
