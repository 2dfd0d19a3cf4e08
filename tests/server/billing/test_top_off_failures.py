"""Top-offs that come to nothing: who is told, when it is tried again, and that nobody pays for them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest
import trio

from server.errors import StripeRefused, StripeUnavailable
from tests.server.billing.stripe_objects import build_payment
from tests.server.billing.top_off_stage import Interruption, Stage, open_stage, work, work_and_be_killed
from tests.storage.top_offs import set_top_off

BEFORE, AFTER = Decimal(1), Decimal(9)
AWAY = StripeUnavailable("Stripe cannot be reached")


@pytest.fixture
async def stage(database_url: str, owner_database_url: str) -> AsyncIterator[Stage]:
    with trio.fail_after(120):
        async with open_stage(database_url, owner_database_url) as stage:
            yield stage


async def assert_not_paid(stage: Stage, user_id: UUID, where: object = "") -> None:
    assert await stage.balance(user_id) == BEFORE, where
    assert not {"open", "paid"} & {*stage.statuses_of(user_id)}, where
    assert {state for state, _ in stage.orders_of(user_id)} <= {"failed"}, where


async def test_declines_back_off_and_the_third_in_a_row_turns_it_off(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    stage.stripe.declining["pm_1"] = "insufficient_funds"
    for _ in range(5):
        await work(stage.start_process())
        stage.let_time_pass()
    await assert_not_paid(stage, user_id)
    assert stage.orders_of(user_id) == [("failed", "insufficient_funds")] * 3
    assert stage.statuses_of(user_id) == ["void"] * 3
    assert stage.settings_of(user_id) == (False, 3)
    kinds = [notice.kind for notice in await stage.notices(user_id)]
    assert kinds == ["top_off_disabled", "top_off_failed", "top_off_failed"]
    noted = stage.query("SELECT details->>'turned_off' FROM audit_log WHERE action = 'auto_top_off_failed' ORDER BY at")
    assert noted == [("false",), ("false",), ("true",)]


async def test_after_a_decline_nothing_is_tried_for_an_hour(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    stage.stripe.declining["pm_1"] = "card_declined"
    await work(stage.start_process())
    stage.query("UPDATE billing_customers SET next_top_off_at = next_top_off_at - interval '59 minutes'")
    await work(stage.start_process())
    assert len(stage.orders_of(user_id)) == 1
    stage.query("UPDATE billing_customers SET next_top_off_at = next_top_off_at - interval '1 minute'")
    await work(stage.start_process())
    assert len(stage.orders_of(user_id)) == 2


async def test_what_banks_keep_from_who_holds_the_card_is_not_told(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    stage.stripe.declining["pm_1"] = "stolen_card"
    await work(stage.start_process())
    (notice,) = await stage.notices(user_id)
    assert notice.details["reason"] == "card_declined"
    assert stage.query("SELECT 1 FROM audit_log WHERE audit_log::text LIKE '%%stolen%%'") == []


async def test_killed_at_any_step_a_decline_counts_once_and_nothing_is_paid(stage: Stage) -> None:
    stage.stripe.declining["pm_1"] = "card_declined"
    step, was_killed = 0, True
    while was_killed:
        step += 1
        user_id = await stage.make_poor_user()
        was_killed = await work_and_be_killed(stage.start_process(), step)
        for invoice in stage.invoices_of(user_id):  # as events of Stripe's would have it
            await stage.start_process().payments.sync_invoice(invoice.id)
        stage.query("UPDATE purchases SET leased_until = '-infinity'")
        stage.query("UPDATE billing_customers SET next_top_off_at = '-infinity' WHERE top_off_failures = 0")
        await work(stage.start_process())
        await assert_not_paid(stage, user_id, f"killed at step {step}")
        assert stage.settings_of(user_id) == (True, 1), f"killed at step {step}"
        assert len(await stage.notices(user_id)) == 1
        stage.query("UPDATE billing_customers SET top_off_enabled = false")
    assert step > 30


async def test_a_top_off_that_was_paid_ends_the_row_of_declines(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    await set_top_off(stage.database, user_id, threshold_usd="1000")
    for code in ("card_declined", "card_declined", "", "card_declined"):
        stage.stripe.declining = {"pm_1": code} if code else {}
        await work(stage.start_process())
        stage.let_time_pass()
    assert stage.settings_of(user_id) == (True, 1)


async def test_an_invoice_that_was_paid_by_hand_meanwhile_is_no_decline(stage: Stage) -> None:
    """Its user had Stripe's page of it open."""
    stage.stripe.declining["pm_1"] = "card_declined"
    for name in ("find_invoice", "void_invoice"):
        user_id = await stage.make_poor_user()
        stage.stripe.before_call = Interruption(name, partial(pay_by_hand, stage, user_id))
        await work(stage.start_process())
        assert stage.orders_of(user_id)[0][0] == "paid", name
        assert await stage.balance(user_id) == AFTER, name
        assert stage.settings_of(user_id) == (True, int(name == "void_invoice"))


