"""A route that takes uploads, and clients that send to it in bytes; and what is looked at when they have gone."""

import hashlib
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import trio

from server.connection import keep_open
from server.guard import access
from server.uploads.form import open_form
from server.uploads.stored_file import StoredFile
from tests.server.fixes_client import Http2Client
from tests.server.served import Answer, Served, build_head, read_answer

MEBIBYTE = 1024 * 1024
MOST_BYTES = 4 * MEBIBYTE
START = (
    b'--bound\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
)
END = b"\r\n--bound--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=bound"}
PIECE = bytes(range(256)) * 256


class Witness:
    """What became of the route's requests."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.left = trio.Event()
        self.words: list[str] = []


def add_route(served: Served, witness: Witness) -> None:
    @access(is_public=True, takes_upload=True)
    async def upload(most_bytes: int) -> Mapping[str, Any]:
        witness.entered.set()
        try:
            form = await keep_open(open_form("file", most_bytes))
            digest = await read_digest(form.file) if form.file else ""
            return {"fields": form.fields, "name": form.file_name, "type": form.file_type, "sha256": digest}
        except trio.Cancelled:
            witness.words.append("cancelled")
            raise
        finally:
            witness.left.set()

    served.app.add_url_rule("/upload/<int:most_bytes>", "upload", upload, methods=["POST"])


async def read_digest(file: StoredFile) -> str:
    digest, offset = hashlib.sha256(), 0
    while piece := await file.read_at(offset, MEBIBYTE):
        digest.update(piece)
        offset += len(piece)
    assert offset == file.size_bytes
    return digest.hexdigest()


def digest_of(size_bytes: int) -> str:
    digest = hashlib.sha256()
    for _ in range(size_bytes // len(PIECE)):
        digest.update(PIECE)
    return digest.hexdigest()


def head_of(headers: Mapping[str, str], most_bytes: int = MOST_BYTES) -> bytes:
    return build_head("POST", f"/upload/{most_bytes}", {**FORM, **headers})


def length_of(size_bytes: int) -> dict[str, str]:
    return {"Content-Length": str(len(START) + size_bytes + len(END))}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def open_files(folder: Path) -> list[str]:
    """Those of this process in the folder, with a name or without."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 # one of them is the listing's own
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 # not of this file system
        except FileNotFoundError:
            continue
    return [path for path in found if path.startswith(str(folder))]


def is_clean(served: Served, folder: Path) -> bool:
    return (open_files(folder), list(folder.iterdir()), served.services.uploads.kept_bytes) == ([], [], 0)


async def wait_clean(served: Served, folder: Path) -> None:
    """The client may have its answer a moment before the request has ended."""
    with trio.fail_after(5):
        while not is_clean(served, folder):
            await trio.lowlevel.checkpoint()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def connect(served: Served) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", served.port)


async def read_rest(stream: trio.SocketStream) -> Answer:
    with trio.fail_after(10):
        return read_answer(b"".join([bytes(data) async for data in stream]))


async def reset(stream: trio.SocketStream) -> None:
    """Leave as a killed client leaves: RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await stream.aclose()


async def send_file(stream: trio.SocketStream, size_bytes: int) -> None:
    for _ in range(size_bytes // len(PIECE)):
        await stream.send_all(PIECE)


async def start_http2(client: Http2Client) -> int:
    stream_id = client.protocol.get_next_available_stream_id()
    names = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": f"/upload/{MOST_BYTES}"}
    client.protocol.send_headers(stream_id, [*names.items(), ("content-type", FORM["Content-Type"])])
    await client.flush()
    return stream_id


async def send_http2(client: Http2Client, stream_id: int, body: bytes) -> bytes:
    """As much as the window allows; what is left. None is granted by who has ended the stream."""
    with suppress(h2.exceptions.StreamClosedError):
        size = min(client.protocol.local_flow_control_window(stream_id), client.protocol.max_outbound_frame_size)
        client.protocol.send_data(stream_id, body[:size])
        await client.flush()
        return body[size:]
    return body


async def send_all_http2(client: Http2Client, stream_id: int, body: bytes) -> None:
    while body := await send_http2(client, stream_id, body):
        if client.protocol.local_flow_control_window(stream_id) == 0:
            with trio.fail_after(5):
                await client.next_event()
    client.protocol.end_stream(stream_id)
    await client.flush()


async def send_until_reset(client: Http2Client, stream_id: int, body: bytes) -> tuple[str, int, int]:
    """What was answered, why the stream was reset, and how much was not sent."""
    status = ""
    while True:
        rest = await send_http2(client, stream_id, body)
        if len(rest) < len(body):
            body = rest
            continue
        event = await client.next_event()
        if isinstance(event, h2.events.ResponseReceived):
            status = dict(event.headers)[b":status"].decode()
        elif isinstance(event, h2.events.StreamReset):
            return status, event.error_code or 0, len(body)
