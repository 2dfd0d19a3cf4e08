"""Server-sent events: bytes to events and back, as https://html.spec.whatwg.org/multipage/server-sent-events.html has
it.

Lines end in LF, CR or CRLF and in nothing else: U+2028 or U+0085 inside a `data:` line are text. So lines are found in
bytes, and only a complete event's data is ever decoded.
"""

from dataclasses import dataclass

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An image in one event is some megabytes; what is larger is not an answer."""

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """A peer sent more than the limit without finishing one event."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: `name` is empty for the default `message`; `data` is UTF-8, its lines joined by LF."""

    name: str
    data: bytes


class SseDecoder:
    """Turns a stream split anywhere into events. Holds at most one unfinished event."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._at_start = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that `data` completes. Raises EventTooLarge."""
        if self._at_start:
            data = self._without_bom(data)
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        lines[0] = self._with_rest(lines[0], complete=len(lines) > 1)
        self._keep(lines.pop())
        events: list[ServerSentEvent] = []
        for line in lines:
            self._read_line(line, events)
        return events

    def finish(self) -> list[ServerSentEvent]:
        """The event that lacked its last blank line, which the specification drops and providers have been seen to
        send.
        """
        events: list[ServerSentEvent] = []
        last = self._with_rest(b"", complete=True)
        if last:
            self._read_line(last, events)
        self._read_line(b"", events)
        return events

    def _without_bom(self, data: bytes) -> bytes:
        start = b"".join(self._rest) + data
        self._rest, self._rest_bytes = [], 0
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._rest, self._rest_bytes = [start], len(start)
            return b""
        self._at_start = False
        return start.removeprefix(_BOM)

    def _with_rest(self, line: bytes, *, complete: bool) -> bytes:
        if not complete or not self._rest:
            return line
        whole = b"".join((*self._rest, line))
        self._rest, self._rest_bytes = [], 0
        return whole

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._rest_bytes += len(piece)
            self._check_size(self._rest_bytes + self._data_bytes)

    def _read_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(events)
        elif line.startswith(b"data:"):
            self._add_data(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            self._name = line[6:].decode("utf-8", "replace").removeprefix(" ")
        elif line == b"data":
            self._add_data(b"")
        # comments, `id:`, `retry:` and unknown fields say nothing to us

    def _add_data(self, value: bytes) -> None:
        self._data.append(value)
        self._data_bytes += len(value) + 1
        self._check_size(self._data_bytes)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        if self._data:
            events.append(ServerSentEvent(self._name, b"\n".join(self._data) if len(self._data) > 1 else self._data[0]))
            self._data, self._data_bytes = [], 0
        self._name = ""


def encode_event(data: bytes, name: str = "") -> bytes:
    """One event on the wire. `data` must hold no line end, which JSON never does."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + data + b"\n\n"


KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: every client skips it, and every proxy in between sees that the stream lives."""
