"""One connection of a server that speaks HTTP/2 as APNs does, and misbehaves as it is told.

https://www.rfc-editor.org/rfc/rfc9113. One stream is allowed until the service opens up.
"""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from tests.push_stand_in.apns_rules import ApnsRequest
from tests.push_stand_in.books import Book, Push
from tests.push_stand_in.steps import Accept, Cut, GoAway, Held, ResetStream, Say, Silence, Step

RECEIVE_BYTES = 65536
STREAMS_BEFORE, STREAMS_AFTER = 1, 1000
SECONDS_TO_CLOSE = 1
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Take = Callable[["Http2Connection", ApnsRequest], tuple[Push, Step]]


@dataclass(slots=True)
class _Partial:
    headers: tuple[tuple[str, str], ...]
    body: bytearray = field(default_factory=bytearray)


class Http2Connection:
    """`violations` gets what the client has done against the protocol. Pushes without an answer are lost at the end."""

    def __init__(
        self, tcp: trio.SocketStream, tls: trio.SSLStream[trio.SocketStream], number: int, book: Book
    ) -> None:
        self.number = number
        self.violations: list[str] = []
        self.is_open = True
        self._tcp = tcp
        self._tls = tls
        self._book = book
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        allowed = {SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_BEFORE, SettingCodes.MAX_HEADER_LIST_SIZE: 8000}
        self._h2.local_settings = Settings(client=False, initial_values=allowed)
        self._raw = b""
        self._partial: dict[int, _Partial] = {}
        self._waiting: dict[int, Push] = {}
        self._answered: dict[Push, bool] = {}
        self._lost: list[Push] = []
        self._highest_taken = 0
        self._last_stream: int | None = None
        self._is_opened_up = False
        self._is_done = False
        self._lock = trio.Lock()
        self._scope = trio.CancelScope()

    async def serve(self, take: Take) -> None:
        """Until either side ends it. `take` says for each whole request what to do."""
        try:
            with self._scope:
                await self._tls.do_handshake()
                self._h2.initiate_connection()
                await self._flush()
                async with trio.open_nursery() as nursery:
                    await self._read(take, nursery)
                    nursery.cancel_scope.cancel()
        except trio.BrokenResourceError:
            pass  # the client has left before we have said anything
        finally:
            self.is_open = False
            for push in (*self._waiting.values(), *self._answered, *self._lost):
                self._book.lose(push)
            with trio.CancelScope(deadline=trio.current_time() + SECONDS_TO_CLOSE, shield=True):
                await self._close()

    async def _close(self) -> None:
        """With TLS's farewell, if this end was announced."""
        if self._is_done:
            await self._tls.aclose()
        else:
            await trio.aclose_forcefully(self._tls)

    def open_up(self) -> None:
        """The client has shown who it is."""
        if not self._is_opened_up:
            self._is_opened_up = True
            self.allow_streams(STREAMS_AFTER)

    def allow_streams(self, count: int) -> None:
        """Goes out with the next answer."""
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: count})

    def cut(self) -> None:
        """At once, with an RST: who waits for an answer gets none."""
        self._tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, _RESET_ON_CLOSE)
        self._scope.cancel()

    async def go_away(self, reason: str = "", error_code: int = 0) -> None:
        """Of what comes from now on nothing is looked at; what came before is answered, then the connection ends."""
        self._say_goodbye(reason, error_code, self._h2.highest_inbound_stream_id)
        await self._flush()
        await self._end_if_done()

    async def _read(self, take: Take, nursery: trio.Nursery) -> None:
        while data := await self._receive():
            try:
                events = self._h2.receive_data(data)
            except ProtocolError as error:
                self.violations.append(str(error))
                await self._flush()
                return
            for event in events:
                await self._take_event(event, take, nursery)
            await self._flush()
            await self._end_if_done()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._tls.receive_some(RECEIVE_BYTES))
        except trio.BrokenResourceError:
            return b""

    async def _take_event(self, event: Event, take: Take, nursery: trio.Nursery) -> None:
        match event:
            case RequestReceived():
                self._partial[event.stream_id] = _Partial(tuple((str(n), str(v)) for n, v in event.headers))
            case DataReceived():
                if event.stream_id in self._partial:
                    self._partial[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                await self._take_request(event.stream_id, take, nursery)
            case StreamReset():
                self._partial.pop(event.stream_id, None)
                self._lose(event.stream_id)

    async def _take_request(self, stream_id: int, take: Take, nursery: trio.Nursery) -> None:
        partial = self._partial.pop(stream_id, None)
        if partial is None or (self._last_stream is not None and stream_id > self._last_stream):
            return
        push, step = take(self, ApnsRequest(partial.headers, bytes(partial.body)))
        self._waiting[stream_id] = push
        with suppress(StreamClosedError, StreamIDTooLowError):  # called off in the same breath: that is the next event
            await self._act(stream_id, step, nursery)
        self._highest_taken = max(stream_id, self._highest_taken)

    async def _act(self, stream_id: int, step: Step, nursery: trio.Nursery) -> None:
        match step:
            case Accept():
                self._answer(stream_id, Say(200))
            case Say():
                self._answer(stream_id, step)
            case Held():
                nursery.start_soon(self._hold, stream_id, step, nursery)
            case ResetStream(error_code):
                self._h2.reset_stream(stream_id, error_code)
                self._lose(stream_id)
            case GoAway(reason, error_code):
                self._lose(stream_id)
                self._say_goodbye(reason, error_code, self._highest_taken)
            case Cut():
                await self._flush()
                self.cut()
            case Silence():
                pass

    async def _hold(self, stream_id: int, step: Held, nursery: trio.Nursery) -> None:
        if isinstance(step.until, trio.Event):
            await step.until.wait()
        else:
            await trio.sleep(step.until)
        if stream_id in self._waiting:
            await self._act(stream_id, step.then, nursery)
            await self._flush()
            await self._end_if_done()

    def _answer(self, stream_id: int, say: Say) -> None:
        push = self._waiting[stream_id]
        fields = [(":status", str(say.status)), ("apns-id", push.push_id), *say.headers.items()]
        self._h2.send_headers(stream_id, fields, end_stream=not say.body)
        if say.body:
            self._h2.send_data(stream_id, say.body, end_stream=True)
        self._answered[self._waiting.pop(stream_id)] = say.status == 200

    def _lose(self, stream_id: int) -> None:
        push = self._waiting.pop(stream_id, None)
        self._lost += [push] if push is not None else []

    def _say_goodbye(self, reason: str, error_code: int, last_stream: int) -> None:
        """By hand: after its own GOAWAY h2 sends no more answers."""
        body = json.dumps({"reason": reason}).encode() if reason else b""
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=error_code, additional_data=body)
        self._raw += frame.serialize()
        self._last_stream = last_stream

    async def _end_if_done(self) -> None:
        if self._last_stream is None or any(each <= self._last_stream for each in (*self._waiting, *self._partial)):
            return
        self._is_done = True
        self._scope.cancel()

    async def _flush(self) -> None:
        async with self._lock:
            answered = tuple(self._answered)
            data, self._raw = self._h2.data_to_send() + self._raw, b""
            try:
                await self._tls.send_all(data)
            except trio.BrokenResourceError:
                self._scope.cancel()
                return
            for push in answered:
                if self._answered.pop(push):
                    self._book.acknowledge(push)
