"""What ends sockets from outside, and what is counted of them."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID, uuid4

import msgspec
import pytest
import trio
from trio.testing import MockClock

from server.auth.callers import Caller
from server.relay.channels import Channels
from server.relay.endless import Loop
from server.relay.open_sockets import MOST_WAITING_BYTES, OpenSockets
from server.relay.outbox import Outbox
from server.relay.sign_in_check import list_names
from tests.server.relay.test_sign_in_check import build_caller

ANN, ABROAD, BOB = uuid4(), uuid4(), uuid4()
DESK = uuid4()


@dataclass(eq=False)
class Socket:
    caller: Caller
    outbox: Outbox = field(default_factory=lambda: Outbox(lambda: None))
    codes: list[int] = field(default_factory=list)
    checks: int = 0
    unlinked: list[UUID] = field(default_factory=list)

    def end(self, code: int, reason: str) -> None:
        assert reason
        self.codes.append(code)

    def check_soon(self) -> None:
        self.checks += 1

    def note_unlinked(self, device_id: UUID) -> None:
        self.unlinked.append(device_id)


class Channel:
    """Stands where Redis would tell."""

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[UUID, bytes], Awaitable[None]]] = {}

    def hear(self, kind: str, listener: Callable[[UUID, bytes], Awaitable[None]]) -> None:
        self._listeners[kind] = listener

    def hear_lost(self, listener: Callable[[UUID], Awaitable[None]]) -> None:
        self.lose = listener

    async def tell(self, owner: UUID, kind: str, said: bytes) -> None:
        await self._listeners[kind](owner, said)


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def sockets(channel: Channel) -> OpenSockets:
    return OpenSockets(cast(Channels, channel))


async def test_what_has_ended_ends_the_sockets_that_came_with_it(sockets: OpenSockets, channel: Channel) -> None:
    ours, same, others = (Socket(build_caller(ANN, ABROAD)) for _ in range(3))
    same.caller = ours.caller
    (session,) = [name for name in list_names(ours.caller) if ":session:" in name]
    with sockets.admit(ours), sockets.admit(same), sockets.admit(others):
        await channel.tell(ABROAD, "ended", session.encode())
        assert (ours.codes, same.codes, others.codes) == ([4401], [4401], [])
        await channel.tell(ANN, "ended", f"{{{ANN}}}:user".encode())
        assert others.codes == [4401]
    await channel.tell(ABROAD, "ended", session.encode())
    assert ours.codes == [4401, 4401]


async def test_a_device_that_was_unlinked_is_told_of(sockets: OpenSockets, channel: Channel) -> None:
    socket, bobs = Socket(build_caller(ANN, ANN)), Socket(build_caller(BOB, BOB))
    with sockets.admit(socket), sockets.admit(bobs):
        for event_type in ("device-unlinked", "device-status"):
            payload = {"deviceId": str(DESK), "status": "device-unlinked"}
            await channel.tell(ANN, "status", msgspec.json.encode({"eventType": event_type, "payload": payload}))
        assert (socket.unlinked, bobs.unlinked) == ([DESK], [])


async def test_where_something_may_have_been_missed_it_is_looked_up(sockets: OpenSockets, channel: Channel) -> None:
    socket, bobs = Socket(build_caller(ANN, ABROAD)), Socket(build_caller(BOB, BOB))
    with sockets.admit(socket), sockets.admit(bobs):
        await channel.lose(ABROAD)
    assert (socket.checks, bobs.checks) == (1, 0)


def test_a_socket_is_counted_once_and_not_after_its_end(sockets: OpenSockets) -> None:
    socket = Socket(build_caller(ANN, ABROAD))
    with sockets.admit(socket), sockets.admit(Socket(build_caller(ANN, ANN))):
        socket.outbox.put_frame(b"x" * 7)
        assert (sockets.count, sockets.waiting_bytes) == (2, 7)
    assert (sockets.count, sockets.waiting_bytes) == (0, 0)


async def test_where_too_much_is_unread_by_all_together_those_end_that_leave_most_unread(
    sockets: OpenSockets, autojump_clock: MockClock
) -> None:
    some = [Socket(build_caller(ANN, ABROAD)) for _ in range(4)]
    with ExitStack() as stack:
        for socket, share in zip(some, (1, 5, 3, 2), strict=True):
            stack.enter_context(sockets.admit(socket))
            frame = bytes(MOST_WAITING_BYTES // 1000)
            for _ in range(100 * share):
                socket.outbox.put_frame(frame)
        assert sockets.waiting_bytes > MOST_WAITING_BYTES
        await run_for(sockets.loops, seconds=1.5)
        assert [socket.codes for socket in some] == [[], [1013], [], []]
        some[1].outbox.close(discards=True)
        await run_for(sockets.loops, seconds=10)
        assert [len(socket.codes) for socket in some] == [0, 1, 0, 0]


async def run_for(loops: Iterable[Loop], seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        for loop in loops:
            nursery.start_soon(loop)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
