"""A client of APNs that does what a test tells it and nothing else."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import jwt
import msgspec
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from tests.push_stand_in.keys import BUNDLE_ID, KEY_ID, TEAM_ID, build_client_tls, find_apns_key

TOKEN = "0a1b2c3d" * 8
ALERT = b'{"aps":{"alert":{"title":"Done","body":"It is done"}}}'


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False

    @property
    def reason(self) -> str:
        return str(msgspec.json.decode(self.body)["reason"]) if self.body else ""


@dataclass(slots=True)
class RawClient:
    """`allowed` are the streams that the server allows; `resets` the codes of streams that it has reset."""

    stream: trio.SSLStream[trio.SocketStream]
    h2: H2Connection
    provider_token: str = field(repr=False)
    answers: dict[int, Answer] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)
    goodbyes: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Error code, last stream, reason."""
    late: bytes = b""
    """What came after a goodbye, which h2 does not read."""
    is_over: bool = False

    @property
    def allowed(self) -> int:
        return int(self.h2.remote_settings.max_concurrent_streams)

    async def start(
        self, changes: Mapping[str, str | None] | None = None, *, body: bytes = ALERT, token: str = TOKEN
    ) -> int:
        """A request as Apple wants it, but for the changes: None leaves a header out."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, build_headers(token, self.provider_token, changes or {}))
        self.h2.send_data(stream_id, body, end_stream=True)
        self.answers[stream_id] = Answer()
        await self.stream.send_all(self.h2.data_to_send())
        return stream_id

    async def wait_answer(self, stream_id: int) -> Answer:
        while not self.answers[stream_id].is_whole:
            assert await self.read(), "the connection ended before the answer"
        return self.answers[stream_id]

    async def ask(
        self, changes: Mapping[str, str | None] | None = None, *, body: bytes = ALERT, token: str = TOKEN
    ) -> Answer:
        return await self.wait_answer(await self.start(changes, body=body, token=token))

    async def read(self) -> bool:
        """What one read brings; False at the end of the connection."""
        try:
            with trio.fail_after(5):
                data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        self.is_over = not data
        if self.goodbyes:
            self.late += data
        else:
            await self._read_frames(bytes(data))
        return not self.is_over

    async def _read_frames(self, data: bytes) -> None:
        for event in self.h2.receive_data(data) if data else ():
            self._take(event)
        if data and not self.goodbyes:
            await self.stream.send_all(self.h2.data_to_send())

    async def read_to_the_end(self) -> None:
        while await self.read():
            pass

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                fields = {str(name): str(value) for name, value in event.headers}
                answer = self.answers[event.stream_id]
                answer.status, answer.headers = int(fields[":status"]), fields
            case DataReceived():
                self.answers[event.stream_id].body += event.data
            case StreamEnded():
                self.answers[event.stream_id].is_whole = True
            case StreamReset():
                self.resets[event.stream_id] = int(event.error_code)
            case ConnectionTerminated():
                reason = event.additional_data or b""
                self.goodbyes.append((int(event.error_code or 0), event.last_stream_id or 0, reason))


def build_headers(token: str, provider_token: str, changes: Mapping[str, str | None]) -> list[tuple[str, str]]:
    headers: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "127.0.0.1",
        ":path": f"/3/device/{token}",
        "authorization": f"bearer {provider_token}",
        "apns-topic": BUNDLE_ID,
        "apns-push-type": "alert",
        "apns-id": str(uuid4()),
    }
    return [(name, value) for name, value in {**headers, **changes}.items() if value is not None]


def build_provider_token(key: Any = None, key_id: str = KEY_ID, **claims: Any) -> str:
    """No two are the same, for every signature has something random in it."""
    content = {"iss": TEAM_ID, "iat": int(time.time()), **claims}
    return jwt.encode(content, key or find_apns_key(), algorithm="ES256", headers={"kid": key_id})


@asynccontextmanager
async def open_raw_client(url: str) -> AsyncIterator[RawClient]:
    """The server's settings have come."""
    address = urlsplit(url)
    tcp = await trio.open_tcp_stream(str(address.hostname), int(address.port or 0))
    stream = trio.SSLStream(tcp, build_client_tls("h2"), server_hostname="127.0.0.1", https_compatible=True)
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    client = RawClient(stream, h2, build_provider_token())
    try:
        await stream.send_all(h2.data_to_send())
        assert await client.read()
        yield client
    finally:
        await trio.aclose_forcefully(stream)
