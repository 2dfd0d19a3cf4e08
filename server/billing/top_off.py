"""Auto top-off: credits that run low are bought with the card on file, while nobody is there.

A round finds a user below the threshold and opens an order; whoever gets the order's lease carries it out, from
wherever it has come to. So an attempt that was abandoned anywhere, by `kill -9` too, is carried on by any process. That
nobody pays twice does not rest on the lease alone:

* There is one open order for a user, and it is opened only while its credits are low, asked under a lock.
* One order has one invoice: what makes it has the order's idempotency key, its id is noted before it becomes payable,
  and Stripe takes one payment for an invoice.
* An order ends only when its invoice is paid, void, or was never noted: such a draft nobody can pay, for it is not
  collected by itself. An order is given up long before Stripe forgets idempotency keys, which is after 24 hours:
  https://docs.stripe.com/api/idempotent_requests
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import trio

from server.auditor import Auditor
from server.billing.customers import Customers
from server.billing.payments import Payments
from server.billing.stripe_api import CheckoutOrder, Invoice, StripeApi
from server.billing.terms import PurchaseRefused
from server.billing.terms_reader import TermsReader
from server.billing.top_off_rules import (
    AMOUNT_REFUSED,
    MAX_PER_DAY_KEY,
    NO_ADDRESS,
    NO_PAYMENT_METHOD,
    NOT_WANTED,
    OUT_OF_TIME,
    REDUCED,
    RETURNED,
    VOIDED,
    find_pause_seconds,
    find_poll_seconds,
    is_out_of_time,
    read_max_per_day,
    read_refusal,
)
from server.errors import StripeRefused, StripeUnavailable
from storage.audit import AuditEntry
from storage.billing_notices import BillingNotices
from storage.errors import StorageError
from storage.purchases import Purchases
from storage.top_offs import DueTopOff, Failed, Failure, OpenTopOff, TopOffTable

WORKERS = 2
"""In each process: one order takes half a dozen exchanges with Stripe."""
ATTEMPT_SECONDS = 100.0
"""Less than an order is leased for."""
DAY_PAUSE_SECONDS = 3600.0
"""Of a user who has had all the top-offs of a day."""
BANK_SECONDS = 3600.0
"""Until we look again after a payment that its bank takes days for: an event of Stripe's says so at once."""
STUCK_SECONDS = 6 * 3600.0
"""Until we look again at an order that only people can put right."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TopOffs:
    table: TopOffTable
    stripe: StripeApi
    customers: Customers
    purchases: Purchases
    payments: Payments
    terms: TermsReader
    notices: BillingNotices
    auditor: Auditor
    _woken: trio.Event = field(default_factory=trio.Event, init=False, repr=False)

    def wake(self) -> None:
        """Somebody's settings were changed: look now."""
        self._woken.set()
        self._woken = trio.Event()

    async def keep_topping_off(self) -> None:
        """Never returns. May run more than once, here and in other processes; each carries out one order at a time."""
        while True:
            woken = self._woken
            looked_seconds = await self._work()
            with trio.move_on_after(find_poll_seconds(looked_seconds)):
                await woken.wait()

    async def take_step(self) -> bool:
        """Open an order for one user, and carry one order out. False if there was nothing to do."""
        due = await self.table.claim_due()
        if due is not None:
            await self._begin(due)
        order = await self.table.lease_open()
        if order is not None:
            await self._carry_out(order)
        return due is not None or order is not None

    async def _work(self) -> float:
        """What goes wrong with one user waits until its claim or lease is over, and keeps no other waiting. Returns how
        long it took to find that there is nothing to do.
        """
        try:
            began = trio.current_time()
            while await self.take_step():
                began = trio.current_time()
            return trio.current_time() - began
        except StorageError:
            logger.warning("credits could not be topped off; the next round tries again", exc_info=True)
        except Exception:  # the edge of a task: one order that we cannot handle must not end the server
            logger.exception("a top-off failed in our own code")
        return 0.0

    async def _begin(self, due: DueTopOff) -> None:
        if due.attempts_today >= await self._read_max_per_day():
            await self._pause(due)
            return
        try:
            quote = (await self.terms.read()).quote(due.amount_usd)
            with trio.fail_after(ATTEMPT_SECONDS):
                obstacle = await self._find_obstacle(due)
        except PurchaseRefused:
            await self._fail_before(due, AMOUNT_REFUSED)
        except StripeRefused as error:
            await self._fail_before(due, read_refusal(error))
        except (StripeUnavailable, trio.TooSlowError):
            logger.warning("a top-off waits for Stripe", extra={"user_id": due.user_id})
        else:
            if obstacle is not None:
                await self._fail_before(due, obstacle)
            else:
                await self.table.open(uuid4(), due, (quote.gross_cents, quote.fee_cents, quote.net_cents))

    async def _find_obstacle(self, due: DueTopOff) -> Failure | None:
        """A user whose payment methods are all no default gets the first of them."""
        if due.has_returned:
            return RETURNED
        standing = await self.customers.find_standing(due.user_id)
        if standing.customer is None:
            return NO_PAYMENT_METHOD
        if standing.readiness.needs_payment_method:
            methods = await self.stripe.list_payment_methods(standing.customer.id)
            if not methods:
                return NO_PAYMENT_METHOD
            await self.stripe.set_default_payment_method(standing.customer.id, methods[0].id)
        return NO_ADDRESS if standing.readiness.needs_billing_info else None

    async def _pause(self, due: DueTopOff) -> None:
        await self.table.pause(due.user_id, DAY_PAUSE_SECONDS)
        key = f"top_off_paused:{datetime.now(UTC):%Y-%m-%d}"
        await self.notices.add(due.user_id, "top_off_paused", key, {"attempts": due.attempts_today})

    async def _carry_out(self, order: OpenTopOff) -> None:
        """Stripe's absence is no failure: the order waits, and is given up when it is out of time."""
        try:
            with trio.fail_after(ATTEMPT_SECONDS):
                await self._proceed(order)
        except (StripeUnavailable, trio.TooSlowError):
            seconds = find_pause_seconds(order.age_seconds)
            logger.warning("a top-off waits for Stripe", extra={"purchase_id": order.id, "seconds": seconds})
            await self.table.postpone(order.id, seconds)

    async def _proceed(self, order: OpenTopOff) -> None:
        if order.failure is not None:
            await self._wind_up(order)
        elif not order.is_wanted:
            await self._give_up(order, NOT_WANTED)
        elif is_out_of_time(order.age_seconds):
            await self._give_up(order, OUT_OF_TIME)
        else:
            await self._buy(order)

    async def _buy(self, order: OpenTopOff) -> None:
        try:
            invoice = await self._find_or_make_invoice(order)
            if invoice.status == "draft" and not invoice.is_reduced:
                invoice = await self.stripe.finalize_invoice(invoice.id)
            if invoice.status == "open" and not invoice.is_reduced:
                invoice = await self.stripe.pay_invoice(invoice.id, f"{order.id}:pay")
        except StripeRefused as error:
            logger.warning("Stripe refused a top-off", extra={"purchase_id": order.id, "code": error.code})
            await self._give_up(order, read_refusal(error))
            return
        if invoice.status == "paid":
            await self._book(order, invoice.id)
        elif invoice.is_reduced and invoice.status in {"draft", "open"}:
            await self._give_up(order, REDUCED)
        elif invoice.status == "open":
            await self.table.postpone(order.id, BANK_SECONDS)
        else:
            await self._give_up(order, VOIDED)

    async def _find_or_make_invoice(self, order: OpenTopOff) -> Invoice:
        if order.invoice_id is None:
            return await self._make_invoice(order)
        invoice = await self.stripe.find_invoice(order.invoice_id)
        if invoice is None:
            raise StripeRefused("the draft of the invoice was deleted", "resource_missing")
        return invoice

    async def _make_invoice(self, order: OpenTopOff) -> Invoice:
        """It is payable only once our order knows it. If that has ended, or is given up by somebody who took us for
        dead, the invoice is void.
        """
        if order.customer_id is None:
            raise StripeRefused("there is no customer any more", "resource_missing")
        invoice = await self.stripe.create_invoice(
            CheckoutOrder(
                purchase_id=order.id,
                user_id=order.user_id,
                customer_id=order.customer_id,
                gross_cents=order.gross_cents,
                fee_cents=order.fee_cents,
                net_cents=order.net_cents,
            )
        )
        await self.purchases.note_invoice(order.id, invoice.id, order.customer_id)
        noted = await self.purchases.find(order.id)
        if noted is not None and noted.stripe_invoice_id == invoice.id and noted.state == "open" and not noted.failure:
            return invoice
        return await self.stripe.void_invoice(invoice.id)

    async def _give_up(self, order: OpenTopOff, failure: Failure) -> None:
        """Unless the money has come, or is on its way. That the order failed is noted first, so that whoever takes over
        goes on with its end, and not with the payment.
        """
        invoice = await self._find_invoice(order)
        if invoice is not None and invoice.status == "paid":
            await self._book(order, invoice.id)
        elif invoice is not None and await self._is_under_way(invoice):
            await self.table.postpone(order.id, BANK_SECONDS)
        elif await self.table.fail(order, failure, lambda failed: self._build_entry(failed, failure, str(order.id))):
            logger.warning("a top-off failed", extra={"purchase_id": order.id, "reason": failure.reason})
            await self._wind_up(order)

    async def _wind_up(self, order: OpenTopOff) -> None:
        """See to it that nobody can pay the invoice any more, then end the order."""
        known = await self.purchases.find(order.id)
        invoice_id = known.stripe_invoice_id if known else None
        invoice = await self._make_void(invoice_id) if invoice_id else None
        if invoice is None or invoice.status == "void":
            await self.table.end(order.id, invoice_id)
        elif invoice.status == "paid":
            await self._book(order, invoice.id)
        else:
            extra = {"purchase_id": order.id, "status": invoice.status}
            logger.error("the invoice of a failed top-off cannot be made void", extra=extra)
            await self.table.postpone(order.id, STUCK_SECONDS)

    async def _make_void(self, invoice_id: str) -> Invoice | None:
        """As it is then; None if it is no more."""
        with suppress(StripeRefused):
            return await self.stripe.void_invoice(invoice_id)
        return await self.stripe.find_invoice(invoice_id)

    async def _book(self, order: OpenTopOff, invoice_id: str) -> None:
        """An event of Stripe's may have done so before. The notice may be missing if we are killed here."""
        outcome = await self.payments.sync_invoice(invoice_id)
        bought = await self.purchases.find(order.id)
        if bought is None or bought.state != "paid":
            logger.error("a top-off was paid and is not booked", extra={"purchase_id": order.id, "outcome": outcome})
            await self.table.postpone(order.id, STUCK_SECONDS)
            return
        details = {"amountUsd": _write_usd(bought.gross_cents), "creditsUsd": _write_usd(bought.net_cents)}
        await self.notices.add(order.user_id, "top_off_succeeded", f"top_off_succeeded:{order.id}", details)

    async def _find_invoice(self, order: OpenTopOff) -> Invoice | None:
        known = await self.purchases.find(order.id)
        if known is None or known.stripe_invoice_id is None:
            return None
        return await self.stripe.find_invoice(known.stripe_invoice_id)

    async def _is_under_way(self, invoice: Invoice) -> bool:
        """Whether its bank takes its time, as with direct debits:
        https://docs.stripe.com/payments/paymentintents/lifecycle
        """
        if invoice.status != "open" or invoice.payment_intent_id is None:
            return False
        payment = await self.stripe.find_payment(invoice.payment_intent_id)
        return payment is not None and payment.status == "processing"

    async def _fail_before(self, due: DueTopOff, failure: Failure) -> None:
        attempt_id = uuid4()
        await self.table.fail_before(
            due, attempt_id, failure, lambda failed: self._build_entry(failed, failure, str(attempt_id))
        )
        logger.warning("a top-off could not begin", extra={"user_id": due.user_id, "reason": failure.reason})

    async def _read_max_per_day(self) -> int:
        return read_max_per_day(await self.terms.configuration.read([MAX_PER_DAY_KEY]))

    def _build_entry(self, failed: Failed, failure: Failure, attempt_id: str) -> AuditEntry:
        return self.auditor.build_entry(
            "auto_top_off_failed",
            "failed",
            actor="system",
            subject_id=failed.user_id,
            entity=("top_off", attempt_id),
            reason=failure.reason,
            failures=failed.failures,
            turned_off=failed.turned_off,
        )


def _write_usd(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
