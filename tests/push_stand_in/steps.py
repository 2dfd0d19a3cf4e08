"""What a push service may do with a request instead of what its rules say."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import trio

from tests.push_stand_in.books import Push


@dataclass(frozen=True, slots=True)
class Accept:
    """What it does anyway."""


@dataclass(frozen=True, slots=True)
class Say:
    """An answer, whatever the rules say. One with a status of 200 is an acknowledgement."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is reset: neither this request is answered nor any other that waits for its answer."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Never answered. The others are."""


@dataclass(frozen=True, slots=True)
class ResetStream:
    """RST_STREAM. 7 is REFUSED_STREAM, which promises that nothing was done; 2 is INTERNAL_ERROR."""

    error_code: int = 7


@dataclass(frozen=True, slots=True)
class GoAway:
    """GOAWAY with a reason as Apple sends it. This request was not looked at; those before it are answered, then the
    connection ends.
    """

    reason: str = ""
    error_code: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing until the event, or for so many seconds; then the step."""

    until: trio.Event | float
    then: "Step" = field(default_factory=Accept)


Step = Accept | Say | Cut | Silence | ResetStream | GoAway | Held


def refuse_apns(status: int, reason: str, *, since: datetime | None = None, **headers: str) -> Say:
    """As Apple does. `since` is its timestamp; underscores of header names become hyphens."""
    fields: dict[str, object] = {"reason": reason}
    if since is not None:
        fields["timestamp"] = int(since.timestamp() * 1000)
    return Say(status, msgspec.json.encode(fields), _name(headers))


def refuse_fcm(status: int, code: str, error_code: str = "", message: str = "Scripted", **headers: str) -> Say:
    """As Google does: `code` is of google.rpc, `error_code` FCM's own."""
    error: dict[str, object] = {"code": status, "message": message, "status": code}
    if error_code:
        kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
        error["details"] = [{"@type": kind, "errorCode": error_code}]
    return Say(status, msgspec.json.encode({"error": error}), _name(headers))


def _name(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(slots=True)
class Script:
    """Asked for each request that the rules allow. A token's steps are taken one by one, and come before those of a
    request's number; whoever has none gets what `otherwise` says.
    """

    by_token: dict[str, deque[Step]] = field(default_factory=dict)
    by_number: dict[int, Step] = field(default_factory=dict)
    otherwise: Callable[[Push], Step] = lambda _: Accept()

    def play(self, token: str, *steps: Step) -> None:
        """For the next requests for this token, one each; then it is as ever."""
        self.by_token.setdefault(token, deque()).extend(steps)

    def take(self, push: Push) -> Step:
        if steps := self.by_token.get(push.token):
            return steps.popleft()
        return self.by_number.pop(push.number, None) or self.otherwise(push)
