"""What devices say to the relay: text frames, checked and taken apart as far as the relay has to know. Pure.

Each text is parsed once: `type` and what is needed for routing; the rest is passed on as it was written, so numbers of
any size and members that nobody here knows stay what they are. What msgspec passes over it checks nevertheless: a text
with NaN, or with a wrong escape, is no JSON.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeGuard, TypeVar
from uuid import UUID

import msgspec
from msgspec import Raw

from server.relay.key_scan import has_underscored_key
from storage.devices import Status, Vitals

MOST_ID_CHARACTERS = 256
"""Of a session's id, and of an event's type."""
MOST_EVENT_BYTES = 8 * 1024 * 1024
"""The desktop's library takes no frame of more than 16 MiB, and drops its connection for one."""
MAX_GIGABYTES = 2**63 - 1
MAX_JOBS = 2**31 - 1

Found = TypeVar("Found")


class MessageInvalid(Exception):
    """What a device sent is no message. Becomes an `error` frame."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class CallRequest:
    """`payload` is the request's JSON object as it is to reach the desktop but for `clientId` and `userId`; checked and
    coerced. `id` as text. `idempotency_key` None: it is never sent twice.
    """

    id: str
    method: str
    payload: bytes
    idempotency_key: str | None
    target_device_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class CallResponse:
    """`payload` is the response's JSON object without `clientId`, as the caller gets it."""

    client_id: str
    id: str
    payload: bytes
    is_final: bool


@dataclass(frozen=True, slots=True)
class Bind:
    session_id: str
    include_snapshot: bool = True
    force_snapshot: bool = False
    target_device_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A text frame: its type, and its payload as it was written (empty if there is none). Both hold the whole text."""

    type: str
    payload: Raw


@dataclass(frozen=True, slots=True)
class SaidEvent:
    """`payload` is any JSON, as it was written."""

    event_type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Heartbeat:
    vitals: Vitals
    active_session_id: str | None


class _Envelope(msgspec.Struct):
    type: Any = None
    payload: Raw = Raw()


class _Event(msgspec.Struct, rename="camel"):
    event_type: Any = None
    payload: Raw = Raw(b"null")


class _Bind(msgspec.Struct, rename="camel"):
    session_id: Any = None
    include_snapshot: Any = True
    force_snapshot: Any = False
    target_device_id: Any = None


class _Ack(msgspec.Struct, rename="camel"):
    last_event_id: Any = None


class _Heartbeat(msgspec.Struct, rename="camel"):
    status: Any = None
    cpu_usage: Any = None
    memory_usage: Any = None
    disk_space_gb: Any = None
    active_jobs: Any = None
    active_session_id: Any = None


_ENVELOPES = msgspec.json.Decoder(_Envelope)
_EVENTS = msgspec.json.Decoder(_Event)
_BINDS = msgspec.json.Decoder(_Bind)
_ACKS = msgspec.json.Decoder(_Ack)
_HEARTBEATS = msgspec.json.Decoder(_Heartbeat)


def read_text(text: str) -> Said:
    """Raises MessageInvalid: `invalidJson`, `invalidPayload` for an underscore in a key, `unknownMessageType` without a
    type. Neither depth nor size of a text does any harm.
    """
    try:
        envelope = _ENVELOPES.decode(text)
    except msgspec.ValidationError as error:
        raise MessageInvalid("unknownMessageType", "a message is an object with a type") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise MessageInvalid("invalidJson", "this is not JSON") from error
    except RecursionError as error:
        raise MessageInvalid("invalidJson", "this is nested too deep") from error
    if has_underscored_key(text):
        raise MessageInvalid("invalidPayload", "names are camelCase, without an underscore")
    if not isinstance(envelope.type, str):
        raise MessageInvalid("unknownMessageType", "a message has a type")
    return Said(envelope.type, envelope.payload)


def read_event(payload: Raw) -> SaidEvent:
    """Raises MessageInvalid: `invalidPayload`, or `messageTooLarge`."""
    event = read_object(_EVENTS, payload)
    event_type, inner = event.event_type, bytes(event.payload)
    if not isinstance(event_type, str) or not event_type.strip() or len(event_type) > MOST_ID_CHARACTERS:
        raise MessageInvalid("invalidPayload", f"eventType: a text of up to {MOST_ID_CHARACTERS} characters")
    if len(inner) > MOST_EVENT_BYTES:
        raise MessageInvalid("messageTooLarge", f"an event has up to {MOST_EVENT_BYTES} bytes")
    return SaidEvent(event_type, inner)


def read_ack(payload: Raw) -> int | None:
    """None for what is malformed: it is let go without a word."""
    try:
        found = _ACKS.decode(payload).last_event_id
    except msgspec.MsgspecError:
        return None
    return read_event_id(found)


def read_event_id(found: object) -> int | None:
    return found if type(found) is int and 0 <= found < 2**63 else None


def read_bind(payload: Raw) -> Bind:
    """Raises MessageInvalid: `missingPayload`, `missingSessionId`, or `invalidPayload`."""
    bind = _read_binding(payload)
    target = bind.target_device_id
    if target is not None and (target := read_uuid(target)) is None:
        raise MessageInvalid("invalidPayload", "targetDeviceId: a UUID")
    return Bind(bind.session_id, bind.include_snapshot is not False, bind.force_snapshot is True, target)


def read_unbind(payload: Raw) -> str:
    """The session's id. Raises MessageInvalid: `missingPayload`, or `missingSessionId`."""
    session_id: str = _read_binding(payload).session_id
    return session_id


