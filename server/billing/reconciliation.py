"""Does everything add up? The accounts among themselves, and with what Stripe knows; once an hour, by one process."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from server.billing.payment_check import PaymentCheck
from server.billing.report import Report, StripeFindings, build_figures
from server.errors import ServerError
from storage.errors import StorageError
from storage.reconciliation import Reconciliations

PERIOD_SECONDS = 3600.0
LOOK_SECONDS = 60.0
"""How often a process looks whether it is time."""
DAYS = 3
"""Of payments that the hourly run compares; Stripe repeats its events for as long."""
SWEEP_LIMIT = 500
STRIPE_SECONDS = 900

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """`sweep_open` ends purchases that nobody paid, so many at most; `sells`: whether there is a Stripe to ask."""

    books: Reconciliations
    check: PaymentCheck
    sweep_open: Callable[[int], Awaitable[int]]
    sells: bool
    lease_seconds: int

    async def run(self, days: int = DAYS, *, asks_stripe: bool = True, repair: bool = False) -> Report:
        """Stripe first, so that the books are read with what was repaired. Raises StorageError; what Stripe does not
        answer is told in the report.
        """
        stripe: StripeFindings | None = None
        failure, ended = "", 0
        if asks_stripe and self.sells:
            try:
                with trio.fail_after(STRIPE_SECONDS):
                    stripe = await self.check.run(days, repair=repair)
                    ended = await self.sweep_open(SWEEP_LIMIT) if repair else 0
            except trio.TooSlowError:
                failure = f"it took more than {STRIPE_SECONDS} seconds"
            except ServerError as error:
                failure = str(error)
        return Report(await self.books.examine(self.lease_seconds), stripe, failure, ended)

    async def keep_reconciled(self) -> None:
        """Never returns. On every process; the one that comes first does it, and repairs."""
        while True:
            try:
                await self.run_if_due()
            except StorageError:
                logger.warning("the accounts could not be reconciled; it is tried again", exc_info=True)
            await trio.sleep(LOOK_SECONDS)

    async def run_if_due(self) -> Report | None:
        """None if it was done within the period. What was found is kept, and drift is an error in the log."""
        number = await self.books.claim(PERIOD_SECONDS)
        if number is None:
            return None
        report = await self.run(repair=True)
        figures = build_figures(report)
        await self.books.keep(number, figures)
        if report.is_clean:
            logger.info("the accounts were reconciled", extra={"figures": figures})
        else:
            logger.error("the accounts do not add up: run python -m scripts.reconcile", extra={"figures": figures})
        if report.stripe_failure:
            logger.warning("Stripe could not be compared with the ledger: %s", report.stripe_failure)
        return report
