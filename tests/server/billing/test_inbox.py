"""Stripe's events on their way into the ledger. Stripe is in memory; the accounts are real. Events named like files of
tests/stripe_events are written after Stripe's documentation.
"""

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import trio

from server.billing.inbox import FIRST_PAUSE_SECONDS, MAX_ATTEMPTS, Inbox, find_pause_seconds
from server.errors import StripeRefused, StripeUnavailable
from storage.errors import DatabaseUnavailable
from storage.stripe_events import StripeEvents
from tests import stripe_events
from tests.server.billing.payments_stage import Shop
from tests.storage.people import Query

CUSTOMER = "cus_Qexample000001"
CARD_ACTIONS = {
    "payment_method.attached": "payment_method_attached",
    "payment_method.detached": "payment_method_detached",
    "customer.updated.new_default": "default_payment_method_updated",
    "customer.updated.no_default": "default_payment_method_removed",
}


@pytest.fixture
async def buyer(shop: Shop) -> UUID:
    return await shop.make_buyer(CUSTOMER)


@pytest.fixture
def inbox(shop: Shop) -> Inbox:
    return build_inbox(shop)


def build_inbox(shop: Shop) -> Inbox:
    return Inbox(StripeEvents(shop.database), shop.payments, shop.customers, shop.payments.auditor)


async def take(inbox: Inbox, type_: str, object_: dict[str, Any], event_id: str = "evt_1", **data: Any) -> bool:
    payload = {"id": event_id, "type": type_, "data": {"object": object_, **data}}
    return await inbox.take(event_id, type_, json.dumps(payload).encode())


async def take_documented(inbox: Inbox, name: str, change: Callable[[Any], None] = lambda _: None) -> None:
    event = stripe_events.read_json(name)
    change(event["data"]["object"])
    await inbox.take(event["id"], event["type"], json.dumps(event).encode())


async def work_off(inbox: Inbox) -> None:
    while await inbox.work_once():
        pass


def read_states(query: Query) -> list[tuple[Any, ...]]:
    return query("SELECT id, state, attempts FROM stripe_events ORDER BY id")


async def test_a_payment_is_booked_by_its_event(shop: Shop, inbox: Inbox, buyer: UUID, query: Query) -> None:
    order = await shop.order(buyer)
    payment = shop.pay(order, "pi_3Pexample000001")
    await take_documented(inbox, "payment_intent.succeeded")
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 8
    assert [row[1:] for row in read_states(query)] == [("done", 1)]
    assert (await shop.find(order)).stripe_charge_id == payment.charge_id


async def test_what_an_event_says_of_amounts_and_owners_counts_for_nothing(
    shop: Shop, inbox: Inbox, buyer: UUID
) -> None:
    """A signed event with other figures: what Stripe's API says is booked, not what the event says."""
    shop.pay(await shop.order(buyer), "pi_3Pexample000001")

    def lie(payment: Any) -> None:
        payment.update(amount=10**9, amount_received=10**9, customer="cus_other", metadata={"user_id": "somebody"})

    await take_documented(inbox, "payment_intent.succeeded", lie)
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 8


