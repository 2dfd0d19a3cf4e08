"""The server's side of an HTTP/2 connection between two buffers in memory, frame by frame."""

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, PingAckReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

from server.push.apns_streams import ApnsStreams, Exchange

HEADERS = ((":method", "POST"), (":scheme", "https"), (":authority", "apns.test"), (":path", "/3/device/0a"))
REASON = b'{"reason":"Shutdown"}'


class MemoryPeer:
    """Says what it is told to, to the `streams` of a client. `requests` are the bodies that have come, by stream."""

    def __init__(self, max_streams: int = 100, window: int = 65_535) -> None:
        self.streams = ApnsStreams()
        self.requests: dict[int, bytes] = {}
        self.heads: dict[int, list[tuple[str, str]]] = {}
        self.whole: list[int] = []
        self.resets: dict[int, int] = {}
        self.ping_answers = 0
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        settings = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_CONCURRENT_STREAMS: max_streams}
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        self._h2.initiate_connection()

    def has_room(self) -> bool:
        return self.streams.has_room

    def talk(self) -> None:
        """Until neither side has anything to say."""
        self.streams.receive(self._h2.data_to_send())
        while outgoing := self.streams.take_outgoing():
            for event in self._h2.receive_data(outgoing):
                self._take(event)
            self.streams.receive(self._h2.data_to_send())

    def start(self, body: bytes = b"{}") -> Exchange:
        exchange = Exchange(HEADERS, body)
        assert self.streams.has_room
        assert self.streams.start(exchange)
        self.talk()
        return exchange

    def answer(self, stream_id: int, status: str = "200", body: bytes = b"", *, is_whole: bool = True) -> None:
        self._h2.send_headers(stream_id, [(":status", status), ("apns-id", "x")], end_stream=is_whole and not body)
        if body:
            self._h2.send_data(stream_id, body, end_stream=is_whole)
        self.talk()

    def send_more(self, stream_id: int, body: bytes, *, is_whole: bool = False) -> None:
        self._h2.send_data(stream_id, body, end_stream=is_whole)
        self.talk()

    def inform(self, stream_id: int) -> None:
        self._h2.send_headers(stream_id, [(":status", "103")])
        self.talk()

    def reset(self, stream_id: int, code: int) -> None:
        self._h2.reset_stream(stream_id, code)
        self.talk()

    def set(self, setting: SettingCodes, value: int) -> None:
        self._h2.update_settings({setting: value})
        self.talk()

    def ping(self) -> None:
        self._h2.ping(b"12345678")
        self.talk()

    def grant(self, size_bytes: int, stream_id: int | None = None) -> None:
        self._h2.increment_flow_control_window(size_bytes, stream_id)
        self.talk()

    def go_away(self, last: int, code: int = 0, body: bytes = REASON) -> None:
        """By hand: after its own GOAWAY h2 answers nobody."""
        self.send([GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=body)])

    def send(self, frames: Iterable[Frame]) -> None:
        self.streams.receive(self._h2.data_to_send() + b"".join(frame.serialize() for frame in frames))
        self.talk()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self.heads[event.stream_id] = [(str(name), str(value)) for name, value in event.headers]
                self.requests[event.stream_id] = b""
            case DataReceived():
                self.requests[event.stream_id] += event.data
            case StreamEnded():
                self.whole.append(event.stream_id)
            case StreamReset():
                self.resets[event.stream_id] = int(event.error_code)
            case PingAckReceived():
                self.ping_answers += 1
