"""A Gemini API with its Files API, over real sockets: it keeps files, gets them ready, and answers about them.

    async with open_google_files() as google:
        ...                                       # ask the API at google.base_url with one of google.keys
        assert google.files == {}                 # nothing is left there
        assert google.steps == ["start", "upload", "get", "generate", "delete"]

Of a file it keeps length and SHA-256 alone, however large it is. What it is to do otherwise than well stands in
`google.ways`, and can be changed at any time. https://ai.google.dev/api/files
"""

import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from tests.google_files_state import KEYS, USAGE, Asked, FakeGoogleFiles, Generated, Head, Refused, Step, Ways

__all__ = ["KEYS", "USAGE", "FakeGoogleFiles", "Generated", "Ways", "open_google_files"]

_READ_BYTES = 256 * 1024
_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


@asynccontextmanager
async def open_google_files(ways: Ways | None = None) -> AsyncIterator[FakeGoogleFiles]:
    """On 127.0.0.1, until the block is left."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    google = FakeGoogleFiles(f"http://127.0.0.1:{port}", ways or Ways())

    async def serve(stream: trio.SocketStream) -> None:
        google.open_connections += 1
        try:
            await _Conversation(google, stream).run()
        finally:
            google.open_connections -= 1

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield google
        nursery.cancel_scope.cancel()


class _Broken(Exception):
    """The connection is to be reset."""


class _Conversation:
    """One connection."""

    def __init__(self, google: FakeGoogleFiles, stream: trio.SocketStream) -> None:
        self._google = google
        self._ways = google.ways
        self._stream = stream
        self._parser = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        rest = b""
        try:
            while True:
                self._parser = h11.Connection(h11.SERVER)
                if rest:
                    self._parser.receive_data(rest)
                head = await self._read_head()
                if head is None:
                    break
                await self._answer(head)
                rest, _ = self._parser.trailing_data
            await self._stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(self._stream)
        except _Broken:
            linger = struct.pack("ii", 1, 0)
            self._stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
            await trio.aclose_forcefully(self._stream)

    async def _answer(self, head: Head) -> None:
        """Notes in any case what came of it."""
        step, status, name = find_step(head), 0, self._name_of(head)
        if step != "upload":
            self._google.note_begun(step)
        try:
            if head.key not in self._google.keys:
                await self._read_body()
                raise Refused(400, "API key not valid. Please pass a valid API key.")
            status, headers, body = await self._act(step, head)
            if step in self._ways.loses:
                self._ways.loses.remove(step)
                raise _Broken
        except Refused as refused:
            status, headers = refused.status, {}
            said = {"code": status, "message": str(refused), "status": _STATUSES.get(status, "UNAVAILABLE")}
            body = {"error": said}
        finally:
            self._google.asked.append(Asked(step, head.key, name or self._name_of(head), status))
        if body is not None:
            await self._send(status, headers, json.dumps(body).encode())
        else:
            await self._stream_answer()

    def _name_of(self, head: Head) -> str:
        id_ = parse_qs(urlsplit(head.path).query).get("upload_id", [""])[0]
        if id_ in self._google.sessions:
            return self._google.sessions[id_].name
        return head.path.removeprefix("/v1beta/") if head.path.startswith("/v1beta/files/") else ""

    async def _act(self, step: Step, head: Head) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the answer; no JSON where a stream follows."""
        if step == "upload":
            return await self._receive_upload(head)
        body = await self._read_body()
        await self._dally(step)
        google = self._google
        match step:
            case "start":
                google.start(head, body)
                ours = f"{google.origin}/upload/v1beta/files?upload_id={len(google.sessions)}"
                address = self._ways.uploads_elsewhere or ours
                return 200, {"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active"}, {}
            case "query":
                session = google.find_session(head)
                told = {"X-Goog-Upload-Status": session.state, "X-Goog-Upload-Size-Received": str(session.received)}
                return 200, told, {}
            case "cancel":
                session = google.find_session(head)
                if session.state == "final":
                    raise Refused(400, "the upload is final")
                session.state = "cancelled"
                return 200, {"X-Goog-Upload-Status": "cancelled"}, {}
            case "get":
                name = head.path.removeprefix("/v1beta/")
                google.find(name, head.key).polls += 1
                return 200, {}, google.describe(name, head.key)
            case "delete":
                name = head.path.removeprefix("/v1beta/")
                google.find(name, head.key)
                google.removed[name] = google.files.pop(name)
                return 200, {}, {}
        google.generate(head, body)
        return 200, {}, None

    async def _dally(self, step: Step) -> None:
        if step in self._ways.hangs:
            await self._wait_left()
        await trio.sleep(self._ways.pauses.get(step, 0))
        if statuses := self._ways.refusals.get(step):
            raise Refused(statuses.pop(0), "refused, as it was told to")

    async def _receive_upload(self, head: Head) -> tuple[int, dict[str, str], Any]:
        session = self._google.find_session(head)
        self._google.check_upload(head, session)
        breaks_at = self._ways.breaks_after.pop(0) if self._ways.breaks_after else None
        came = 0
        while data := await self._read_piece():
            if breaks_at is not None and came + len(data) >= breaks_at:
                data = data[: breaks_at - came]
            session.digest.update(data)
            session.received += len(data)
            came += len(data)
            self._google.note_begun("upload")
            if came == breaks_at:
                raise _Broken
            if self._ways.slow_after is not None and came >= self._ways.slow_after:
                await trio.sleep(0.02)
        await self._dally("upload")
        return 200, {"X-Goog-Upload-Status": "final"}, self._google.finish(session)

    async def _stream_answer(self) -> None:
        ways = self._ways
        await self._stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number, piece in enumerate(ways.answer):
            if number == ways.stops_after:
                await self._wait_left()
            await self._send_event({"content": {"parts": [{"text": piece}], "role": "model"}, "index": 0})
        if ways.stops_after is not None and ways.stops_after >= len(ways.answer):
            await self._wait_left()
        await self._send_event({"content": {"parts": [], "role": "model"}, "finishReason": "STOP", "index": 0})
        await self._stream.send_all(b"0\r\n\r\n")

    async def _send_event(self, candidate: Mapping[str, Any]) -> None:
        counted = {} if self._ways.usage is None else {"usageMetadata": self._ways.usage}
        value = {"candidates": [candidate], **counted, "modelVersion": "fake", "responseId": "fake"}
        event = f"data: {json.dumps(value)}\r\n\r\n".encode()
        await self._stream.send_all(b"%x\r\n%s\r\n" % (len(event), event))

    async def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        lines = [f"HTTP/1.1 {status} Said", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self._stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)

    async def _wait_left(self) -> None:
        """Until the client has gone."""
        while await self._stream.receive_some(_READ_BYTES):
            pass
        raise trio.BrokenResourceError

    async def _read_head(self) -> Head | None:
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                return Head(event.method.decode(), event.target.decode(), headers)
            if event is not h11.NEED_DATA:
                return None
            self._parser.receive_data(bytes(await self._stream.receive_some(_READ_BYTES)))

    async def _read_piece(self) -> bytes:
        """Of a body; b"" at its end."""
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""
            data = bytes(await self._stream.receive_some(_READ_BYTES))
            if not data:
                raise trio.BrokenResourceError
            self._parser.receive_data(data)

    async def _read_body(self) -> bytes:
        body = bytearray()
        while piece := await self._read_piece():
            body += piece
        return bytes(body)


def find_step(head: Head) -> Step:
    """Raises ValueError for what the API has no place for."""
    command = head.headers.get("x-goog-upload-command", "")
    if head.method == "POST" and head.path.startswith("/upload/v1beta/files"):
        commands: Mapping[str, Step] = {
            "start": "start",
            "upload, finalize": "upload",
            "query": "query",
            "cancel": "cancel",
        }
        return commands[command]
    if head.path.startswith("/v1beta/files/"):
        return "delete" if head.method == "DELETE" else "get"
    if head.method == "POST" and ":streamGenerateContent" in head.path:
        return "generate"
    raise ValueError(f"{head.method} {head.path}")
