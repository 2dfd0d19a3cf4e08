"""Stripe's events: stored before they are answered, and then worked on until each has come to its end.

Whoever works on an event has it for a while, so that those of a process that was killed come back. An event that fails
is tried again after pauses that grow, for three days, as long as Stripe itself would try.
"""

import logging
from dataclasses import dataclass

import trio

from server.auditor import Auditor
from server.billing.event_reading import ForgetCustomer, LookAt, NoteCard, find_errand, read_event
from server.billing.payments import Outcome, Payments
from server.errors import StripeRefused, StripeUnavailable
from storage.billing_customers import BillingCustomers
from storage.errors import StorageError
from storage.stripe_events import EndState, StripeEvent, StripeEvents, finish_event

WORKERS = 3
"""Events that one process works on at a time: one of them asks Stripe a few times and waits for it."""
EVENT_SECONDS = 60
LEASE_SECONDS = 90
POLL_SECONDS = 5
"""How soon an event is found that another process took in, or left behind."""
FIRST_PAUSE_SECONDS = 5
LONGEST_PAUSE_SECONDS = 6 * 3600
MAX_ATTEMPTS = 25
"""Three days, by these pauses."""

_END_STATES: dict[Outcome, EndState] = {
    "booked": "done",
    "unchanged": "done",
    "not_ours": "ignored",
    "refused": "refused",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """`is_noted`: the end was written in the transaction of the event's effect."""

    state: EndState
    error: str = ""
    is_noted: bool = False


class Inbox:
    def __init__(
        self, events: StripeEvents, payments: Payments, customers: BillingCustomers, auditor: Auditor
    ) -> None:
        self._events = events
        self._payments = payments
        self._customers = customers
        self._auditor = auditor
        self._arrival = trio.Event()

    async def take(self, event_id: str, type_: str, payload: bytes) -> bool:
        """An event whose signature holds; when this returns it is stored. False if it was before. Raises StorageError,
        and then Stripe has to send it again.
        """
        is_new = await self._events.store(event_id, type_, payload)
        self._arrival.set()
        return is_new

    async def keep_working(self) -> None:
        """Never returns. As many as are started work side by side."""
        while True:
            arrival = self._wait_anew()
            if not await self._try_to_work():
                with trio.move_on_after(POLL_SECONDS):
                    await arrival.wait()

    async def work_once(self) -> bool:
        """Work on the event that is due the longest. False if none is. Raises StorageError if it cannot be claimed or
        ended; then it comes back.
        """
        claimed = await self._events.claim_due(1, LEASE_SECONDS)
        for event in claimed:
            await self._work_on(event)
        return bool(claimed)

    def _wait_anew(self) -> trio.Event:
        """What arrives from now on sets this; it is taken before looking for events, so that none is overlooked."""
        if self._arrival.is_set():
            self._arrival = trio.Event()
        return self._arrival

    async def _try_to_work(self) -> bool:
        try:
            return await self.work_once()
        except StorageError as error:
            logger.warning("Stripe's events could not be worked on, and will be: %s", error)
            return False

    async def _work_on(self, event: StripeEvent) -> None:
        try:
            with trio.fail_after(EVENT_SECONDS):
                ended = await self._carry_out(event)
        except (StripeUnavailable, StripeRefused, StorageError, trio.TooSlowError) as error:
            await self._put_off(event, f"{type(error).__name__}: {error}")
        except Exception as error:  # the task's edge: one event must not keep the others from their turn
            logger.exception("an event of Stripe's met a fault of ours", extra=_describe(event))
            await self._put_off(event, type(error).__name__)
        else:
            if not ended.is_noted:
                await self._events.finish(event.id, ended.state, ended.error)

    async def _carry_out(self, event: StripeEvent) -> Ended:
        errand = find_errand(read_event(event.payload))
        match errand:
            case LookAt():
                outcome = await self._look_at(errand)
                return Ended(_END_STATES[outcome], "it contradicts our order" if outcome == "refused" else "")
            case NoteCard():
                return await self._note_card(event, errand)
            case ForgetCustomer():
                is_ours = await self._customers.forget(errand.customer_id)
                return Ended("done" if is_ours else "ignored")
            case None:
                return Ended("ignored")

    async def _look_at(self, errand: LookAt) -> Outcome:
        match errand.what:
            case "session":
                return await self._payments.sync_session(errand.id)
            case "payment":
                return await self._payments.sync_payment(errand.id)
            case "charge":
                payment_id = await self._payments.stripe.find_charge_payment(errand.id)
                return "not_ours" if payment_id is None else await self._payments.sync_payment(payment_id)
            case "invoice":
                outcome = await self._payments.sync_invoice(errand.id)
        if outcome == "not_ours" and errand.payment_id is not None:
            return await self._payments.sync_payment(errand.payment_id)  # the receipt of a checkout is an invoice too
        return outcome

    async def _note_card(self, event: StripeEvent, errand: NoteCard) -> Ended:
        """Told once, however often the event is worked on: its end is in the same transaction."""
        user_id = await self._customers.find_user(errand.customer_id)
        if user_id is None:
            return Ended("ignored")
        method = ("payment_method", errand.payment_method_id)
        entry = self._auditor.build_entry(errand.action, "success", actor="system", subject_id=user_id, entity=method)
        async with self._events.database.as_operator("note a payment method").transaction() as connection:
            if await finish_event(connection, event.id, "done"):
                await self._auditor.log.append(connection, entry)
        return Ended("done", is_noted=True)

    async def _put_off(self, event: StripeEvent, error: str) -> None:
        pause_seconds = find_pause_seconds(event.attempts)
        if pause_seconds is None:
            logger.error("an event of Stripe's failed for good: somebody has to look", extra=_describe(event, error))
            await self._events.finish(event.id, "failed", error)
        else:
            logger.warning("an event of Stripe's will be tried again", extra=_describe(event, error))
            await self._events.retry_later(event.id, pause_seconds, error)


def find_pause_seconds(attempts: int) -> float | None:
    """After so many attempts; None: it was the last one."""
    if attempts >= MAX_ATTEMPTS:
        return None
    return float(min(FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), LONGEST_PAUSE_SECONDS))


def _describe(event: StripeEvent, reason: str = "") -> dict[str, object]:
    """For the log: nothing of the payload."""
    return {"event_id": event.id, "event_type": event.type, "attempts": event.attempts, "reason": reason}
