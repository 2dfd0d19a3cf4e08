"""Calls and their answers as devices write them: checked, and brought into what the other side gets. Pure.

Payloads are rebuilt out of their members, each as it was written: so a member that comes twice, or one that only the
relay may set, cannot be read differently by who checks and who acts.
"""

from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Raw

from server.relay.call_frames import Failure
from server.relay.messages import CallRequest, CallResponse, MessageInvalid, read_object, read_uuid

MOST_REQUEST_BYTES = 8 * 1024 * 1024
MOST_RESPONSE_BYTES = 32 * 1024 * 1024 - 4096
"""The phone takes messages of less than 32 MiB."""
MOST_KEY_CHARACTERS = 256
INVALID_REQUEST, INVALID_PARAMS, INTERNAL_ERROR = -32600, -32602, -32603
"""https://www.jsonrpc.org/specification#error_object"""
SYNC_HISTORY = "session.syncHistoryState"
MOST_VERSION = 2**63 - 1

_Members = dict[str, Raw]
_MEMBERS = msgspec.json.Decoder(_Members)


class CallInvalid(Exception):
    """A call that can be answered, and is not passed on."""

    def __init__(self, call_id: str, failure: Failure) -> None:
        super().__init__(failure.message)
        self.call_id = call_id
        self.failure = failure


def read_call(payload: Raw) -> CallRequest:
    """Raises CallInvalid if there is an id to answer to, else MessageInvalid: `invalidPayload` or `missingMethod`."""
    members = read_object(_MEMBERS, payload)
    told_id = _read_text(members, "id")
    call_id = str(uuid4()) if told_id is None else told_id
    _check_size(call_id, payload)
    method = _read_text(members, "method")
    if method is None or not method.strip():
        if told_id is None:
            raise MessageInvalid("missingMethod", "method: is missing")
        raise _refuse(call_id, INVALID_REQUEST, "method: is missing")
    key, target = _read_key(call_id, members), _read_target(call_id, members)
    params = members.get("params", Raw(b"{}"))
    if method == SYNC_HISTORY:
        params = _coerce_sync(call_id, params)
    for name in ("clientId", "userId"):
        members.pop(name, None)
    members |= {"id": Raw(msgspec.json.encode(call_id)), "params": params}
    return CallRequest(call_id, method, msgspec.json.encode(members), key, target)


def read_response(payload: Raw) -> CallResponse:
    """One that is too large becomes an error for its caller. Raises MessageInvalid: `invalidPayload`, or
    `missingClientId`.
    """
    members = read_object(_MEMBERS, payload)
    client_id, call_id = _read_text(members, "clientId"), _read_text(members, "id")
    if not client_id:
        raise MessageInvalid("missingClientId", "clientId: is missing")
    if call_id is None:
        raise MessageInvalid("invalidPayload", "id: is missing")
    is_final = members.get("isFinal") != _FALSE
    del members["clientId"]
    if memoryview(payload).nbytes > MOST_RESPONSE_BYTES:
        members, is_final = _build_too_large(call_id), True
    return CallResponse(client_id, call_id, msgspec.json.encode(members), is_final)


_FALSE = Raw(b"false")


def _check_size(call_id: str, payload: Raw) -> None:
    if memoryview(payload).nbytes > MOST_REQUEST_BYTES:
        raise _refuse(call_id, INVALID_REQUEST, f"A call has up to {MOST_REQUEST_BYTES} bytes")


def _read_key(call_id: str, members: _Members) -> str | None:
    """The desktop drops a call, without a word, whose key is no text."""
    if members.get("idempotencyKey", Raw(b"null")) == Raw(b"null"):
        return None
    key = _read_text(members, "idempotencyKey")
    if key is None or len(key) > MOST_KEY_CHARACTERS:
        raise _refuse(call_id, INVALID_REQUEST, f"idempotencyKey: a text of up to {MOST_KEY_CHARACTERS} characters")
    return key


def _read_target(call_id: str, members: _Members) -> UUID | None:
    if members.get("targetDeviceId", Raw(b"null")) == Raw(b"null"):
        return None
    target = read_uuid(_read_text(members, "targetDeviceId"))
    if target is None:
        raise _refuse(call_id, INVALID_REQUEST, "targetDeviceId: a UUID")
    return target


def _coerce_sync(call_id: str, params: Raw) -> Raw:
    """The desktop takes an integer as `expectedVersion`, and nothing else."""
    try:
        found = _MEMBERS.decode(params)
    except msgspec.MsgspecError:
        raise _refuse(call_id, INVALID_PARAMS, "params: an object") from None
    if not bytes(memoryview(found.get("state", Raw(b"null")))[:1]) == b"{":
        raise _refuse(call_id, INVALID_PARAMS, "params.state: an object")
    version = coerce_version(_decode(found.get("expectedVersion", Raw(b"0"))))
    return Raw(msgspec.json.encode(found | {"expectedVersion": Raw(b"%d" % version)}))


def coerce_version(found: object) -> int:
    """0 for what is no version."""
    match found:
        case bool():
            return int(found)
        case int():
            return found
        case float() if found.is_integer() and abs(found) <= MOST_VERSION:
            return int(found)
        case str() if found.isdecimal() and found.isascii() and len(found) <= 19:
            return int(found)
    return 0


def _read_text(members: _Members, name: str) -> str | None:
    found = _decode(members[name]) if name in members else None
    return found if isinstance(found, str) else None


def _decode(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError:  # what is JSON, and cannot be read as a value: a number of a thousand digits
        return None


def _build_too_large(call_id: str) -> _Members:
    error = Failure(INTERNAL_ERROR, "The answer is larger than 32 MiB")
    return {
        "id": Raw(msgspec.json.encode(call_id)),
        "result": Raw(b"null"),
        "error": Raw(msgspec.json.encode(error)),
        "isFinal": Raw(b"true"),
    }


def _refuse(call_id: str, code: int, message: str) -> CallInvalid:
    return CallInvalid(call_id, Failure(code, message))
