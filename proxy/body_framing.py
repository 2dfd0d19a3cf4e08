"""Where the body of an HTTP/1.1 answer ends: bytes on the wire to bytes of the body. Pure.

h11 makes an event of every chunk. A model's answer is one chunk per token, so this takes whatever a read has brought
and returns its payload in one piece. The rules are https://www.rfc-editor.org/rfc/rfc9112#section-6 and section 7.
"""

import re
from collections.abc import Mapping
from typing import Protocol

MAX_LINE_BYTES = 4096
"""Of a chunk's size line with its extensions, and of one trailer field."""
MAX_TRAILER_BYTES = 64 * 1024

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class FramingBroken(Exception):
    """The bytes are not a body in the announced framing, or end within it."""


class Body(Protocol):
    """Reads one body. `is_complete` says that its last byte has come; `has_excess` that more followed it."""

    is_complete: bool
    has_excess: bool

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`, which may be split anywhere. Raises FramingBroken."""
        ...

    def feed_end(self) -> None:
        """The connection has ended. Raises FramingBroken if the body had not."""
        ...


class SizedBody:
    """A body with a content-length, or with none because the answer has no body."""

    __slots__ = ("_left", "has_excess", "is_complete")

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.is_complete = size_bytes == 0
        self.has_excess = False

    def feed(self, data: bytes) -> bytes:
        if len(data) < self._left:
            self._left -= len(data)
            return data
        payload = data[: self._left]
        self.has_excess = self.has_excess or len(data) > self._left
        self._left = 0
        self.is_complete = True
        return payload

    def feed_end(self) -> None:
        if not self.is_complete:
            raise FramingBroken(f"the body lacks {self._left} bytes")


class EndlessBody:
    """A body that lasts until the connection ends."""

    __slots__ = ("has_excess", "is_complete")

    def __init__(self) -> None:
        self.is_complete = False
        self.has_excess = False

    def feed(self, data: bytes) -> bytes:
        return data

    def feed_end(self) -> None:
        self.is_complete = True


class ChunkedBody:
    """A body in chunks. Holds at most one unfinished line; payload is handed on as it comes."""

    __slots__ = ("_in_trailers", "_left", "_rest", "_trailer_bytes", "has_excess", "is_complete")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0
        """What is still to come of the current chunk, with the CRLF that ends it."""
        self._in_trailers = False
        self._trailer_bytes = 0
        self.is_complete = False
        self.has_excess = False

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        payload: list[bytes] = []
        position = 0
        while position < len(data) and not self.is_complete:
            if self._in_trailers:
                position = self._read_trailer(data, position)
            elif self._left:
                position = self._read_chunk(data, position, payload)
            else:
                position = self._read_size(data, position)
        self.has_excess = self.has_excess or (self.is_complete and position < len(data))
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def feed_end(self) -> None:
        if not self.is_complete:
            raise FramingBroken("the body ended without its last chunk")

    def _read_size(self, data: bytes, position: int) -> int:
        line = _SIZE_LINE.match(data, position)
        if line is None:
            return self._keep_line(data, position)
        size_bytes = int(line[1], 16)
        if size_bytes:
            self._left = size_bytes + 2
        else:
            self._in_trailers = True
        return line.end()

    def _read_chunk(self, data: bytes, position: int, payload: list[bytes]) -> int:
        end = min(position + self._left, len(data))
        self._left -= end - position
        # the last two bytes of a chunk are its CRLF, of which this read may have brought none, one or both
        payload_end = end - max(2 - self._left, 0)
        if payload_end > position:
            payload.append(data[position:payload_end])
        if self._left < 2 and not _is_line_end_part(data[max(payload_end, position) : end], self._left):
            raise FramingBroken("a chunk is longer than its size")
        return end

    def _read_trailer(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        if end < 0:
            return self._keep_line(data, position)
        self._trailer_bytes += end + 2 - position
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise FramingBroken("the trailers are too long")
        self.is_complete = end == position
        return end + 2

    def _keep_line(self, data: bytes, position: int) -> int:
        self._rest = data[position:]
        if len(self._rest) > MAX_LINE_BYTES or b"\n" in self._rest:
            raise FramingBroken("a line of the chunked framing is malformed")
        return len(data)


def _is_line_end_part(found: bytes, missing: int) -> bool:
    return b"\r\n"[: 2 - missing].endswith(found)


def build_body(method: str, status: int, headers: Mapping[str, str]) -> Body:
    """The framing that an answer's head announces; h11 has checked those headers. Header names in lower case."""
    if method == "HEAD" or status in (204, 304):
        return SizedBody(0)
    if "transfer-encoding" in headers:
        return ChunkedBody()
    if "content-length" in headers:
        return SizedBody(int(headers["content-length"]))
    return EndlessBody()
