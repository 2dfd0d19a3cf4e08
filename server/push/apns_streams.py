"""The requests on one HTTP/2 connection to APNs: bytes in, answers out. No I/O; h2 reads and writes the frames.

https://www.rfc-editor.org/rfc/rfc9113. What h2 leaves to its caller is here: how many streams the peer allows, sending
no more than its windows have room for, and an ending connection, on which h2 would read nothing more
(https://github.com/python-hyper/h2/issues/1181).
"""

import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error, NoAvailableStreamIDError
from h2.settings import SettingCodes, Settings
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.exceptions import HyperframeError

from server.push.apns_answers import read_reason

MAX_BODY_BYTES = 16 * 1024
"""Of an answer: what is more is read and forgotten. APNs's have some fifty bytes."""
MAX_TRIES = 3
"""Of a request that the peer says it has not looked at."""

_FRAME_HEAD = struct.Struct(">HBBBL")
_GOAWAY = 7
_GOAWAY_HEAD = struct.Struct(">LL")
_STATUS = re.compile(r"[0-9]{3}")
_NOT_INDEXED = frozenset({":path", "authorization", "apns-id", "apns-expiration", "apns-collapse-id"})
"""They differ between requests and would only fill the peer's table, as APNs asks its senders not to do."""

_OUR_SETTINGS = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: 16 * 1024}

Headers = tuple[tuple[str, str], ...]


class ConnectionBroken(Exception):
    """The connection is of no more use."""


@dataclass(frozen=True, slots=True)
class Answered:
    """`headers` has its names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Whether the request has arrived may be unknown. Not worth another try before so many seconds, if any are told."""

    reason: str
    after_seconds: float | None = None


class Exchange:
    """A request, and what has become of it once `ended` is set."""

    __slots__ = ("body", "ended", "headers", "result", "tries")

    def __init__(self, headers: Headers, body: bytes) -> None:
        self.headers = headers
        self.body = body
        self.tries = 0
        self.ended = trio.Event()
        self.result: Answered | Unanswered = Unanswered("it was given up")

    def end(self, result: Answered | Unanswered) -> None:
        """The first end counts."""
        if not self.ended.is_set():
            self.result = result
            self.ended.set()


@dataclass(slots=True)
class _Stream:
    exchange: Exchange
    left: memoryview
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)