async def pay_by_hand(stage: Stage, user_id: UUID) -> None:
    invoice = stage.invoices_of(user_id)[-1]
    payment_id = f"pi_{invoice.id}"
    customer_id = stage.customer_of(user_id)
    stage.stripe.add_payment(build_payment(payment_id, customer_id=customer_id, invoice_id=invoice.id))
    paid = replace(invoice, status="paid", paid_cents=1000, payment_intent_id=payment_id)
    stage.stripe.invoices[invoice.id] = paid


async def test_without_a_card_or_an_address_it_fails_without_an_order(stage: Stage) -> None:
    ann = await stage.make_poor_user(has_card=False)
    bob = await stage.make_poor_user()
    customer_id = stage.customer_of(bob)
    stage.stripe.customers[customer_id] = replace(stage.stripe.customers[customer_id], billing_address=None)
    deleted = await stage.make_poor_user()
    del stage.stripe.customers[stage.customer_of(deleted)]
    await work(stage.start_process())
    for user_id, reason in [
        (ann, "payment_method_required"),
        (bob, "billing_address_required"),
        (deleted, "payment_method_required"),
    ]:
        assert stage.orders_of(user_id) == []
        assert stage.settings_of(user_id) == (True, 1)
        (notice,) = await stage.notices(user_id)
        assert (notice.kind, notice.details["reason"]) == ("top_off_failed", reason)


async def test_an_amount_that_is_not_sold_any_more_turns_it_off_at_once(stage: Stage) -> None:
    small, large = await stage.make_poor_user(), await stage.make_poor_user()
    await set_top_off(stage.database, small, amount_usd="2.99")
    await set_top_off(stage.database, large, amount_usd="1000.01")
    await work(stage.start_process())
    for user_id in (small, large):
        assert stage.settings_of(user_id) == (False, 1)
        (notice,) = await stage.notices(user_id)
        assert (notice.kind, notice.details["reason"]) == ("top_off_disabled", "amount_refused")


async def test_who_gets_money_back_is_not_charged_again_by_itself(stage: Stage) -> None:
    """Turned on again, it goes on."""
    ann, bob = await stage.make_poor_user(), await stage.make_poor_user()
    await work(stage.start_process())
    for user_id, returned in ((ann, {"refunded_cents": 1000}), (bob, {"disputed_cents": 1000})):
        (invoice,) = stage.invoices_of(user_id)
        assert invoice.payment_intent_id is not None
        stage.stripe.change_payment(invoice.payment_intent_id, **returned)
        assert await stage.start_process().payments.sync_payment(invoice.payment_intent_id) == "booked"
        stage.let_time_pass()
        await work(stage.start_process())
        assert await stage.balance(user_id) == BEFORE
        assert stage.settings_of(user_id) == (False, 1)
        assert (await stage.notices(user_id))[0].details["reason"] == "payment_returned"
        await set_top_off(stage.database, user_id)
        await work(stage.start_process())
        assert await stage.balance(user_id) == AFTER


