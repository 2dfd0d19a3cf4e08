"""What the relay itself says to a device, as JSON. Pure."""

from datetime import UTC, datetime

import msgspec

from server.times import show_exact_time

PONG = b'{"type":"pong"}'


class _Registered(msgspec.Struct, rename="camel"):
    type: str
    session_id: str
    resume_token: str
    expires_at: str


class _Resumed(msgspec.Struct, rename="camel"):
    type: str
    session_id: str
    expires_at: str


class _Error(msgspec.Struct):
    type: str
    code: str
    message: str
    timestamp: str


def build_registered(session_id: str, resume_token: str, expires_at: datetime) -> bytes:
    return msgspec.json.encode(_Registered("registered", session_id, resume_token, _show(expires_at)))


def build_resumed(session_id: str, expires_at: datetime) -> bytes:
    return msgspec.json.encode(_Resumed("resumed", session_id, _show(expires_at)))


def build_error(code: str, message: str, at: datetime) -> bytes:
    return msgspec.json.encode(_Error("error", code, message, show_exact_time(at)))


def _show(at: datetime) -> str:
    """As clients have always been told it; it means nothing to them."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
