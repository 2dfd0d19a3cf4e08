"""multipart/form-data as it comes in, in pieces of any size: text fields, and one file. Pure.

https://www.rfc-editor.org/rfc/rfc7578
"""

from collections.abc import Iterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser
from werkzeug.http import parse_options_header

from server.errors import BodyTooLarge, RequestInvalid

MAX_BOUNDARY_CHARACTERS = 70
"""https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1"""
MAX_PARTS = 100
MAX_FIELD_BYTES = 1024 * 1024
"""A voice to be recognised comes as text: a data URL of ten seconds of sound."""
MAX_FIELDS_BYTES = 4 * 1024 * 1024
MAX_BESIDE_FILE_BYTES = 8 * 1024 * 1024
"""Of a whole request, without its file: fields, heads of parts, and what stands in front of them and behind."""


def find_boundary(content_type: str) -> str:
    """Raises RequestInvalid."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if media_type.lower() != "multipart/form-data":
        raise RequestInvalid("Content-Type: send the file as multipart/form-data")
    if not boundary or len(boundary) > MAX_BOUNDARY_CHARACTERS or not boundary.isascii():
        raise RequestInvalid("Content-Type: multipart/form-data needs a boundary of 1 to 70 ASCII characters")
    return boundary


class FormReader:
    """Raises RequestInvalid, and BodyTooLarge as soon as there is too much of anything."""

    def __init__(self, boundary: str, file_field: str, most_bytes: int) -> None:
        self.fields: dict[str, list[str]] = {}
        self.has_file = False
        self.file_name = ""
        self.file_type = ""
        self._file_field = file_field
        self._most_bytes = most_bytes
        self._parser = PushMultipartParser(boundary, max_segment_count=MAX_PARTS)
        self._text: bytearray | None = None
        self._name = ""
        self._read_bytes = 0
        self._file_bytes = 0
        self._fields_bytes = 0

    def read(self, data: bytes) -> Iterator[bytes]:
        """The pieces of the file that are in it."""
        self._read_bytes += len(data)
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                elif self._text is None:
                    yield self._take_file(event)
                else:
                    self._take_text(self._text, event)
        except MultipartError as error:
            raise _refuse(error) from error
        if self._read_bytes - self._file_bytes > MAX_BESIDE_FILE_BYTES:
            raise BodyTooLarge(f"beside its file the form may have {MAX_BESIDE_FILE_BYTES} bytes")

    def close(self) -> None:
        """There is no more. Raises RequestInvalid if something is missing."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _refuse(error) from error

    def _begin(self, part: MultipartSegment) -> None:
        self._name = part.name or ""
        if self._name != self._file_field and part.filename is None:
            self._text = bytearray()
            return
        if self._name != self._file_field:
            raise RequestInvalid(f"{self._name[:100]}: the file belongs into the field {self._file_field}")
        if self.has_file:
            raise RequestInvalid(f"{self._name}: send one file")
        self.has_file = True
        self.file_name = part.filename or ""
        self.file_type = part.content_type or ""

    def _take_file(self, piece: bytes) -> bytes:
        self._file_bytes += len(piece)
        if self._file_bytes > self._most_bytes:
            raise BodyTooLarge(f"{self._file_field}: the file may have {self._most_bytes} bytes")
        return piece

    def _take_text(self, text: bytearray, piece: bytes) -> None:
        self._fields_bytes += len(piece)
        if len(text) + len(piece) > MAX_FIELD_BYTES or self._fields_bytes > MAX_FIELDS_BYTES:
            most = f"a field may have {MAX_FIELD_BYTES} bytes, and all of them together {MAX_FIELDS_BYTES}"
            raise BodyTooLarge(f"{self._name[:100]}: {most}")
        text += piece

    def _end(self) -> None:
        text, self._text = self._text, None
        if text is None:
            return
        try:
            self.fields.setdefault(self._name, []).append(text.decode())
        except UnicodeDecodeError as error:
            raise RequestInvalid(f"{self._name[:100]}: send text in UTF-8") from error


def _refuse(error: MultipartError) -> RequestInvalid:
    return RequestInvalid(f"the form is broken or incomplete ({error.args[0]}); send it as RFC 7578 says")
