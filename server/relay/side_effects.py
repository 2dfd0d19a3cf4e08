"""What an event means to the relay itself, beside being passed on. Pure."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from server.relay.messages import MOST_ID_CHARACTERS, MessageInvalid, SaidEvent

HINT = "active-session-changed"
COALESCED = "history-state-changed"
NOT_KEPT = frozenset({HINT, "job:response-appended", "device-status", "device-unlinked", "event-replay-gap"})
MOST_DIRECTORY_CHARACTERS = 4096
RUNNING = frozenset({"running", "preparing", "queued", "acknowledged_by_worker", "created"})

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Effects:
    """`hint` is the payload of an extra event that comes before it: the session that a job makes active.
    `newest_of`: of events that share it only the newest is worth keeping.
    """

    is_kept: bool = True
    newest_of: str | None = None
    hint: bytes | None = None
    is_visible: bool | None = None
    project_directory: str | None = None


class _Job(msgspec.Struct, rename="camel"):
    job_id: Any = None
    session_id: Any = None
    status: Any = None
    project_directory: Any = None
    job: msgspec.Raw = msgspec.Raw(b"null")


class _Nested(msgspec.Struct, rename="camel"):
    session_id: Any = None
    project_directory: Any = None


class _Setting(msgspec.Struct, rename="camel"):
    visible: Any = None
    project_directory: Any = None


class _History(msgspec.Struct, rename="camel"):
    session_id: Any = None
    kind: Any = None


_JOBS = msgspec.json.Decoder(_Job)
_NESTED = msgspec.json.Decoder(_Nested)
_SETTINGS = msgspec.json.Decoder(_Setting)
_HISTORIES = msgspec.json.Decoder(_History)
_PLAIN = Effects()
_LIVE = Effects(is_kept=False)


def find_effects(event: SaidEvent) -> Effects:
    """Raises MessageInvalid for an event of a job that does not say which."""
    kind = event.event_type
    if kind.startswith("job:"):
        return _find_of_job(event)
    if kind == COALESCED:
        return Effects(newest_of=_name_history(event))
    if kind == "device-visibility-updated":
        found = _decode(_SETTINGS, event.payload)
        return Effects(is_visible=found.visible if found and isinstance(found.visible, bool) else None)
    if kind == "project-directory-updated":
        found = _decode(_SETTINGS, event.payload)
        return Effects(project_directory=_read_directory(found.project_directory) if found else None)
    return _LIVE if kind in NOT_KEPT else _PLAIN


def build_hint(session_id: str, project_directory: str | None = None) -> bytes:
    """The payload."""
    found = {"sessionId": session_id}
    return msgspec.json.encode(found if project_directory is None else found | {"projectDirectory": project_directory})


def _find_of_job(event: SaidEvent) -> Effects:
    job = _decode(_JOBS, event.payload)
    if job is None or not (_is_name(job.job_id) and _is_name(job.session_id)):
        raise MessageInvalid("invalidPayload", "an event of a job has a jobId and a sessionId")
    is_running = isinstance(job.status, str) and job.status in RUNNING
    if event.event_type == "job:status-changed" and is_running:
        return Effects(hint=_build_hint_of(job, job.session_id))
    if event.event_type == "job:created" and (nested := _decode(_NESTED, job.job)) and _is_name(nested.session_id):
        return Effects(hint=_build_hint_of(job, nested.session_id))
    return _LIVE if event.event_type in NOT_KEPT else _PLAIN


def _build_hint_of(job: _Job, session_id: str) -> bytes | None:
    if len(session_id) > MOST_ID_CHARACTERS:
        return None
    nested = _decode(_NESTED, job.job) or _Nested()
    return build_hint(session_id, _read_directory(job.project_directory) or _read_directory(nested.project_directory))


def _name_history(event: SaidEvent) -> str | None:
    found = _decode(_HISTORIES, event.payload)
    if found is None or not (_is_name(found.session_id) and _is_name(found.kind)):
        return None
    names = msgspec.json.encode((found.session_id, found.kind)).decode()
    return f"{COALESCED}:{names}" if len(names) <= MOST_ID_CHARACTERS else None


def _decode(decoder: "msgspec.json.Decoder[Found]", payload: bytes | msgspec.Raw) -> Found | None:
    """None for what is no object."""
    try:
        return decoder.decode(payload)
    except msgspec.MsgspecError:
        return None


def _read_directory(found: object) -> str | None:
    """PostgreSQL keeps no NUL: https://www.postgresql.org/docs/current/datatype-character.html"""
    if not isinstance(found, str) or "\0" in found:
        return None
    return found if 0 < len(found) <= MOST_DIRECTORY_CHARACTERS else None


def _is_name(found: object) -> bool:
    return isinstance(found, str) and bool(found.strip())