async def test_while_stripe_is_away_an_order_waits_longer_and_longer(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    stage.stripe.fail_at(3, AWAY)
    await work(stage.start_process())
    wait = "SELECT extract(epoch FROM leased_until - now())::float8 FROM purchases"
    assert 10 < stage.query(wait)[0][0] <= 15
    stage.grow_old("5 minutes")
    stage.stripe.fail_next(AWAY)
    await work(stage.start_process())
    assert 290 < stage.query(wait)[0][0] <= 310
    assert stage.orders_of(user_id) == [("open", None)]


async def test_after_an_hour_without_stripe_it_is_given_up_and_begun_anew(stage: Stage) -> None:
    """The draft whose id was lost stays a draft for ever."""
    for number, name in enumerate(["create_invoice", "finalize_invoice", "pay_invoice"], start=3):
        user_id = await stage.make_poor_user()
        stage.stripe.fail_at(len(stage.stripe.calls) + number, AWAY, after_effect=name == "create_invoice")
        await work(stage.start_process())
        stage.grow_old()
        await work(stage.start_process())
        await assert_not_paid(stage, user_id, name)
        assert stage.settings_of(user_id) == (True, 0)
        assert [notice.details["reason"] for notice in await stage.notices(user_id)] == ["unavailable"]
        stage.let_time_pass()
        await work(stage.start_process())
        assert await stage.balance(user_id) == AFTER, name
        assert stage.statuses_of(user_id).count("paid") == 1
        assert "open" not in stage.statuses_of(user_id)


async def test_what_was_paid_before_stripe_was_away_is_booked_however_late(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    stage.stripe.fail_at(5, AWAY, after_effect=True)
    await work(stage.start_process())
    stage.grow_old("3 days")
    await work(stage.start_process())
    assert await stage.balance(user_id) == AFTER
    assert stage.orders_of(user_id) == [("paid", None)]


async def test_an_order_that_another_gave_up_meanwhile_is_not_paid(stage: Stage) -> None:
    user_id = await stage.make_poor_user()

    async def give_up() -> None:
        stage.grow_old()
        await work(stage.start_process())

    stage.stripe.before_call = Interruption("create_invoice", give_up)
    await work(stage.start_process())
    assert stage.orders_of(user_id) == [("failed", "unavailable")]
    await assert_not_paid(stage, user_id)
    assert stage.stripe.count("pay_invoice") == 0


async def test_a_payment_that_its_bank_takes_days_for_is_waited_for(stage: Stage) -> None:
    user_id = await stage.make_poor_user()
    stage.stripe.fail_at(5, AWAY)
    await work(stage.start_process())
    (invoice,) = stage.invoices_of(user_id)
    stage.stripe.add_payment(build_payment("pi_slow", status="processing", customer_id=invoice.customer_id))
    stage.stripe.invoices[invoice.id] = replace(invoice, payment_intent_id="pi_slow")
    stage.grow_old("3 days")
    await work(stage.start_process())
    assert stage.orders_of(user_id) == [("open", None)]
    assert stage.statuses_of(user_id) == ["open"]
    assert await stage.notices(user_id) == []


async def test_what_is_turned_off_or_changed_while_it_waits_is_not_paid(stage: Stage) -> None:
    ann, bob = await stage.make_poor_user(), await stage.make_poor_user()
    for number in (5, 10):
        stage.stripe.fail_at(number, AWAY)
    await work(stage.start_process())
    assert stage.statuses_of(ann) == stage.statuses_of(bob) == ["open"]
    await set_top_off(stage.database, ann, enabled=False)
    await set_top_off(stage.database, bob, amount_usd="20")
    stage.let_time_pass()
    await work(stage.start_process())
    await assert_not_paid(stage, ann)
    assert await stage.notices(ann) == []
    assert stage.statuses_of(bob) == ["void", "paid"]
    assert await stage.balance(bob) == 19


async def test_a_refusal_that_is_our_fault_is_not_told_to_the_user(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    user_id = await stage.make_poor_user()
    for number in (3, 4 + 2):
        stage.stripe.fail_at(number, StripeRefused("no such parameter", "parameter_unknown"))
    await work(stage.start_process())
    await assert_not_paid(stage, user_id)
    assert stage.settings_of(user_id) == (True, 0)
    assert await stage.notices(user_id) == []
    assert "a top-off failed" in caplog.text


@pytest.mark.parametrize("told_by", ["create_invoice", "finalize_invoice"])
async def test_a_credit_at_stripe_pays_no_part_and_the_card_nothing(
    stage: Stage, told_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    user_id = await stage.make_poor_user()

    async def give() -> None:
        stage.stripe.credit_cents = 400

    stage.stripe.before_call = Interruption(told_by, give)
    await work(stage.start_process())
    await assert_not_paid(stage, user_id)
    assert "pay_invoice" not in stage.stripe.calls
    assert ("finalize_invoice" in stage.stripe.calls) == (told_by == "finalize_invoice")
    assert stage.orders_of(user_id) == [("failed", "credit_at_stripe")]
    assert "a top-off failed" in caplog.text


async def test_an_invoice_that_cannot_be_made_void_keeps_its_order_open(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """So nothing else is bought: it could be paid still."""
    user_id = await stage.make_poor_user()
    stage.stripe.declining["pm_1"] = "card_declined"
    stage.stripe.fail_at(7, StripeRefused("a payment is under way", "invoice_not_editable"))
    await work(stage.start_process())
    assert stage.orders_of(user_id) == [("open", "card_declined")]
    assert "cannot be made void" in caplog.text
    stage.query("UPDATE purchases SET leased_until = '-infinity'")
    await work(stage.start_process())
    assert stage.orders_of(user_id) == [("failed", "card_declined")]
    assert stage.statuses_of(user_id) == ["void"]


async def test_an_account_that_is_deleted_before_its_order_is_charged_nothing(stage: Stage) -> None:
    user_id = await stage.make_poor_user()

    async def delete() -> None:
        stage.query("DELETE FROM users WHERE id = %s", user_id)

    stage.stripe.before_call = Interruption("list_payment_methods", delete)
    await work(stage.start_process())
    assert stage.stripe.invoices == {}


async def test_an_account_that_goes_while_its_invoice_is_made_is_charged_nothing(stage: Stage) -> None:
    """Deleting one's account waits for a top-off that is under way; an operator may do it all the same."""
    user_id = await stage.make_poor_user()

    async def delete() -> None:
        stage.query("DELETE FROM users WHERE id = %s", user_id)

    stage.stripe.before_call = Interruption("create_invoice", delete)
    await work(stage.start_process())
    assert stage.stripe.invoices == {}
    assert stage.stripe.count("pay_invoice") == 0
