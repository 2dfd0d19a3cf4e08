"""The tail of a request's body, piece by piece as it is sent. No more of the file is in memory than one piece."""

from base64 import b64encode

from proxy.errors import MediaUnreadable
from proxy.media_file import BodyTail

PIECE_BYTES = 192 * 1024
"""A multiple of three, so that pieces in base64 are one text when they are strung together, of 256 KiB each."""


class TailPieces:
    """Reads one tail once, for one task."""

    __slots__ = ("_after", "_file", "_is_base64", "_offset", "_size_bytes")

    def __init__(self, tail: BodyTail) -> None:
        self._file = tail.file
        self._size_bytes = tail.file.size_bytes
        self._is_base64 = tail.is_base64
        self._after = tail.after
        self._offset = 0

    async def read_next(self) -> bytes:
        """What goes out next; b"" at the end. Raises MediaUnreadable, also for a file that has become shorter: its
        length has been told already.
        """
        if self._offset < self._size_bytes:
            data = await self._read(min(PIECE_BYTES, self._size_bytes - self._offset))
            return b64encode(data) if self._is_base64 else data
        after, self._after = self._after, b""
        return after

    async def _read(self, size_bytes: int) -> bytes:
        pieces: list[bytes] = []
        while size_bytes:
            try:
                piece = await self._file.read_at(self._offset, size_bytes)
            except OSError as error:
                raise MediaUnreadable("a file that was to be sent cannot be read") from error
            if not piece:
                raise MediaUnreadable("a file that was to be sent has become shorter")
            pieces.append(piece)
            self._offset += len(piece)
            size_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
