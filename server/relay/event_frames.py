"""Events as they are written: by who publishes, for Redis; and by each process for its sockets. Pure.

Who publishes writes the frame once, up to its id, which nobody knows yet, and a line above it which says what others
need to know without reading the frame.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from server.times import show_exact_time
from server.websocket_frames import build_text
from storage.presence import ClientType

Source = ClientType | Literal["server"]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """`payload` is JSON, as the device wrote it. `is_kept`: has an id, and is replayed. Of those that are kept and have
    the same `newest_of`, only the newest is kept. `is_for_watchers`: only `/ws/events` hears of it. `connected_at`:
    since when the device's connection stands, by Redis's clock; 0 if that is not known.
    """

    event_type: str
    payload: bytes = field(repr=False)
    source: Source
    source_device_id: UUID | None = None
    is_kept: bool = True
    newest_of: str | None = None
    is_for_watchers: bool = False
    connected_at: int = 0


class About(msgspec.Struct, array_like=True, frozen=True):
    """What an event is, for who is to decide whom to tell it. `token` is its own. A `status` concerns the device that
    it names, and comes from none.
    """

    source: Source | Literal["status"]
    device_id: UUID | None
    event_type: str
    is_for_watchers: bool
    token: str


class _Status(msgspec.Struct, rename="camel"):
    event_type: str
    payload: msgspec.Raw


class _Subject(msgspec.Struct, rename="camel"):
    device_id: UUID | None = None


_decode_about = msgspec.json.Decoder(About).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_decode_subject = msgspec.json.Decoder(_Subject).decode


def build_body(event: NewEvent, token: str, at: datetime) -> bytes:
    about = About(event.source, event.source_device_id, event.event_type, event.is_for_watchers, token)
    return msgspec.json.encode(about) + b"\n" + _build_head(event.event_type, event.payload, event.source_device_id, at)


def read_body(body: bytes) -> tuple[About, bytes]:
    """And the frame's head. The line above it is JSON, in which no line ends."""
    about, _, head = body.partition(b"\n")
    return _decode_about(about), head


def read_status(said: bytes, at: datetime) -> tuple[About, bytes]:
    """Raises msgspec.MsgspecError."""
    status = _decode_status(said)
    about = About("status", _decode_subject(status.payload).device_id, status.event_type, False, "")
    return about, _build_head(status.event_type, bytes(status.payload), None, at)


def build_frame(head: bytes, event_id: int) -> bytes:
    """A WebSocket frame. Without an id if that is 0."""
    return build_text(head + (b',"eventId":%d}' % event_id if event_id else b"}"))


def build_gap_frame(last_event_id: int, oldest: int, latest: int, at: datetime) -> bytes:
    """It has no id: a client that acknowledged one would miss what follows."""
    said = {"lastEventId": last_event_id, "oldestBufferedId": oldest, "latestBufferedId": latest}
    return build_passing_frame("event-replay-gap", msgspec.json.encode(said), at)


def build_passing_frame(event_type: str, payload: bytes, at: datetime) -> bytes:
    """Of an event that has no id, comes from no device, and is told to somebody of this process alone."""
    return build_frame(_build_head(event_type, payload, None, at), 0)


def _build_head(event_type: str, payload: bytes, source_device_id: UUID | None, at: datetime) -> bytes:
    return b"".join(
        (
            b'{"type":"event","payload":{"eventType":',
            msgspec.json.encode(event_type),
            b',"payload":',
            payload,
            b'},"targetDeviceId":null,"sourceDeviceId":',
            msgspec.json.encode(source_device_id),
            b',"timestamp":"',
            show_exact_time(at).encode(),
            b'"',
        )
    )