def read_heartbeat(payload: Raw) -> Heartbeat:
    """What is not as it should be counts as not told: a heartbeat always counts."""
    try:
        told = _HEARTBEATS.decode(payload)
    except msgspec.MsgspecError:
        told = _Heartbeat()
    session_id = told.active_session_id
    is_named = isinstance(session_id, str) and 0 < len(session_id) <= MOST_ID_CHARACTERS
    vitals = Vitals(
        status=_read_status(told.status),
        cpu_usage=_read_percent(told.cpu_usage),
        memory_usage=_read_percent(told.memory_usage),
        disk_space_gb=_read_count(told.disk_space_gb, MAX_GIGABYTES),
        active_jobs=_read_count(told.active_jobs, MAX_JOBS) or 0,
    )
    return Heartbeat(vitals, session_id if is_named else None)


def read_object(decoder: "msgspec.json.Decoder[Found]", payload: Raw) -> Found:
    """Raises MessageInvalid `invalidPayload` unless it is an object. It has been found to be JSON before."""
    try:
        return decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise MessageInvalid("invalidPayload", "payload: an object") from error


def read_uuid(found: object) -> UUID | None:
    """Written as devices write it: with dashes, in either case."""
    if not isinstance(found, str) or len(found) != 36:
        return None
    try:
        return msgspec.convert(found.lower(), UUID)
    except msgspec.ValidationError:
        return None


def _read_binding(payload: Raw) -> _Bind:
    if bytes(memoryview(payload)[:4]) in {b"", b"null"}:
        raise MessageInvalid("missingPayload", "a payload is missing")
    bind = read_object(_BINDS, payload)
    session_id = bind.session_id
    if not isinstance(session_id, str) or not 0 < len(session_id) <= MOST_ID_CHARACTERS:
        raise MessageInvalid("missingSessionId", f"sessionId: a text of up to {MOST_ID_CHARACTERS} characters")
    return bind


def _read_status(found: object) -> Status:
    match found:
        case "online" | "away" | "offline":
            return found
    return "online"


def _read_percent(found: object) -> Decimal | None:
    return Decimal(str(round(found, 2))) if _is_number(found) and 0 <= found <= 100 else None


def _read_count(found: object, most: int) -> int | None:
    return int(found) if _is_number(found) and 0 <= found <= most else None


def _is_number(found: object) -> TypeGuard[int | float]:
    return isinstance(found, int | float) and not isinstance(found, bool)
