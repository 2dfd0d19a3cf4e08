"""`/ws/events` as server-sent events. Whoever asks for a WebSocket there is answered by server/sockets.py."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, cast

import msgspec
from quart import Blueprint, Response, request

from server.connection import keep_open
from server.guard import access, caller
from server.operations import EVENT_STREAM, Content, operation
from server.relay.event_lines import MAX_EVENT_ID, MAX_TYPES_CHARACTERS, read_wish, write_lines
from server.relay.outbox import Outbox
from server.services import services
from server.streaming import HEADERS

STOPPING = "cloche.stopping"
"""What server/hypercorn_fixes/http1.py adds to a request."""

blueprint = Blueprint("events", __name__, url_prefix="/ws")


class EventsQuery(msgspec.Struct, rename="camel"):
    """`types` is a list with commas: only such events are told, and gaps. Events after `lastEventId` are told first."""

    types: Annotated[str, msgspec.Meta(max_length=MAX_TYPES_CHARACTERS)] = ""
    last_event_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENT_ID)] | None = None


@blueprint.get("/events")
@access(budget="sockets")
@operation(
    "Watch what happens to you",
    query=EventsQuery,
    answers={200: Content(media_type=EVENT_STREAM)},
    headers={"Last-Event-ID": "The id of the last event that you have seen; it counts more than `lastEventId`."},
)
async def watch() -> Response:
    """Server-sent events without an end: what your devices tell each other, and `configuration-changed`,
    `balance-changed`, `notification-created`, `chat-started`, `chat-progress` and `chat-finished`. The `data` of an
    event is JSON, with its payload in `payload.payload`. A heartbeat, which has no name, comes at once and every 30
    seconds.

    Events that have an `id` are told again to who comes back with the last one that it has seen, within a day. If some
    of them are gone by then, `event-replay-gap` comes first: then read everything anew. The stream ends when the
    sign-in does, and when the server stops.

    Asked to upgrade to a WebSocket, the same path gives the same events as text messages.
    """
    wish = read_wish(request.args, request.headers)
    if request.method == "HEAD":
        return Response(b"", content_type=EVENT_STREAM, headers=HEADERS)
    watcher = await keep_open(services().watching.open_stream(caller(), wish, find_hear_stopping(request.scope)))
    response = Response(write_stream(watcher.outbox), content_type=EVENT_STREAM, headers=HEADERS)
    response.timeout = None  # a stream has no end of its own; Quart would give it one
    return response


async def write_stream(outbox: Outbox) -> AsyncIterator[bytes]:
    """Owns nothing: the watcher is on the request's exit stack."""
    while (frames := await outbox.take()) is not None:
        yield write_lines(frames)
        outbox.note_written(len(frames))


def find_hear_stopping(scope: Any) -> Callable[[Callable[[], None]], object]:
    extension = cast(dict[str, Any], scope.get("extensions") or {}).get(STOPPING)
    return ignore if extension is None else cast(Callable[[Callable[[], None]], object], extension["hear"])


def ignore(_listener: Callable[[], None]) -> None:
    """A server that does not tell when it stops ends its streams by itself."""
