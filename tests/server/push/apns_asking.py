"""Tasks that ask APNs something over a link, and what they are told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from server.push.apns_connection import ApnsLink, ConnectionTimes
from server.push.apns_streams import Answered, Unanswered
from tests.server.push.http2_peer import Http2Peer

PATIENT = ConnectionTimes(connect=5, write=5)
HEADERS = (("authorization", "bearer x"), ("apns-topic", "app"))
BODY = b'{"aps":{}}'


@asynccontextmanager
async def open_link(peer: Http2Peer, times: ConnectionTimes = PATIENT) -> AsyncIterator[ApnsLink]:
    link = ApnsLink(peer.address, times)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.keep_connected)
            yield link
            nursery.cancel_scope.cancel()
    assert link.open_connections == 0


class Askers:
    """Several who ask at once; `results` are in the order in which they came."""

    def __init__(self, link: ApnsLink, nursery: trio.Nursery) -> None:
        self.results: list[Answered | Unanswered] = []
        self.changed = trio.Event()
        self._link = link
        self._nursery = nursery

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            self._nursery.start_soon(self._ask)

    async def wait(self, count: int) -> list[Answered | Unanswered]:
        while len(self.results) < count:
            self.changed = trio.Event()
            await self.changed.wait()
        return self.results

    async def _ask(self) -> None:
        self.results.append(await ask(self._link))
        self.changed.set()


async def ask(link: ApnsLink, path: str = "/3/device/0a") -> Answered | Unanswered:
    return await link.ask(path, HEADERS, BODY)


@asynccontextmanager
async def open_askers(peer: Http2Peer, times: ConnectionTimes = PATIENT) -> AsyncIterator[Askers]:
    async with open_link(peer, times) as link, trio.open_nursery() as nursery:
        yield Askers(link, nursery)
        nursery.cancel_scope.cancel()


def is_accepted(result: Answered | Unanswered) -> bool:
    return isinstance(result, Answered) and result.status == 200
