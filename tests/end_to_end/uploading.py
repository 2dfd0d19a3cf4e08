"""A client that uploads a file over a bare socket, as slowly or as far as a test wants, and holds none of it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tests.end_to_end.caller import Caller
from tests.end_to_end.cloche import Cloche, Customer

BOUNDARY = "----cloche-tests"
PIECE = bytes(256 * 1024)


@dataclass(frozen=True, slots=True)
class Upload:
    """A form: the texts first, then the file, which is `head` and after it as many zeros as it takes."""

    path: str
    field_name: str
    head: bytes = field(repr=False)
    size_bytes: int
    fields: Mapping[str, str] = field(default_factory=dict)
    file_name: str = "upload.bin"
    media_type: str = "application/octet-stream"

    @property
    def opening(self) -> bytes:
        """All that stands before the file."""
        texts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
            for name, text in self.fields.items()
        ]
        disposition = f'form-data; name="{self.field_name}"; filename="{self.file_name}"'
        head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\nContent-Type: {self.media_type}\r\n\r\n"
        return ("".join(texts) + head).encode()

    @property
    def closing(self) -> bytes:
        return f"\r\n--{BOUNDARY}--\r\n".encode()

    def build_head(self, headers: Mapping[str, str]) -> bytes:
        size_bytes = len(self.opening) + self.size_bytes + len(self.closing)
        lines = [f"POST {self.path} HTTP/1.1", "Host: cloche", f"Content-Length: {size_bytes}"]
        lines.append(f"Content-Type: multipart/form-data; boundary={BOUNDARY}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()


class Uploader(Caller):
    async def begin(self, upload: Upload, customer: Customer) -> None:
        """All up to the file's head, and that."""
        await self.stream.send_all(upload.build_head(customer.headers) + upload.opening + upload.head)

    async def send_zeros(self, count: int) -> None:
        while count:
            piece = PIECE[:count]
            await self.stream.send_all(piece)
            count -= len(piece)

    async def upload(self, upload: Upload, customer: Customer) -> None:
        """All of it."""
        await self.begin(upload, customer)
        await self.send_zeros(upload.size_bytes - len(upload.head))
        await self.stream.send_all(upload.closing)


@asynccontextmanager
async def open_uploader(cloche: Cloche) -> AsyncIterator[Uploader]:
    async with await trio.open_tcp_stream("127.0.0.1", cloche.port) as stream:
        yield Uploader(stream)
