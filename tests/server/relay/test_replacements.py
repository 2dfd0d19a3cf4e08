"""A newer connection of a device, which is answered when the former one has ended; on one process and on two."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
import trio
from trio.testing import MockClock

import server.presence
from server.relay.bridge import Bridge
from server.relay.hub import Hub
from server.relay.replacements import VACATE_SECONDS, Replacements
from storage.presence import Link
from tests.server.relay.device_stage import Socket, Stage, open_stage

ANN = uuid4()
MANY = 300


@pytest.fixture
async def two(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Two processes."""
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0.06)
    async with open_stage(database_url, redis_url, 2) as stage:
        yield stage


def say_numbers(socket: Socket, *numbers: int) -> None:
    for number in numbers:
        socket.say("event", {"eventType": "noted", "payload": number})


@pytest.mark.parametrize("at", [0, 1])
async def test_what_a_device_said_on_its_former_connection_goes_before_what_it_says_on_the_new_one(
    two: Stage, at: int
) -> None:
    phone, device_id = await two.register(), uuid4()
    older = await two.register("desktop", device_id=device_id)
    say_numbers(older, *range(MANY))
    newer = await two.register("desktop", at=at, device_id=device_id)
    say_numbers(newer, MANY)
    await newer.settle()
    await phone.settle()
    assert await older.wait_closed() == 4001
    assert [event["payload"]["payload"] for event in phone.list_events("noted")] == list(range(MANY + 1))


@pytest.mark.parametrize("at", [0, 1])
async def test_a_former_connection_of_which_nothing_is_heard_holds_up_nobody_for_long(two: Stage, at: int) -> None:
    device_id = uuid4()
    older = await two.register(device_id=device_id)
    older.is_stuck = True
    began = trio.current_time()
    await two.register(at=at, device_id=device_id)
    assert trio.current_time() - began < VACATE_SECONDS
    assert [relay.parts.replacements._waiting or relay.parts.replacements._askers for relay in two.relays] == [{}, {}]


@pytest.mark.parametrize("at", [0, 1])
async def test_a_former_connection_that_has_ended_holds_up_nobody(two: Stage, at: int) -> None:
    device_id = uuid4()
    older = await two.register(device_id=device_id)
    older.leave()
    await older.over.wait()
    with trio.fail_after(0.3):
        await two.register(at=at, device_id=device_id)


class Silence:
    """Stands where letters would leave, and brings none."""

    instance = "here"

    def __init__(self, *, reaches: bool) -> None:
        self._reaches = reaches
        self.sent: list[str] = []
        self.readers: dict[str, Callable[[Any, Any], Awaitable[None]]] = {}

    def handle(self, kind: str, _: type[msgspec.Struct], read: Callable[[Any, Any], Awaitable[None]]) -> None:
        self.readers[kind] = read

    def send(self, instance: str, _: UUID, kind: str, body: msgspec.Struct) -> bool:
        self.sent.append(f"{kind} to {instance}")
        return self._reaches


@pytest.mark.parametrize(("reaches", "seconds"), [(True, VACATE_SECONDS), (False, 0)])
async def test_a_process_that_does_not_answer_is_waited_for_only_so_long(
    reaches: bool, seconds: float, autojump_clock: MockClock
) -> None:
    bridge = Silence(reaches=reaches)
    replacements = Replacements(cast(Bridge, bridge), Hub())
    began = trio.current_time()
    await replacements.take_place(ANN, Link(uuid4(), uuid4(), "there", "mobile", "", is_visible=True))
    assert trio.current_time() - began == pytest.approx(seconds)
    assert bridge.sent == ["replaced to there"]
    assert replacements._waiting == {}
