"""HTTP/2: what a client may send that upstream does not expect, and a client that grants no window."""

from contextlib import suppress
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import trio
from h2.stream import StreamState
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Body, Data
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_LOW_WATER, H2Protocol, StreamBuffer

from server.hypercorn_fixes.limits import Limits

SLICE_BYTES = 64 * 1024


class PatientBuffer(StreamBuffer):
    """The unsent body of one stream, bounded.

    Upstream lets the application go on when little was taken out, even if that is nothing because the client has
    granted no window (hypercorn/protocol/h2.py, pop): such a client makes it buffer the whole response.
    """

    async def push(self, data: bytes) -> None:
        await self._paused.clear()
        await super().push(data)

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Http2(H2Protocol):
    def __init__(self, limits: Limits, *upstream: Any) -> None:
        super().__init__(*upstream)
        self.limits = limits

    async def handle(self, event: Event) -> None:
        """Wake every task that waits for the client's window when the connection ends; upstream leaves them there."""
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in tuple(self.stream_buffers.values()):
                await buffer.close()

    async def stream_send(self, event: StreamEvent) -> None:
        """In slices: what a client takes is progress, however large the piece that the application sent."""
        if isinstance(event, (Body, Data)) and len(event.data) > SLICE_BYTES:
            for start in range(0, len(event.data), SLICE_BYTES):
                await self._send_in_time(type(event)(event.stream_id, event.data[start : start + SLICE_BYTES]))
        else:
            await self._send_in_time(event)

    async def _send_in_time(self, event: StreamEvent) -> None:
        """Reset a stream whose client grants no window for a whole write deadline."""
        with trio.move_on_after(self.limits.write_deadline_seconds) as scope:
            await super().stream_send(event)
        if scope.cancelled_caught:
            await self._reset_stream(event.stream_id)

    async def _send_data(self, stream_id: int) -> None:
        """Tell a client that still sends that its answer is complete, or it would send a file to its end for nothing:
        https://www.rfc-editor.org/rfc/rfc9113#section-8.1-10
        """
        await super()._send_data(stream_id)
        stream = self.connection.streams.get(stream_id)
        if stream is not None and stream.state_machine.state is StreamState.HALF_CLOSED_LOCAL:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
            await self._flush()

    async def _reset_stream(self, stream_id: int) -> None:
        try:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:  # it has ended meanwhile
            return
        await self._close_stream(stream_id)
        await self._window_updated(stream_id)  # the sending task finds it closed, and forgets its data
        await self._flush()

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        """One at a time, without the body of a stream that has ended.

        Upstream looks every such frame's stream up, and the KeyError ends the server: an upload that was answered
        early is enough (hypercorn/protocol/h2.py, DataReceived).
        """
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._acknowledge(event)
                await self._flush()
            else:
                await super()._handle_events([event])
        await self._flush()

    def _acknowledge(self, event: h2.events.DataReceived) -> None:
        """Give the connection's window back, or the other streams' uploads would stop one day."""
        with suppress(h2.exceptions.ProtocolError):  # the stream may be closed on both sides
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        """Refuse what has no path that an application could read: a plain CONNECT, or bytes that are not ASCII."""
        headers = dict(request.headers)
        if headers.get(b":method") == b"CONNECT" and headers.get(b":protocol") != b"websocket":
            self._refuse(request.stream_id, b"405")
        elif not headers.get(b":path", b"").isascii():
            self._refuse(request.stream_id, b"400")
        else:
            await super()._create_stream(request)

    def _refuse(self, stream_id: int, status: bytes) -> None:
        self.connection.send_headers(stream_id, [(b":status", status)], end_stream=True)
