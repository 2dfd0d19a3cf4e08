"""What is left when a payment is read and booked and something breaks off: the next one who tries makes it whole."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from server.errors import StripeUnavailable
from tests.server.billing.payments_stage import Shop

CALLS = 5
"""Of Stripe, for a session that was paid by somebody without a default card."""


class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope when its task has been given the processor so many times."""

    def __init__(self, step: int) -> None:
        self.steps_left = step
        self.scope = trio.CancelScope()
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps_left -= 1
            if self.steps_left == 0:
                self.scope.cancel()


async def run_until_step(step: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Whether it was cut short."""
    instrument = CancelAtStep(step)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            await work()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return instrument.scope.cancelled_caught


async def count_rows(shop: Shop) -> int:
    ((count,),) = await shop.database.as_operator("test").fetch("SELECT count(*) FROM credit_ledger")
    return int(count)


@pytest.mark.parametrize("is_answer_lost", [False, True])
async def test_whatever_stripe_does_not_answer_the_next_try_makes_whole(shop: Shop, is_answer_lost: bool) -> None:
    for number in range(1, CALLS + 1):
        customer_id = f"cus_{number}"
        buyer = await shop.make_buyer(customer_id, has_card=False)
        _, session = await shop.check_out(buyer)
        shop.stripe.complete_session(session.id)
        shop.stripe.calls.clear()
        shop.stripe.fail_at(number, StripeUnavailable("Stripe does not answer"), after_effect=is_answer_lost)
        with pytest.raises(StripeUnavailable):
            await shop.payments.sync_session(session.id)
        assert len(shop.stripe.calls) == number
        await shop.payments.sync_session(session.id)
        assert await shop.read_balance(buyer) == 8
        assert shop.stripe.customers[customer_id].default_payment_method == "pm_1"
    assert await count_rows(shop) == CALLS


async def test_whoever_is_cancelled_at_any_await_leaves_all_or_nothing(shop: Shop) -> None:
    """A payment of which a part had gone back: booked and taken back, each once, with its row in the audit log."""
    step = 0
    is_cut = True
    while is_cut:
        step += 1
        buyer = await shop.make_buyer(f"cus_{step}")
        order, payment = await shop.buy(buyer)
        shop.stripe.change_payment(payment.id, refunded_cents=250)
        is_cut = await run_until_step(step, partial(shop.payments.sync_payment, payment.id))
        assert await shop.read_balance(buyer) in {0, 8, 6}
        await shop.payments.sync_payment(payment.id)
        assert await shop.read_balance(buyer) == 6
        assert (await shop.find(order)).bookings == 2
    assert step > 10
    assert await count_rows(shop) == 2 * step
    assert len(await shop.read_audit()) == 2 * step
