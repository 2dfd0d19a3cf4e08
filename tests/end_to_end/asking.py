"""One request on a connection of its own, and its whole answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from tests.end_to_end.caller import build_request, open_caller
from tests.end_to_end.cloche import Cloche


@dataclass(frozen=True, slots=True)
class Reply:
    """`seconds` is from the first byte sent to the end of the connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    cloche: Cloche,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    begin: trio.Event | None = None,
) -> Reply:
    """A GET, or a POST if there is a body. Names of headers come back in lower case. With `begin`, the connection is
    made first, and the request sent at that event.
    """
    encoded = b"" if body is None else json.dumps(body).encode()
    head = {**(headers or {}), "Connection": "close"}
    async with open_caller(cloche) as caller:
        if begin is not None:
            await begin.wait()
        sent_at = trio.current_time()
        await caller.stream.send_all(build_request(path, head, encoded, "GET" if body is None else "POST"))
        text = await caller.read_all()
        return read_reply(text, sent_at, trio.current_time() - sent_at)


def read_reply(text: bytes, sent_at: float, seconds: float) -> Reply:
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return Reply(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body, sent_at, seconds)
