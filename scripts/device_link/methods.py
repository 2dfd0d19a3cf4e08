"""The methods that our desktop answers: enough to try a phone with. Pure but for the clock that is passed in."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

Answer = tuple[Any, dict[str, Any] | None]
"""Result and error."""

NOT_FOUND, UNKNOWN_METHOD, INVALID_PARAMS, VALIDATION = -32002, -32601, -32602, -32004
MUTATING = (".create", ".update", ".delete", ".cancel", ".sync", ".set", ".start", ".kill", ".merge", ".rename",
            ".duplicate")
"""The phone's calls of these carry an idempotency key: their id."""


def is_mutating(method: str) -> bool:
    return any(part in method for part in MUTATING)


def fail(code: int, message: str) -> Answer:
    return None, {"code": code, "message": message}


def answer(method: str, params: Any, now: str) -> Answer:
    """Of what needs no terminal. `now` is a date as the apps write it."""
    if has_underscored_key(params):
        return fail(INVALID_PARAMS, "keys are written in camelCase")
    match method:
        case "system.ping" | "ping":
            return {"pong": True, "timestamp": now}, None
        case "echo":
            return params, None
        case "get_status":
            return {"status": "online", "version": "1.0.0", "timestamp": now, "capabilities": ["terminal"]}, None
        case "session.get":
            return answer_session(params)
        case "session.list":
            return {"sessions": [], "totalCount": 0, "offset": 0, "limit": 100}, None
        case "job.list":
            return {"jobs": [], "totalCount": 0, "page": 0, "pageSize": 50, "hasMore": False}, None
        case _:
            return fail(UNKNOWN_METHOD, f"unknown method: {method}")


def answer_session(params: Any) -> Answer:
    session_id = params.get("sessionId") if isinstance(params, Mapping) else None
    if not isinstance(session_id, str) or not session_id:
        return fail(INVALID_PARAMS, "sessionId is missing")
    return {"session": {"id": session_id, "name": "A session", "projectDirectory": "/home/me/project"}}, None


def read_input(params: Mapping[str, Any]) -> bytes | None:
    """What `terminal.write` brings: text, or data in base64. None if neither can be read."""
    match params:
        case {"text": str(text)}:
            return text.encode()
        case {"data": str(data)}:
            try:
                return base64.b64decode(data, validate=True)
            except binascii.Error:
                return None
    return None


def has_underscored_key(value: Any) -> bool:
    """The scan that both apps run over what they receive; a message that has one is dropped whole."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                if any("_" in key for key in members):
                    return True
                waiting.extend(members.values())
            case list() as items:
                waiting.extend(items)
    return False
