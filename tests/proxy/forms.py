"""Forms as providers get them, read back."""

import re
from dataclasses import dataclass, field

from proxy.provider import UpstreamRequest
from tests.fake_upstream import RecordedRequest


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form. Of a file that was not sent yet only the size is known."""

    name: str
    value: bytes = field(repr=False)
    file_name: str | None = None
    media_type: str | None = None
    size_bytes: int = 0


def read_form(request: UpstreamRequest) -> list[Part]:
    """Of a request that is to be sent: its file is not read, and comes last."""
    assert request.tail is not None
    content_type = dict(request.headers)["Content-Type"]
    *parts, file = split_form(content_type, request.body + b"<file>" + request.tail.after)
    assert file.value == b"<file>"
    return [*parts, Part(file.name, b"", file.file_name, file.media_type, request.tail.file.size_bytes)]


def read_sent_form(request: RecordedRequest) -> list[Part]:
    """Of a request that has come."""
    return split_form(request.headers["content-type"], request.body)


def split_form(content_type: str, body: bytes) -> list[Part]:
    """By https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1, as strict as a provider can be."""
    found = re.fullmatch(r"multipart/form-data; boundary=([0-9A-Za-z'()+_,./:=?-]{1,70})", content_type)
    assert found is not None, content_type
    delimiter = b"\r\n--" + found[1].encode()
    first, *parts, last = (b"\r\n" + body).split(delimiter)
    assert (first, last) == (b"", b"--\r\n")
    return [_read_part(part) for part in parts]


def _read_part(part: bytes) -> Part:
    head, _, value = part.partition(b"\r\n\r\n")
    of_file = rb'; filename="([^"\r\n]+)"\r\nContent-Type: (\S+)'
    pattern = rb'\r\nContent-Disposition: form-data; name="([^"\r\n]+)"(?:' + of_file + rb")?"
    found = re.fullmatch(pattern, head)
    assert found is not None, head
    name, file_name, media_type = (None if one is None else one.decode() for one in found.groups())
    return Part(name or "", value, file_name, media_type, len(value))
