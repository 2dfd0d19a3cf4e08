"""What is said of terminals, and what carries their output. Pure.

PTC1, a binary message: `PTC1`, the length of the session's id as two bytes (big-endian), the id in UTF-8, then bytes.
"""

from datetime import datetime
from typing import Literal

import msgspec

from server.times import show_exact_time

TerminalError = Literal["missingSessionId", "producerNotConnected", "forwardFailed"]
_TEXTS: dict[TerminalError, str] = {
    "missingSessionId": "sessionId names no terminal",
    "producerNotConnected": "No desktop is connected",
    "forwardFailed": "The desktop could not be reached",
}
_MAGIC = b"PTC1"
_HEAD_BYTES = 6
_MAX_ID_BYTES = 65_535


def build_frame(session_id: bytes, data: bytes) -> bytes:
    """As a desktop sends it; `session_id` as `encode_session` has it."""
    return _MAGIC + len(session_id).to_bytes(2, "big") + session_id + data


def read_session(frame: bytes) -> bytes | None:
    """The session's id as it is written; None if this is no such frame. Whether it is UTF-8 need not be asked: sessions
    are found by what `encode_session` has made.
    """
    if len(frame) < _HEAD_BYTES or not frame.startswith(_MAGIC):
        return None
    end = _HEAD_BYTES + (frame[4] << 8) + frame[5]
    return frame[_HEAD_BYTES:end] if end <= len(frame) else None


def encode_session(session_id: str) -> bytes | None:
    """As frames name it. None for one that no frame could name: it is empty, too long, or no Unicode text."""
    try:
        encoded = session_id.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return None
    return encoded if 0 < len(encoded) <= _MAX_ID_BYTES else None


class _Named(msgspec.Struct, rename="camel"):
    session_id: str


class _Asked(msgspec.Struct, rename="camel"):
    session_id: str
    include_snapshot: bool
    force_snapshot: bool


class _Error(msgspec.Struct):
    type: str
    code: str
    message: str
    timestamp: str


def build_bind(session_id: str, *, include_snapshot: bool, force_snapshot: bool) -> bytes:
    """For the desktop, a text message like those that follow."""
    return _build("terminal.binary.bind", _Asked(session_id, include_snapshot, force_snapshot))


def build_unbind(session_id: str) -> bytes:
    return _build("terminal.binary.unbind", _Named(session_id))


def build_bound(session_id: str) -> bytes:
    """For the device that has bound it."""
    return _build("terminal.binary.bound", _Named(session_id))


def build_refusal(code: TerminalError, at: datetime) -> bytes:
    return msgspec.json.encode(_Error("error", code, _TEXTS[code], show_exact_time(at)))


def _build(kind: str, payload: _Named | _Asked) -> bytes:
    return b'{"type":"%b","payload":%b}' % (kind.encode(), msgspec.json.encode(payload))
