"""Which object each event sends us to. The events are written after Stripe's documentation: tests/stripe_events."""

import json
from typing import Any

import pytest

from server.billing.event_reading import (
    ForgetCustomer,
    LookAt,
    NoteCard,
    find_errand,
    find_other_mode,
    read_event,
)
from server.errors import RequestInvalid
from tests import stripe_events

CUSTOMER, METHOD, PAYMENT = "cus_Qexample000001", "pm_1Pexample000001", "pi_3Pexample000001"
SESSION, INVOICE, CHARGE = "cs_test_a1example000001", "in_1Pexample000001", "ch_3Pexample000001"

ERRANDS = {
    "payment_intent.succeeded": LookAt("payment", PAYMENT),
    "payment_intent.payment_failed": LookAt("payment", PAYMENT),
    "checkout.session.completed.payment": LookAt("session", SESSION),
    "checkout.session.completed.setup": LookAt("session", "cs_test_c1example000002"),
    "checkout.session.expired": LookAt("session", SESSION),
    "charge.refunded.partial": LookAt("payment", PAYMENT),
    "charge.refunded.full": LookAt("payment", PAYMENT),
    "charge.refund.updated.failed": LookAt("payment", PAYMENT),
    "charge.dispute.created": LookAt("payment", PAYMENT),
    "charge.dispute.closed.won": LookAt("payment", PAYMENT),
    "charge.dispute.closed.lost": LookAt("charge", CHARGE),
    "invoice.paid": LookAt("invoice", INVOICE, PAYMENT),
    "invoice.payment_failed": LookAt("invoice", INVOICE, PAYMENT),
    "invoice.paid.basil": LookAt("invoice", INVOICE),
    "payment_method.attached": NoteCard("payment_method_attached", CUSTOMER, METHOD),
    "payment_method.detached": NoteCard("payment_method_detached", CUSTOMER, METHOD),
    "customer.updated.new_default": NoteCard("default_payment_method_updated", CUSTOMER, METHOD),
    "customer.updated.no_default": NoteCard("default_payment_method_removed", CUSTOMER, METHOD),
    "customer.deleted": ForgetCustomer(CUSTOMER),
}


def build_payload(type_: str, object_: Any = None, **members: Any) -> bytes:
    return json.dumps({"id": "evt_1", "type": type_, "data": {"object": object_ or {}}, **members}).encode()


def test_every_documented_event_is_here() -> None:
    assert sorted(ERRANDS) == stripe_events.NAMES


@pytest.mark.parametrize("name", sorted(ERRANDS))
def test_an_event_sends_us_to_its_object(name: str) -> None:
    assert find_errand(read_event(stripe_events.read_payload(name))) == ERRANDS[name]


@pytest.mark.parametrize("type_", ["invoice.payment_succeeded", "invoice.voided", "invoice.marked_uncollectible"])
def test_every_turn_of_an_invoice_is_looked_at(type_: str) -> None:
    assert find_errand(read_event(build_payload(type_, {"id": "in_1"}))) == LookAt("invoice", "in_1")


def test_an_id_may_be_an_object_that_is_shown_whole() -> None:
    payload = build_payload("refund.failed", {"object": "refund", "payment_intent": {"id": "pi_1"}})
    assert find_errand(read_event(payload)) == LookAt("payment", "pi_1")


@pytest.mark.parametrize(
    "payload",
    [
        build_payload("plan.created", {"id": "plan_1"}),
        build_payload("customer.updated", {"id": "cus_1"}, previous_attributes=None),
        build_payload("payment_method.detached", {"id": "pm_1", "customer": None}),
        build_payload("payment_intent.succeeded", {"id": None}),
        build_payload("payment_intent.succeeded", {"id": ["pi_1"]}),
        build_payload("charge.refunded", {"object": "charge"}),
        build_payload("payment_intent.succeeded", {"id": "pi_\0"}),
        build_payload("payment_intent.succeeded", {"id": "p" * 256}),
    ],
)
def test_what_concerns_us_in_nothing_or_names_nothing_is_no_errand(payload: bytes) -> None:
    assert find_errand(read_event(payload)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"id": "evt_1"}',
        b'{"id": 1, "type": "x", "data": {"object": {}}}',
        b'{"id": "evt_1", "type": "x", "data": {"object": []}}',
        build_payload("", {}),
        build_payload("x\0", {}),
        build_payload("x").replace(b"evt_1", b"evt_\\u0000"),
        build_payload("x").replace(b"evt_1", b"e" * 256),
        b'{"id": "evt_1", "type": "x", "data": {"object": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}",
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(RequestInvalid):
        read_event(payload)


@pytest.mark.parametrize(
    ("key", "livemode", "other"),
    [
        ("sk_live_1", True, None),
        ("sk_live_1", False, "test"),
        ("rk_live_1", False, "test"),
        ("sk_test_1", False, None),
        ("sk_test_1", True, "live"),
        ("something_else", True, None),
    ],
)
def test_test_mode_and_live_mode_are_told_apart(key: str, livemode: bool, other: str | None) -> None:
    assert find_other_mode(read_event(build_payload("x", livemode=livemode)), key) == other
