"""What the server itself tells those who watch: the names and payloads of its own events. Pure.

Names are camelCase: whoever finds an underscore in one drops the whole event.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from proxy.events import Usage
from proxy.ledger import Settlement
from server.billing.statements import CURRENCY
from server.billing.wire import show_usd
from server.relay.event_frames import NewEvent
from server.times import show_exact_time, show_time, show_time_if_any
from storage.credits import Balance
from storage.notifications import Notification

BALANCE_CHANGED = "balance-changed"
CONFIGURATION_CHANGED = "configuration-changed"
NOTIFICATION_CREATED = "notification-created"
CHAT_STARTED, CHAT_PROGRESS, CHAT_FINISHED = "chat-started", "chat-progress", "chat-finished"

MAX_DEPTH = 32
"""What is nested deeper is not looked through, and not told."""


def describe_balance(balance: Balance) -> bytes:
    """As `GET /api/billing/credits/balance` has the same members."""
    return msgspec.json.encode(
        {
            "balanceDecimal": show_usd(balance.paid_usd),
            "freeCreditBalance": show_usd(balance.free_usd - balance.expired_usd),
            "currency": CURRENCY,
        }
    )


def describe_configuration(tables: Collection[str]) -> bytes:
    return msgspec.json.encode({"tables": sorted(tables)})


def build_notification_created(notification: Notification) -> NewEvent:
    """As `GET /api/notifications` shows it; `customData`, which is the app's own, only if its names have no underscore.
    """
    custom_data = notification.custom_data
    payload = {
        "id": notification.id,
        "kind": notification.kind,
        "jobId": notification.job_id,
        "title": notification.title,
        "body": notification.body,
        "customData": custom_data if has_plain_names(custom_data) else None,
        "createdAt": show_time(notification.created_at),
        "readAt": show_time_if_any(notification.read_at),
    }
    return _build(NOTIFICATION_CREATED, payload)


def build_chat_started(request_id: UUID, model: str, at: datetime) -> NewEvent:
    payload = {"requestId": request_id, "model": model, "startedAt": show_exact_time(at)}
    return _build(CHAT_STARTED, payload, newest_of=f"chat:{request_id}")


def build_chat_progress(request_id: UUID, model: str, usage: Usage) -> NewEvent:
    """Live only: the next one says more."""
    return _build(CHAT_PROGRESS, {"requestId": request_id, "model": model, **_describe_usage(usage)}, is_kept=False)


def build_chat_finished(model: str, settlement: Settlement) -> NewEvent:
    """Takes the place of the call's start among the events that are kept."""
    payload = {
        "requestId": settlement.hold_id,
        "model": model,
        "outcome": settlement.outcome,
        **_describe_usage(settlement.usage),
        "cost": show_usd(settlement.charge_usd),
        "isProvisional": settlement.provisional,
    }
    return _build(CHAT_FINISHED, payload, newest_of=f"chat:{settlement.hold_id}")


def has_plain_names(value: object, depth: int = MAX_DEPTH) -> bool:
    """No name in it has an underscore, however deep."""
    match value:
        case Mapping():
            return depth > 0 and all("_" not in str(name) for name in value) and _are_plain(value.values(), depth)
        case list() | tuple():
            return depth > 0 and _are_plain(value, depth)
    return True


def _are_plain(values: Collection[object], depth: int) -> bool:
    return all(has_plain_names(value, depth - 1) for value in values)


def _describe_usage(usage: Usage) -> Mapping[str, int]:
    return {"promptTokens": usage.prompt_tokens, "completionTokens": usage.completion_tokens}


def _build(
    event_type: str, payload: Mapping[str, Any], *, is_kept: bool = True, newest_of: str | None = None
) -> NewEvent:
    return NewEvent(
        event_type=event_type,
        payload=msgspec.json.encode(payload),
        source="server",
        is_kept=is_kept,
        newest_of=newest_of,
        is_for_watchers=True,
    )
