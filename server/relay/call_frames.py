"""What desktops and callers are told of calls, as JSON. Pure."""

from dataclasses import dataclass
from uuid import UUID

import msgspec


@dataclass(frozen=True, slots=True)
class Failure:
    """What a call is answered with if no desktop answers it."""

    code: int
    message: str


OFFLINE = Failure(-32010, "Desktop is offline")
"""The phone app knows it by its code, or by these words."""
TOO_LATE = Failure(-32603, "The desktop has not answered in time")
TOO_MANY = Failure(-32603, "Too many calls of this device wait for an answer: wait for some of them")
UNDELIVERABLE = Failure(-32603, "The answer could not be delivered in time")
ID_TOO_LONG = Failure(-32600, "The id of this call is too long")


class _Answer(msgspec.Struct, rename="camel"):
    id: str
    error: Failure
    result: None = None
    is_final: bool = True


def build_call(payload: bytes, device_id: UUID, user_id: UUID) -> bytes:
    """As the desktop gets it. `payload` is an object that is not empty."""
    caller = b',"clientId":"%b","userId":"%b"}}' % (str(device_id).encode(), str(user_id).encode())
    return b"".join((b'{"type":"rpc.request","payload":', memoryview(payload)[:-1], caller))


def build_answer(payload: bytes) -> bytes:
    """As the caller gets it."""
    return b"".join((b'{"type":"rpc.response","payload":', payload, b"}"))


def build_failure(call_id: str, failure: Failure) -> bytes:
    """The payload of an answer."""
    return msgspec.json.encode(_Answer(call_id, failure))