class ApnsStreams:
    """Everything happens at once and in order: what is to go out is fetched with `take_outgoing`."""

    def __init__(self) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(client=True, initial_values=_OUR_SETTINGS)
        self._h2.initiate_connection()
        self._incoming = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._refused: list[Exchange] = []
        self.is_ready = False
        """Whether the peer's settings have come: before that, nobody knows how many streams it allows."""
        self.is_retiring = False
        """Whether no more streams may be opened."""
        self.was_sent_away = False
        self.has_answered = False
        self.why = ""
        """The peer's word for the end of the connection."""

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    @property
    def has_room(self) -> bool:
        allowed = self._h2.remote_settings.max_concurrent_streams
        return self.is_ready and not self.is_retiring and len(self._streams) < allowed

    @property
    def is_done(self) -> bool:
        return self.is_retiring and not self._streams

    def start(self, exchange: Exchange) -> bool:
        """Send a request on a stream of its own; there has to be room. False if the connection has had as many streams
        as there are numbers, and then it retires.
        """
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except NoAvailableStreamIDError:
            self.is_retiring = True
            return False
        exchange.tries += 1
        self._streams[stream_id] = _Stream(exchange, memoryview(exchange.body))
        with self._breaking():
            self._h2.send_headers(stream_id, [_build_field(name, value) for name, value in exchange.headers])
            self._send_more(stream_id)
        return True

    def receive(self, data: bytes) -> None:
        """Raises ConnectionBroken for what is not HTTP/2; what has come before it counts."""
        self._incoming += data
        with self._breaking():
            while (frame := self._take_frame()) is not None:
                self._take(frame)
            for stream_id in self._streams:
                self._send_more(stream_id)

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for it any more. The others are not touched."""
        for stream_id, stream in tuple(self._streams.items()):
            if stream.exchange is exchange:
                self._reset(stream_id)

    def take_refused(self) -> list[Exchange]:
        """Those that the peer has not looked at, oldest first: to be sent again."""
        refused, self._refused = self._refused, []
        return refused

    def take_outgoing(self) -> bytes:
        return self._h2.data_to_send()

    def ping(self) -> None:
        with self._breaking():
            self._h2.ping(b"cloche::")

    def retire(self) -> None:
        self.is_retiring = True

    def close(self) -> None:
        """Say so to the peer. Nothing may be sent or received after that."""
        with self._breaking():
            self._h2.close_connection()

    def abandon(self, reason: str) -> None:
        """The connection is gone. Whether requests without an answer have arrived nobody knows."""
        self.is_retiring = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.exchange.end(Unanswered(reason))

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """h2 names what is wrong, and may quote a header: its words go nowhere."""
        try:
            yield
        except ConnectionBroken:
            self.is_retiring = True
            raise
        except (H2Error, HyperframeError) as error:
            self.is_retiring = True
            raise ConnectionBroken(f"HTTP/2 was broken: {type(error).__name__}") from None

    def _take_frame(self) -> bytes | None:
        """The next whole frame. h2 gets them one by one, so that a broken one takes no answer before it along."""
        if len(self._incoming) < _FRAME_HEAD.size:
            return None
        high, low, *_ = _FRAME_HEAD.unpack_from(self._incoming)
        length = (high << 8) + low
        if length > self._h2.max_inbound_frame_size:
            raise ConnectionBroken("a frame is too large")
        end = _FRAME_HEAD.size + length
        if len(self._incoming) < end:
            return None
        frame = bytes(self._incoming[:end])
        del self._incoming[:end]
        return frame

    def _take(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:
            self._leave(frame)
            return
        for event in self._h2.receive_data(frame):
            self._take_event(event)

    def _take_event(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self.is_ready = True
        elif isinstance(event, ResponseReceived):
            self._take_head(event)
        elif isinstance(event, DataReceived):
            self._take_body(event)
        elif isinstance(event, StreamEnded):
            self._finish(event.stream_id)
        elif isinstance(event, StreamReset):
            self._take_reset(event)

    def _take_head(self, event: ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.headers = {_read_text(name): _read_text(value) for name, value in event.headers}
            status = stream.headers.pop(":status")
            stream.status = int(status) if _STATUS.fullmatch(status) else 0

    def _take_body(self, event: DataReceived) -> None:
        """Streams that are over have been taken out of the count by h2."""
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream.received += event.data[: MAX_BODY_BYTES - len(stream.received)]

    def _finish(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self.has_answered = True
        stream.exchange.end(Answered(stream.status, stream.headers, bytes(stream.received)))
        if stream.left:  # it has answered before it had read everything
            self._reset(stream_id)
        self._streams.pop(stream_id, None)

    def _take_reset(self, event: StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is None:
            return
        if event.error_code == ErrorCodes.REFUSED_STREAM:
            self._refuse(stream.exchange, "the stream was refused")
        elif stream.status == 200:
            stream.exchange.end(Answered(stream.status, stream.headers, bytes(stream.received)))
        else:
            stream.exchange.end(Unanswered(f"the stream was reset: {_name_code(event.error_code)}"))

    def _leave(self, frame: bytes) -> None:
        """A GOAWAY: https://www.rfc-editor.org/rfc/rfc9113#section-6.8. Streams above the last one that it names were
        not looked at. It may come twice, with a lower one.
        """
        if len(frame) < _FRAME_HEAD.size + _GOAWAY_HEAD.size:
            raise ConnectionBroken("a GOAWAY is too short")
        last, code = _GOAWAY_HEAD.unpack_from(frame, _FRAME_HEAD.size)
        self.is_retiring = self.was_sent_away = True
        self.why = read_reason(frame[_FRAME_HEAD.size + _GOAWAY_HEAD.size :]) or _name_code(code)
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last & 0x7FFFFFFF]:
            self._refuse(self._streams.pop(stream_id).exchange, f"the connection was closed: {self.why}")

    def _refuse(self, exchange: Exchange, reason: str) -> None:
        if exchange.tries < MAX_TRIES:
            self._refused.append(exchange)
        else:
            exchange.end(Unanswered(reason))

    def _send_more(self, stream_id: int) -> None:
        """As much of the request's body as the peer has room for."""
        stream = self._streams[stream_id]
        while stream.left:
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            piece, stream.left = stream.left[:room], stream.left[room:]
            self._h2.send_data(stream_id, bytes(piece), end_stream=not stream.left)

    def _reset(self, stream_id: int) -> None:
        """A connection on which that is not possible any more has ended anyway."""
        del self._streams[stream_id]
        with suppress(H2Error):
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)


def _build_field(name: str, value: str) -> HeaderTuple:
    """https://developer.apple.com/library/archive/documentation/NetworkingInternet/Conceptual/RemoteNotificationsPG/CommunicatingwithAPNs.html"""
    return (NeverIndexedHeaderTuple if name in _NOT_INDEXED else HeaderTuple)(name.encode(), value.encode())


def _read_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("latin-1")


def _name_code(code: ErrorCodes | int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"code {int(code)}"