async def test_an_event_that_comes_twice_is_worked_on_once(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    payment = shop.pay(await shop.order(buyer))
    assert await take(inbox, "payment_intent.succeeded", {"id": payment.id})
    await work_off(inbox)
    asked = len(shop.stripe.calls)
    assert not await take(inbox, "payment_intent.succeeded", {"id": payment.id})
    await work_off(inbox)
    assert len(shop.stripe.calls) == asked
    assert await shop.read_balance(buyer) == 8


async def test_both_events_of_one_charge_book_once(shop: Shop, inbox: Inbox, buyer: UUID, query: Query) -> None:
    _, session = await shop.check_out(buyer)
    payment = shop.stripe.complete_session(session.id)
    await take(inbox, "checkout.session.completed", {"id": session.id}, "evt_1")
    await take(inbox, "payment_intent.succeeded", {"id": payment.id}, "evt_2")
    await take(inbox, "invoice.paid", {"id": "in_receipt", "payment_intent": payment.id}, "evt_3")
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 8
    assert {state for _, state, _ in read_states(query)} == {"done"}


async def test_the_receipt_of_a_checkout_alone_is_enough(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    _, payment = await shop.buy(buyer)
    await take(inbox, "invoice.payment_succeeded", {"id": "in_receipt", "payment_intent": payment.id})
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 8


async def test_a_top_offs_invoice_is_booked_whatever_version_its_event_has(
    shop: Shop, inbox: Inbox, buyer: UUID
) -> None:
    _, invoice = await shop.invoice(buyer)
    await shop.stripe.pay_invoice(invoice.id, "k")
    await take_documented(inbox, "invoice.paid.basil", lambda object_: object_.update(id=invoice.id))
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 8


async def test_a_refund_and_a_dispute_take_credits_back_and_a_dispute_that_is_won_returns_them(
    shop: Shop, inbox: Inbox, buyer: UUID
) -> None:
    payment = shop.pay(await shop.order(buyer), "pi_3Pexample000001")
    await take_documented(inbox, "payment_intent.succeeded")
    shop.stripe.change_payment(payment.id, refunded_cents=250)
    await take_documented(inbox, "charge.refunded.partial")
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 6
    shop.stripe.change_payment(payment.id, refunded_cents=250, disputed_cents=750)
    await take_documented(inbox, "charge.dispute.created")
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 0
    shop.stripe.change_payment(payment.id, refunded_cents=250)
    await take_documented(inbox, "charge.dispute.closed.won")
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 6


async def test_a_dispute_that_names_its_charge_alone_finds_the_payment(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    payment = shop.pay(await shop.order(buyer), "pi_3Pexample000001")
    await shop.payments.sync_payment(payment.id)
    shop.stripe.change_payment(payment.id, disputed_cents=1000)
    await take_documented(inbox, "charge.dispute.closed.lost")
    await work_off(inbox)
    assert await shop.read_balance(buyer) == 0


async def test_a_session_that_expired_ends_its_order(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    order, session = await shop.check_out(buyer)
    shop.stripe.expire_session(session.id)
    await take_documented(inbox, "checkout.session.expired", lambda object_: object_.update(id=session.id))
    await work_off(inbox)
    assert (await shop.find(order)).state == "expired"


async def test_what_becomes_of_cards_is_told_in_the_audit_log_once(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    for name in CARD_ACTIONS:
        await take_documented(inbox, name)
        await take_documented(inbox, name)
    await work_off(inbox)
    assert await shop.read_audit() == [(action, "success", "pm_1Pexample000001") for action in CARD_ACTIONS.values()]
    rows = await shop.payments.auditor.log.find_latest(buyer, None, 10)
    assert [row.entry.details for row in rows] == [{}] * len(CARD_ACTIONS)


async def test_a_card_is_told_of_once_by_two_who_work_on_the_same_event(
    shop: Shop, inbox: Inbox, buyer: UUID, query: Query
) -> None:
    """The lease of the first was over before it had finished."""
    await take_documented(inbox, "payment_method.attached")
    events = StripeEvents(shop.database)
    (first,) = await events.claim_due(1, 0)
    (second,) = await events.claim_due(1, 0)
    async with trio.open_nursery() as nursery:
        for event in (first, second):
            nursery.start_soon(inbox._work_on, event)
    assert len(await shop.read_audit()) == 1


async def test_a_customer_that_was_deleted_at_stripe_is_forgotten(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    await take_documented(inbox, "customer.deleted")
    await work_off(inbox)
    customer = await shop.customers.find(buyer)
    assert customer is not None
    assert (customer.customer_id, customer.customer_number) == (None, 1)


async def test_what_is_none_of_ours_is_ignored(inbox: Inbox, query: Query) -> None:
    """The account at Stripe may sell other things."""
    for name in stripe_events.NAMES:
        await take_documented(inbox, name)
    await work_off(inbox)
    assert {row[1:] for row in read_states(query)} == {("ignored", 1)}


async def test_an_event_that_nobody_knows_is_ignored(inbox: Inbox, query: Query) -> None:
    await take(inbox, "something.new", {"id": "x_1"})
    await work_off(inbox)
    assert read_states(query) == [("evt_1", "ignored", 1)]


async def test_a_contradiction_is_refused_and_waits_for_somebody_to_look(
    shop: Shop, inbox: Inbox, buyer: UUID, query: Query
) -> None:
    payment = shop.pay(await shop.order(buyer), currency="eur")
    await take(inbox, "payment_intent.succeeded", {"id": payment.id})
    await work_off(inbox)
    assert read_states(query) == [("evt_1", "refused", 1)]
    assert await shop.read_balance(buyer) == 0


# What goes wrong


async def test_what_fails_is_tried_again_after_pauses_that_grow_and_booked_in_the_end(
    shop: Shop, inbox: Inbox, buyer: UUID, query: Query
) -> None:
    payment = shop.pay(await shop.order(buyer))
    await take(inbox, "payment_intent.succeeded", {"id": payment.id})
    failures = [StripeUnavailable("no answer"), StripeRefused("no"), DatabaseUnavailable("gone"), KeyError("our fault")]
    for number, error in enumerate(failures):
        shop.stripe.fail_next(error)
        await work_off(inbox)
        assert read_states(query) == [("evt_1", "pending", number + 1)]
        pause = query("SELECT round(extract(epoch FROM next_attempt_at - now())) FROM stripe_events")
        assert pause == [(FIRST_PAUSE_SECONDS * 2**number,)]
        query("UPDATE stripe_events SET next_attempt_at = now()")
    assert await shop.read_balance(buyer) == 0
    await work_off(inbox)
    assert read_states(query) == [("evt_1", "done", len(failures) + 1)]
    assert await shop.read_balance(buyer) == 8


async def test_one_that_fails_keeps_nobody_else_waiting(shop: Shop, inbox: Inbox, buyer: UUID, query: Query) -> None:
    payment = shop.pay(await shop.order(buyer))
    shop.stripe.fail_next(KeyError("a fault of ours"))
    await take(inbox, "payment_intent.succeeded", {"id": "pi_other"}, "evt_1")
    await take(inbox, "payment_intent.succeeded", {"id": payment.id}, "evt_2")
    await work_off(inbox)
    assert [row[:2] for row in read_states(query)] == [("evt_1", "pending"), ("evt_2", "done")]


async def test_an_event_that_takes_too_long_is_put_off(
    shop: Shop, inbox: Inbox, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: str) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("server.billing.inbox.EVENT_SECONDS", 0.05)
    shop.stripe.before_call = hang
    await take(inbox, "payment_intent.succeeded", {"id": "pi_1"})
    await inbox.work_once()
    assert read_states(query) == [("evt_1", "pending", 1)]


async def test_after_three_days_it_is_given_up_and_told(
    shop: Shop, inbox: Inbox, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    await take(inbox, "payment_intent.succeeded", {"id": "pi_1"})
    query("UPDATE stripe_events SET attempts = %s", MAX_ATTEMPTS - 1)
    shop.stripe.fail_next(StripeUnavailable("no answer"))
    with caplog.at_level(logging.ERROR):
        await work_off(inbox)
    assert read_states(query) == [("evt_1", "failed", MAX_ATTEMPTS)]
    assert "failed for good" in caplog.text


def test_the_pauses_grow_and_last_three_days() -> None:
    pauses = [find_pause_seconds(attempts) for attempts in range(1, MAX_ATTEMPTS)]
    known = [pause for pause in pauses if pause is not None]
    assert known == sorted(known)
    assert len(known) == len(pauses)
    assert 3 * 86400 <= sum(known) < 3.5 * 86400
    assert find_pause_seconds(MAX_ATTEMPTS) is None


async def test_nothing_of_a_payload_is_logged_or_kept_as_an_error(
    inbox: Inbox, shop: Shop, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    shop.stripe.fail_next(KeyError("fault"))
    with caplog.at_level(logging.DEBUG):
        await take_documented(inbox, "payment_intent.payment_failed")
        await work_off(inbox)
    (kept,) = query("SELECT error FROM stripe_events")[0]
    told = caplog.text + "".join(str(vars(record)) for record in caplog.records) + kept
    assert "ann@example.com" not in told
    assert "Main Street" not in told


# The loop


async def test_an_event_is_worked_on_as_soon_as_it_is_taken_in(shop: Shop, inbox: Inbox, buyer: UUID) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(inbox.keep_working)
        with trio.fail_after(3):
            for number in range(5):
                payment = shop.pay(await shop.order(buyer), f"pi_{number}")
                await take(inbox, "payment_intent.succeeded", {"id": payment.id}, f"evt_{number}")
                while await shop.read_balance(buyer) != 8 * (number + 1):
                    await trio.sleep(0.005)
        nursery.cancel_scope.cancel()


async def test_an_event_that_another_process_left_behind_is_found(
    shop: Shop, buyer: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wakes this one: it looks by itself."""
    monkeypatch.setattr("server.billing.inbox.POLL_SECONDS", 0.05)
    payment = shop.pay(await shop.order(buyer))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build_inbox(shop).keep_working)
        await trio.sleep(0.1)
        await take(build_inbox(shop), "payment_intent.succeeded", {"id": payment.id})
        with trio.fail_after(3):
            while await shop.read_balance(buyer) != 8:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def cut_at(shop: Shop, scope: trio.CancelScope, number: int, _: str) -> None:
    if len(shop.stripe.calls) >= number:
        scope.cancel()


async def test_a_worker_that_is_cut_off_leaves_its_event_to_others(
    shop: Shop, inbox: Inbox, buyer: UUID, query: Query
) -> None:
    """At every call to Stripe: the lease ends, and the next one books, once."""
    cuts = 0
    _, session = await shop.check_out(buyer)
    shop.stripe.complete_session(session.id)
    await take(inbox, "checkout.session.completed", {"id": session.id})
    while read_states(query)[0][1] == "pending":
        with trio.CancelScope() as scope:
            shop.stripe.before_call = partial(cut_at, shop, scope, len(shop.stripe.calls) + cuts + 1)
            await inbox.work_once()
        cuts += 1
        query("UPDATE stripe_events SET next_attempt_at = now()")
    assert cuts > 2
    assert await shop.read_balance(buyer) == 8


async def test_the_loop_outlives_stores_that_are_away(
    shop: Shop, inbox: Inbox, buyer: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.billing.inbox.POLL_SECONDS", 0.02)
    payment = shop.pay(await shop.order(buyer))
    claims = 0
    original = StripeEvents.claim_due

    async def claim(self: StripeEvents, limit: int, lease_seconds: float) -> Any:
        nonlocal claims
        claims += 1
        if claims < 3:
            raise DatabaseUnavailable("gone")
        return await original(self, limit, lease_seconds)

    monkeypatch.setattr(StripeEvents, "claim_due", claim)
    await take(inbox, "payment_intent.succeeded", {"id": payment.id})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.keep_working)
        with trio.fail_after(3):
            while await shop.read_balance(buyer) != 8:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
