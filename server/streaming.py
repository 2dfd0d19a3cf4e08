"""Chat events to `text/event-stream`, with a comment wherever there would be silence."""

from collections.abc import AsyncIterator

import trio
from quart import Response

from proxy.events import ChatEvent
from proxy.gateway import Chat
from proxy.sse import KEEP_ALIVE
from server.dialects.dialect import Encoder

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def stream_response(
    chat: Chat, encoder: Encoder, first: list[ChatEvent] | None, keep_alive_seconds: float
) -> Response:
    """The answer as a stream, starting with the events that have come already, if any."""
    body = event_stream(chat, encoder, first, keep_alive_seconds)
    response = Response(body, content_type="text/event-stream", headers=HEADERS)
    response.timeout = None  # a stream may be long; Quart would end it silently
    return response


async def wait_first(chat: Chat, seconds: float) -> list[ChatEvent] | None:
    """The first events, or None if none come within that time."""
    with trio.move_on_after(seconds):
        return await chat.next_events()
    return None


async def event_stream(
    chat: Chat, encoder: Encoder, first: list[ChatEvent] | None, keep_alive_seconds: float
) -> AsyncIterator[bytes]:
    """The bytes of a stream. Owns nothing: the call is on the request's exit stack.

    What has come together goes out together, in one send.
    """
    yield encoder.open() + encoder.encode(first or [])
    last_sent = trio.current_time()
    while True:
        events: list[ChatEvent] | None = None
        with trio.CancelScope(deadline=last_sent + keep_alive_seconds):
            events = await chat.next_events()
        if events == []:
            return
        data = encoder.encode(events) if events else KEEP_ALIVE
        if data:
            yield data
            last_sent = trio.current_time()
