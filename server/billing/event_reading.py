"""What an event of Stripe's says, and where it sends us to look. Pure.

An event is a hint: which object has changed. Amounts and states in it are never used, for it may be old; so events of
any API version will do as long as ids stand where they always stood. https://docs.stripe.com/api/events/types
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from server.errors import RequestInvalid

WORD = re.compile(r"\A[!-~]{1,255}\Z")
"""An id or a type: PostgreSQL keeps no text with a zero byte, and no index of a long one."""

Look = Literal["session", "payment", "charge", "invoice"]

_SESSION_TYPES = {
    f"checkout.session.{name}" for name in ("completed", "async_payment_succeeded", "async_payment_failed", "expired")
}
_PAYMENT_TYPES = {"payment_intent.succeeded", "payment_intent.payment_failed"}
_RETURN_TYPES = {
    *("charge.refunded", "charge.refund.updated", "refund.created", "refund.updated", "refund.failed"),
    *(f"charge.dispute.{name}" for name in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")),
}
_INVOICE_TYPES = {
    f"invoice.{name}" for name in ("paid", "payment_succeeded", "payment_failed", "voided", "marked_uncollectible")
}


@dataclass(frozen=True, slots=True)
class Event:
    """`object` is what the event is about, `previous` those of its members that have changed, as they were."""

    id: str
    type: str
    is_live: bool
    object: Mapping[str, Any]
    previous: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LookAt:
    """Ask Stripe for this object and book what follows. `payment_id` is looked at if the object is no order of ours."""

    what: Look
    id: str
    payment_id: str | None = None


@dataclass(frozen=True, slots=True)
class NoteCard:
    """A payment method of this customer came, went, or became the default one: told in the audit log."""

    action: str
    customer_id: str
    payment_method_id: str


@dataclass(frozen=True, slots=True)
class ForgetCustomer:
    customer_id: str


Errand = LookAt | NoteCard | ForgetCustomer


class _Data(msgspec.Struct):
    object: dict[str, Any]
    previous_attributes: dict[str, Any] | None = None


Word = Annotated[str, msgspec.Meta(pattern=WORD.pattern)]


class _Event(msgspec.Struct):
    id: Word
    type: Word
    data: _Data
    livemode: bool = False


def read_event(payload: bytes) -> Event:
    """Raises RequestInvalid."""
    try:
        event = msgspec.json.decode(payload, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid("the body is no event") from error
    return Event(event.id, event.type, event.livemode, event.data.object, event.data.previous_attributes or {})


def find_other_mode(event: Event, secret_key: str) -> Literal["live", "test"] | None:
    """The event's mode, if it is not that of the key: `sk_live_…`, `rk_test_…`."""
    mode: Literal["live", "test"] = "live" if event.is_live else "test"
    parts = secret_key.split("_", 2)
    is_known = len(parts) == 3 and parts[1] in {"live", "test"}
    return mode if is_known and parts[1] != mode else None


def find_errand(event: Event) -> Errand | None:
    """None for what concerns us in nothing, or names no object."""
    if event.type in _SESSION_TYPES:
        return _look_at("session", event.object.get("id"))
    if event.type in _PAYMENT_TYPES:
        return _look_at("payment", event.object.get("id"))
    if event.type in _RETURN_TYPES:
        return _find_returned(event)
    if event.type in _INVOICE_TYPES:
        return _look_at("invoice", event.object.get("id"), _read_id(event.object.get("payment_intent")))
    return _find_change(event)


def _look_at(what: Look, found: object, payment_id: str | None = None) -> LookAt | None:
    id_ = _read_id(found)
    return None if id_ is None else LookAt(what, id_, payment_id)


def _find_returned(event: Event) -> LookAt | None:
    """Refunds and disputes name their payment, and else their charge."""
    charge = event.object.get("id" if event.object.get("object") == "charge" else "charge")
    return _look_at("payment", event.object.get("payment_intent")) or _look_at("charge", charge)


def _find_change(event: Event) -> Errand | None:
    match event.type:
        case "customer.deleted":
            customer = _read_id(event.object.get("id"))
            return None if customer is None else ForgetCustomer(customer)
        case "customer.updated":
            return _find_new_default(event)
        case "payment_method.attached":
            return _note("payment_method_attached", event.object.get("customer"), event.object.get("id"))
        case "payment_method.detached":  # it belongs to nobody now
            return _note("payment_method_detached", event.previous.get("customer"), event.object.get("id"))
    return None


def _find_new_default(event: Event) -> NoteCard | None:
    before = event.previous.get("invoice_settings")
    now = event.object.get("invoice_settings")
    if not isinstance(before, dict) or "default_payment_method" not in before or not isinstance(now, dict):
        return None
    method = now.get("default_payment_method")
    if method is None:
        return _note("default_payment_method_removed", event.object.get("id"), before["default_payment_method"])
    return _note("default_payment_method_updated", event.object.get("id"), method)


def _note(action: str, customer: object, payment_method: object) -> NoteCard | None:
    customer_id, method_id = _read_id(customer), _read_id(payment_method)
    return NoteCard(action, customer_id, method_id) if customer_id and method_id else None


def _read_id(value: object) -> str | None:
    """Of an object that is named by its id, or shown whole."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and WORD.search(value) else None
