"""Auto top-off: credits that run low are bought once, whoever is killed where, and nobody is charged twice.

Stripe is played in memory here; tests/end_to_end/test_top_off.py asks one that nobody here wrote.
"""

from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from itertools import product
from uuid import UUID

import pytest
import trio

from server.errors import StripeUnavailable
from tests.server.billing.stripe_objects import build_card
from tests.server.billing.top_off_stage import Interruption, Stage, open_stage, work, work_and_be_killed
from tests.storage.top_offs import set_top_off

AFTER = Decimal(9)
"""One US dollar that was there, and eight of the ten that were paid."""
CALLS = (
    *("find_customer", "list_payment_methods", "create_invoice", "finalize_invoice", "pay_invoice"),
    *("find_invoice", "find_payment"),
)
"""What a top-off asks of Stripe when nothing is in its way."""


@pytest.fixture
async def stage(database_url: str, owner_database_url: str) -> AsyncIterator[Stage]:
    with trio.fail_after(120):
        async with open_stage(database_url, owner_database_url) as stage:
            yield stage


def assert_paid_once(stage: Stage, user_id: UUID, where: object = "") -> None:
    assert stage.statuses_of(user_id) == ["paid"], where
    assert stage.orders_of(user_id) == [("paid", None)], where


async def test_credits_that_run_low_are_bought_and_the_user_is_told(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    await work(stage.start_process())
    assert await stage.balance(user_id) == AFTER
    assert_paid_once(stage, user_id)
    assert tuple(stage.stripe.calls) == CALLS
    (notice,) = await stage.notices(user_id)
    assert (notice.kind, notice.details) == ("top_off_succeeded", {"amountUsd": "10.00", "creditsUsd": "8.00"})


async def test_taxes_are_paid_and_are_no_credits(stage: Stage) -> None:
    stage.stripe.tax_percent = 19
    user_id = await stage.make_poor_user()
    await work(stage.start_process())
    assert await stage.balance(user_id) == AFTER
    assert [invoice.paid_cents for invoice in stage.invoices_of(user_id)] == [1190]


async def test_fees_are_those_of_the_tier(stage: Stage) -> None:
    for amount_usd, net_usd in [("10", "8.00"), ("12", "10.80"), ("99", "94.05"), ("98.99", "89.10")]:
        user_id = await stage.make_poor_user()
        await set_top_off(stage.database, user_id, amount_usd=amount_usd)
        await work(stage.start_process())
        assert await stage.balance(user_id) == 1 + Decimal(net_usd)
        assert [invoice.subtotal_cents for invoice in stage.invoices_of(user_id)] == [Decimal(amount_usd) * 100]


async def test_a_card_that_is_no_default_becomes_it(stage: Stage) -> None:
    user_id = await stage.make_poor_user(has_card=False)
    customer_id = stage.customer_of(user_id)
    stage.stripe.payment_methods[customer_id] = [build_card("pm_a"), build_card("pm_b")]
    await work(stage.start_process())
    assert stage.stripe.customers[customer_id].default_payment_method == "pm_a"
    assert_paid_once(stage, user_id)


async def test_killed_at_any_step_it_is_carried_on_and_paid_once(stage: Stage) -> None:
    step, was_killed = 0, True
    while was_killed:
        step += 1
        user_id = await stage.make_poor_user()
        was_killed = await work_and_be_killed(stage.start_process(), step)
        stage.let_time_pass()
        await work(stage.start_process())
        assert await stage.balance(user_id) == AFTER, f"killed at step {step}"
        assert_paid_once(stage, user_id, f"killed at step {step}")
    assert step > 30


async def test_killed_again_and_again_it_is_paid_once(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    step = 8
    while await work_and_be_killed(stage.start_process(), step):
        step += 1
        stage.let_time_pass()
    assert await stage.balance(user_id) == AFTER
    assert_paid_once(stage, user_id)


async def test_whatever_answer_of_stripe_is_lost_it_is_paid_once(stage: Stage) -> None:
    for (number, name), after_effect in product(enumerate(CALLS, start=1), (False, True)):
        user_id = await stage.make_poor_user()
        error = StripeUnavailable("Stripe cannot be reached")
        stage.stripe.fail_at(len(stage.stripe.calls) + number, error, after_effect=after_effect)
        await work(stage.start_process())
        stage.let_time_pass()
        await work(stage.start_process())
        assert await stage.balance(user_id) == AFTER, name
        assert_paid_once(stage, user_id, name)
        assert stage.settings_of(user_id) == (True, 0), "that Stripe is away is no failure of the user's"


async def test_twenty_processes_at_once_buy_once(stage: Stage) -> None:
    users = [await stage.make_poor_user() for _ in range(3)]
    processes = [stage.start_process() for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for process in processes:
            nursery.start_soon(work, process)
    for user_id in users:
        assert await stage.balance(user_id) == AFTER
        assert_paid_once(stage, user_id)


async def test_a_process_that_was_taken_for_dead_and_lives_buys_nothing_twice(stage: Stage) -> None:
    """At one of its calls another takes its order over, while it waits; then it goes on."""
    for name in CALLS:
        user_id = await stage.make_poor_user()
        stage.stripe.before_call = Interruption(name, partial(take_over, stage))
        await work(stage.start_process())
        assert await stage.balance(user_id) == AFTER, name
        assert_paid_once(stage, user_id, name)


async def take_over(stage: Stage) -> None:
    stage.let_time_pass()
    await work(stage.start_process())


async def test_an_event_of_stripes_may_be_first(stage: Stage) -> None:
    for name in ("find_invoice", "find_payment"):
        user_id = await stage.make_poor_user()
        stage.stripe.before_call = Interruption(name, partial(bring_event, stage, user_id))
        await work(stage.start_process())
        assert await stage.balance(user_id) == AFTER
        assert [notice.kind for notice in await stage.notices(user_id)] == ["top_off_succeeded"]


async def bring_event(stage: Stage, user_id: UUID) -> None:
    (invoice,) = stage.invoices_of(user_id)
    assert await stage.start_process().payments.sync_invoice(invoice.id) == "booked"


async def test_an_event_of_stripes_may_be_last(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    process = stage.start_process()
    await work(process)
    (invoice,) = stage.invoices_of(user_id)
    assert invoice.payment_intent_id is not None
    assert await process.payments.sync_invoice(invoice.id) == "unchanged"
    assert await process.payments.sync_payment(invoice.payment_intent_id) == "unchanged"
    assert await stage.balance(user_id) == AFTER


async def test_a_user_who_stays_below_the_threshold_is_topped_off_five_times_a_day(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    await set_top_off(stage.database, user_id, threshold_usd="1000")
    for _ in range(7):
        await work(stage.start_process())
        stage.let_time_pass()
    assert stage.statuses_of(user_id) == ["paid"] * 5
    newest = (await stage.notices(user_id))[0]
    assert (newest.kind, newest.details) == ("top_off_paused", {"attempts": 5})
    stage.grow_old("25 hours")
    await work(stage.start_process())
    assert len(stage.statuses_of(user_id)) == 6


async def test_the_configuration_says_how_often_a_day(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    await set_top_off(stage.database, user_id, threshold_usd="1000")
    stage.query("INSERT INTO configuration (key, value) VALUES ('billing_max_top_offs_per_day', '2')")
    for _ in range(4):
        await work(stage.start_process())
        stage.let_time_pass()
    assert stage.statuses_of(user_id) == ["paid"] * 2


async def test_new_settings_are_looked_at_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.billing.top_off_rules.POLL_SECONDS", 1000)
    user_id = await stage.make_poor_user()
    await set_top_off(stage.database, user_id, enabled=False)
    process = stage.start_process()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.keep_topping_off)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await set_top_off(stage.database, user_id)
        process.wake()
        with trio.fail_after(20):
            while await stage.balance(user_id) != AFTER:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_what_our_own_code_cannot_handle_keeps_nobody_else_waiting(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    ann, bob = await stage.make_poor_user(), await stage.make_poor_user()
    stage.stripe.fail_next(ValueError("a customer who cannot be read"))
    process = stage.start_process()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.keep_topping_off)
        with trio.fail_after(10):
            while not (stage.statuses_of(ann) or stage.statuses_of(bob)) or "open" in stage.statuses_of(bob):
                process.wake()
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert "a top-off failed in our own code" in caplog.text
