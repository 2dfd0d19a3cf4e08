"""`/ws/events` as server-sent events: what its caller asks for, and frames as lines of text/event-stream. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

from server.auth.tokens import Headers
from server.errors import RequestInvalid

GAP = "event-replay-gap"
"""Told whatever types are asked for: whoever misses events has to hear of it."""
MAX_TYPES = 100
MAX_TYPES_CHARACTERS = 4000
MAX_EVENT_ID = 2**53 - 1
"""What every client can read: https://www.rfc-editor.org/rfc/rfc8259#section-6."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_TEXT = 0x81


@dataclass(frozen=True, slots=True)
class WatchWish:
    """`types` is empty where all are wanted. Without `last_event_id` nothing is replayed."""

    types: frozenset[str] = frozenset()
    last_event_id: int | None = None

    def wants(self, event_type: str) -> bool:
        return not self.types or event_type in self.types or event_type == GAP


class _Payload(msgspec.Struct, rename="camel"):
    event_type: str = ""


class _Frame(msgspec.Struct, rename="camel"):
    type: str = ""
    payload: _Payload | UnsetType = UNSET
    event_id: int | UnsetType = UNSET


_decode_frame = msgspec.json.Decoder(_Frame).decode


def read_wish(query: Mapping[str, str], headers: Headers) -> WatchWish:
    """The header counts more than the query: a browser that reconnects keeps its URL. Raises RequestInvalid."""
    types = query.get("types", "")
    if len(types) > MAX_TYPES_CHARACTERS or types.count(",") >= MAX_TYPES:
        raise RequestInvalid(f"types: at most {MAX_TYPES}, and {MAX_TYPES_CHARACTERS} characters")
    names = frozenset(name.strip() for name in types.split(",")) - {""}
    return WatchWish(names, _read_id(headers.get("Last-Event-ID") or query.get("lastEventId") or ""))


def _read_id(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_EVENT_ID):
        raise RequestInvalid("lastEventId: the number of an event, as its id has it")
    return int(text)


def write_lines(frames: bytes) -> bytes:
    """Whole frames, as they come out of an outbox, as a piece of a stream. Only texts are told."""
    return b"".join([write_event(text) for text in read_texts(frames)])


def write_event(text: bytes) -> bytes:
    """One JSON text as one event: `id` where it has one, `event` where it is an event."""
    frame = _decode_frame(text)
    lines = [] if frame.event_id is UNSET else [b"id: %d" % frame.event_id]
    if frame.type == "event" and frame.payload is not UNSET:
        lines.append(b"event: " + _LINE_END.sub(b" ", frame.payload.event_type.encode()))
    lines += [b"data: " + line for line in (_LINE_END.split(text) if b"\n" in text or b"\r" in text else (text,))]
    return b"\n".join([*lines, b"", b""])


def read_texts(frames: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(frames):
        first, size = frames[at], frames[at + 1]
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(frames[at : at + width], "big")
            at += width
        if first == _TEXT:
            yield frames[at : at + size]
        at += size
