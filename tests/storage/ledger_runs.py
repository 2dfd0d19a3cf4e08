"""Driving the accounts: Trio in a thread of its own, several steps at once, and steps that are cut in the middle."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import trio

from server.auditor import Auditor
from server.billing.payments import Payments
from storage.audit import AuditLog
from storage.billing_customers import BillingCustomers
from storage.errors import DatabaseUnavailable
from storage.postgres import open_database
from storage.purchases import Purchases
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.storage.ledger_model import Books
from tests.storage.ledger_steps import CUSTOMER, Expire, Stage, Step
from tests.storage.people import Query

Result = TypeVar("Result")

STEP_SECONDS = 30


@asynccontextmanager
async def open_stage(database_url: str, query: Query) -> AsyncIterator[Stage]:
    async with open_database(database_url, size=6) as database:
        audit = AuditLog(database, "test", "a" * 32)
        stripe = FakeStripeApi()
        stripe.add_customer(CUSTOMER)
        stripe.tax_percent = 19
        purchases = Purchases(database, audit)
        payments = Payments(stripe, purchases, BillingCustomers(database), Auditor(audit))
        yield Stage(database, stripe, purchases, payments, query)


class Loop:
    """Trio in a thread of its own, for as long as an example takes."""

    def __init__(self, open_stage: Callable[[], Any]) -> None:
        self._open_stage = open_stage
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._live,))
        self._thread.start()
        assert self._is_ready.wait(STEP_SECONDS)

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._is_over = trio.Event()
        async with self._open_stage() as self.stage:
            self._is_ready.set()
            await self._is_over.wait()

    def run(self, function: Callable[..., Awaitable[Result]], *arguments: object) -> Result:
        async def run() -> Result:
            with trio.fail_after(STEP_SECONDS):
                return await function(*arguments)

        return trio.from_thread.run(run, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._is_over.set, trio_token=self._token)
        self._thread.join()


class Scissors(trio.abc.Instrument):
    """Cut once, before the task goes on for the n-th time."""

    def __init__(self, task: trio.lowlevel.Task, number: int, cut: Callable[[], object]) -> None:
        self.task, self.number, self.cut = task, number, cut

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.number -= 1
            if self.number == 0:
                self.cut()


async def run_cut(step: Step, stage: Stage, number: int, kill: Callable[[], None] | None) -> bool:
    """Cancelled at its n-th await, or its connections killed there. Whether it came to its end all the same."""
    with trio.CancelScope() as scope:
        scissors = Scissors(trio.lowlevel.current_task(), number, kill or scope.cancel)
        trio.lowlevel.add_instrument(scissors)
        try:
            with suppress(DatabaseUnavailable):
                await step.run(stage)
                return True
        finally:
            trio.lowlevel.remove_instrument(scissors)
    return False


async def run_at_once(steps: Sequence[Step], stage: Stage) -> list[object]:
    results: list[object] = [None] * len(steps)

    async def run(place: int, step: Step) -> None:
        results[place] = await step.run(stage)

    async with trio.open_nursery() as nursery:
        for place, step in enumerate(steps):
            nursery.start_soon(run, place, step)
    return results


def find_order(books: Books, steps: Sequence[tuple[Step, object]], told: dict[str, Any]) -> Books | None:
    """The books after the steps, in an order in which they would have said what they said, and left what they left."""
    if not steps:
        return books if books.tell() == told else None
    for place, (step, result) in enumerate(steps):
        rest = [*steps[:place], *steps[place + 1 :]]
        for after in _take(step, result, books):
            if (found := find_order(after, rest, told)) is not None:
                return found
    return None


def _take(step: Step, result: object, books: Books) -> Sequence[Books]:
    """Alone, the end of credits takes all; beside others, it may pass by."""
    if isinstance(step, Expire):
        return step.ways(books)
    after = books.copy()
    return [after] if step.apply(after) == result else []
