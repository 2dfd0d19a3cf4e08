"""What a client's bytes say: whole messages and control frames. Strict: https://www.rfc-editor.org/rfc/rfc6455. Pure.

wsproto needs 14 µs for a small message, this 2; and it decodes text that is then encoded again.
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_OPCODES = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})

_XOR_TABLES = [bytes(byte ^ key for byte in range(256)) for key in range(256)]
_STRIDES_FROM_BYTES = 1024
"""Measured: below it one large integer is faster than four translated strides, above it twice as slow."""

PROTOCOL_ERROR, NO_CODE, INVALID_TEXT, TOO_LARGE = 1002, 1005, 1007, 1009


class FrameInvalid(Exception):
    """The client does not speak the protocol, or too much: the connection is to end with this close code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class PingFrame:
    payload: bytes


@dataclass(frozen=True, slots=True)
class PongFrame:
    payload: bytes


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """`code` is NO_CODE if the client gave none."""

    code: int


Item = str | bytes | PingFrame | PongFrame | CloseFrame


@dataclass(slots=True)
class _Frame:
    """Of a frame whose payload is being read: `left` bytes are still to come, `key` begins with the next of them."""

    opcode: int
    is_final: bool
    left: int
    key: bytes


class FrameReader:
    """Of one connection. A message of more than `most_bytes` is refused as soon as a frame's head announces it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rest = b""  # of a head, or of a control frame
        self._frame: _Frame | None = None
        self._opcode = _CONTINUATION  # of the message that is being read
        self._message = bytearray()
        self._checker: IncrementalDecoder | None = None
        self._has_ended = False

    def end(self) -> None:
        """Nothing more is read, and what has come of a message is let go."""
        self._has_ended = True
        self._message = bytearray()

    def read(self, data: bytes) -> Iterator[Item]:
        """What these bytes bring to its end. Raises FrameInvalid; after that, and after a close frame, nothing more is
        read.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        while not self._has_ended:
            if self._frame is None:
                at = self._read_head(data, at)
            frame = self._frame
            if frame is None or (frame.opcode >= _CLOSE and len(data) - at < frame.left):
                self._rest = data[at:]
                return
            piece = data[at : at + frame.left]
            at += len(piece)
            item = self._take(frame, piece)
            if item is not None:
                yield item
            if self._frame is not None:
                return

    def _read_head(self, data: bytes, at: int) -> int:
        """Where the payload begins; the same place again if the head is not there as a whole."""
        if len(data) - at < 2:
            return at
        first, second = data[at], data[at + 1]
        self._check_head(first, second)
        length, begin = second & _LENGTH, at + 2
        if length > 125:
            width = 2 if length == 126 else 8
            if len(data) - begin < width:
                return at
            length = int.from_bytes(data[begin : begin + width], "big")
            if length <= (125 if width == 2 else 0xFFFF):
                raise self._end(PROTOCOL_ERROR, "a length is not written as short as it can be")
            begin += width
        opcode = first & _OPCODE
        if opcode < _CLOSE and len(self._message) + length > self._most_bytes:
            raise self._end(TOO_LARGE, f"a message has at most {self._most_bytes} bytes")
        if len(data) - begin < 4:
            return at
        if opcode in (_TEXT, _BINARY):
            self._opcode = opcode
        self._frame = _Frame(opcode, first >= _FINAL, length, data[begin : begin + 4])
        return begin + 4

    def _check_head(self, first: int, second: int) -> None:
        opcode, length = first & _OPCODE, second & _LENGTH
        if first & _RESERVED:
            raise self._end(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode not in _OPCODES:
            raise self._end(PROTOCOL_ERROR, "a reserved opcode")
        if not second & _MASKED:
            raise self._end(PROTOCOL_ERROR, "a frame is not masked")
        if opcode >= _CLOSE and (length > 125 or first < _FINAL):
            raise self._end(PROTOCOL_ERROR, "a control frame is in pieces, or too long")
        if opcode < _CLOSE and (opcode == _CONTINUATION) != (self._opcode != _CONTINUATION):
            raise self._end(PROTOCOL_ERROR, "a message begins within another, or goes on before it began")

    def _take(self, frame: _Frame, piece: bytes) -> Item | None:
        plain = unmask(piece, frame.key)
        frame.left -= len(piece)
        if frame.left:
            turn = len(piece) & 3
            frame.key = frame.key[turn:] + frame.key[:turn]
            self._gather(plain)
            return None
        self._frame = None
        if frame.opcode >= _CLOSE:
            return self._read_control(frame.opcode, plain)
        if not frame.is_final:
            self._gather(plain)
            return None
        return self._finish(plain)

    def _gather(self, plain: bytes) -> None:
        """Text is checked as it comes, so that whoever sends something else hears of it at once."""
        self._message += plain
        if self._opcode == _TEXT:
            self._checker = self._checker or getincrementaldecoder("utf-8")()
            try:
                self._checker.decode(plain)
            except UnicodeDecodeError as error:
                raise self._end(INVALID_TEXT, "text is not UTF-8") from error

    def _finish(self, plain: bytes) -> str | bytes:
        whole: bytes | bytearray = plain
        if self._message:
            whole, self._message = self._message, bytearray()
            whole += plain
        is_text, self._opcode, self._checker = self._opcode == _TEXT, _CONTINUATION, None
        return self._decode(whole, "text") if is_text else bytes(whole)

    def _read_control(self, opcode: int, payload: bytes) -> Item:
        if opcode == _PING:
            return PingFrame(payload)
        if opcode == _PONG:
            return PongFrame(payload)
        if not payload:
            self._has_ended = True
            return CloseFrame(NO_CODE)
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not is_code(code):
            raise self._end(PROTOCOL_ERROR, "a close code that there is not")
        self._decode(payload[2:], "the reason of a close")
        self._has_ended = True
        return CloseFrame(code)

    def _decode(self, plain: bytes | bytearray, what: str) -> str:
        try:
            return plain.decode()
        except UnicodeDecodeError as error:
            raise self._end(INVALID_TEXT, f"{what} is not UTF-8") from error

    def _end(self, code: int, message: str) -> FrameInvalid:
        self.end()
        return FrameInvalid(code, message)


def unmask(data: bytes, key: bytes) -> bytes:
    """Every fourth byte has been XORed with the same byte of the key: RFC 6455, 5.3."""
    size = len(data)
    if size < _STRIDES_FROM_BYTES:
        mask = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
    plain = bytearray(data)
    for start, byte in enumerate(key):
        plain[start::4] = plain[start::4].translate(_XOR_TABLES[byte])
    return bytes(plain)


def is_code(code: int) -> bool:
    """Whether a client may send it: https://www.rfc-editor.org/rfc/rfc6455#section-7.4, and what has been registered
    since: https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999

