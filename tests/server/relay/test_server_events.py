"""What the server tells of itself: names that clients can read, and money as the routes show it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from proxy.events import Usage
from proxy.ledger import Settlement
from server.relay.server_events import (
    build_chat_finished,
    build_chat_progress,
    build_chat_started,
    build_notification_created,
    describe_balance,
    describe_configuration,
    has_plain_names,
)
from storage.credits import Balance
from storage.notifications import Notification

ID = UUID("6a0f3a52-2f0c-4d0e-9c62-6a3a3c0a5d10")
AT = datetime(2026, 2, 3, 4, 5, 6, 123000, UTC)


def build_notification(custom_data: dict[str, Any]) -> Notification:
    return Notification(ID, "job_completed", "job-1", "Done", "It is done", custom_data, AT, None)


def test_a_balance_is_told_as_its_route_shows_it() -> None:
    balance = Balance(Decimal("9.5"), Decimal(3), Decimal("1.25"), expired_usd=Decimal("0.25"))
    assert json.loads(describe_balance(balance)) == {
        "balanceDecimal": "8.250000",
        "freeCreditBalance": "1.000000",
        "currency": "USD",
    }


def test_what_a_call_holds_is_no_change_of_the_balance() -> None:
    assert describe_balance(Balance(Decimal(9), Decimal(0))) == describe_balance(Balance(Decimal(9), Decimal(8)))


def test_tables_that_have_changed_are_named_in_their_order() -> None:
    assert json.loads(describe_configuration({"b", "a"})) == {"tables": ["a", "b"]}


def test_a_notification_is_told_as_its_route_shows_it() -> None:
    event = build_notification_created(build_notification({"type": "x", "deep": [{"a": 1}]}))
    assert (event.event_type, event.is_kept, event.is_for_watchers) == ("notification-created", True, True)
    assert json.loads(event.payload) == {
        "id": str(ID),
        "kind": "job_completed",
        "jobId": "job-1",
        "title": "Done",
        "body": "It is done",
        "customData": {"type": "x", "deep": [{"a": 1}]},
        "createdAt": "2026-02-03T04:05:06.123Z",
        "readAt": None,
    }


@pytest.mark.parametrize("custom_data", [{"a_b": 1}, {"a": [{"b": {"c_d": 1}}]}])
def test_names_with_an_underscore_are_not_told(custom_data: dict[str, Any]) -> None:
    event = build_notification_created(build_notification(custom_data))
    assert json.loads(event.payload)["customData"] is None


def test_what_is_nested_too_deeply_is_not_looked_through() -> None:
    nested: Any = 1
    for _ in range(5000):
        nested = [nested]
    assert not has_plain_names({"a": nested})
    assert has_plain_names({"a": [[["b_c"]]]})


def test_the_end_of_a_chat_takes_the_place_of_its_start() -> None:
    usage = Usage(input_tokens=10, output_tokens=7, reasoning_tokens=3)
    settlement = Settlement(ID, ID, "cancelled", Decimal("0.0105"), usage, provisional=True)
    started, finished = build_chat_started(ID, "a/b", AT), build_chat_finished("a/b", settlement)
    assert started.newest_of == finished.newest_of is not None
    assert started.is_kept
    assert finished.is_kept
    assert json.loads(finished.payload) == {
        "requestId": str(ID),
        "model": "a/b",
        "outcome": "cancelled",
        "promptTokens": 10,
        "completionTokens": 10,
        "cost": "0.010500",
        "isProvisional": True,
    }


def test_progress_is_told_and_not_kept() -> None:
    event = build_chat_progress(ID, "a/b", Usage(input_tokens=1, output_tokens=2))
    assert not event.is_kept
    told = {"requestId": str(ID), "model": "a/b", "promptTokens": 1, "completionTokens": 2}
    assert json.loads(event.payload) == told
