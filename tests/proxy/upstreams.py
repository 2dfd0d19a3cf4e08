"""What tests of the transport share: a request, an answer, patient deadlines, names without a network."""

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import trio

from proxy.provider import UpstreamRequest
from proxy.transport import Deadlines, NetworkTransport
from tests.fakes import FakeUpstream, RecordedRequest, Step, WaitForClose, openai_stream, upto_chunks

PATIENT = Deadlines(connect_seconds=10, response_seconds=10, idle_seconds=10, write_seconds=10)
AT_ONCE_SECONDS = 1.0
"""Generous, for a loaded machine; what is measured is well below a millisecond."""

ANSWER = openai_stream(["Hel", "lo"], usage=(7, 2))
HALF_AN_ANSWER = [*upto_chunks(ANSWER, 2), WaitForClose()]


@dataclass(frozen=True, slots=True)
class Security:
    """How a fake provider and its client are secured; `server` is None for plain HTTP."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class ScriptByTurn:
    """Plays one script a request, the last one for ever."""

    scripts: list[list[Step]]

    def __call__(self, _request: RecordedRequest) -> Iterable[Step]:
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]


class FakeResolver(trio.abc.HostnameResolver):
    """Takes every name for this machine's, or never answers."""

    def __init__(self, *, answers: bool) -> None:
        self.asked = trio.Event()
        self._answers = answers

    async def getaddrinfo(self, *args: Any, **_kwargs: Any) -> Any:
        self.asked.set()
        if not self._answers:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", args[1]))]

    async def getnameinfo(self, *_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError


def build_request(upstream: FakeUpstream, body: bytes = b"{}") -> UpstreamRequest:
    return UpstreamRequest(f"{upstream.url}/v1/chat/completions", (("authorization", "Bearer sk-test"),), body)


async def ask(transport: NetworkTransport, upstream: FakeUpstream, body: bytes = b"{}") -> bytes:
    """One call, read to its end."""
    async with transport.open_exchange(build_request(upstream, body)) as exchange:
        return await exchange.receive_all(1 << 20)
