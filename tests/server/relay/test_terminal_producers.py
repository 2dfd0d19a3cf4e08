"""Desktops and their terminals: paused and bound again, given to another phone, let go of, and never without bound."""

import logging
from collections import deque
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from server.relay.terminal_frames import build_frame
from server.relay.terminal_producers import LOG_EVERY_SECONDS, MAX_ROUTES
from server.relay.terminal_route import GRACE_SECONDS
from server.relay.terminal_window import HIGH_BYTES, MOST_OF_PRODUCER_BYTES, MOST_OF_ROUTE_BYTES, WINDOW_BYTES
from tests.server.relay.terminal_devices import SNAPSHOT_BYTES
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import KIB, LOCAL, MIB, REMOTE, Scene, open_scene
from tests.server.relay.terminal_town import OTHER_PHONE, PHONE, bind, cut, unbind


@pytest.fixture(params=[LOCAL, REMOTE], ids=["local", "remote"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with open_scene(request.param) as scene:
        yield scene


async def test_a_slow_phone_pauses_its_desktop_which_lets_go_of_much_at_once_and_loses_nothing(scene: Scene) -> None:
    scene.phone.is_reading = False
    for start in range(0, 6 * MIB, 256 * KIB):
        await scene.say(BURST[start : start + 256 * KIB])
    assert scene.heard == ["bind", "unbind"]
    assert HIGH_BYTES < scene.waiting_bytes < HIGH_BYTES + MIB
    await scene.say(BURST)
    scene.phone.is_reading = True
    await scene.town.settle()
    assert scene.is_whole
    assert scene.heard == ["bind", "unbind", "bind", "unbind", "bind"]


async def test_a_paused_desktop_that_flushes_more_than_there_may_wait_is_paused_again(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST)
    await scene.say(BURST[: 3 * MIB])
    scene.phone.is_reading = True
    while scene.heard.count("bind") < 2:
        scene.phone.take(64 * KIB)
        await scene.town.deliver()
        scene.desktop.listen()
    scene.phone.is_reading = False
    await scene.say(BURST)
    await scene.say(BURST[: 2 * MIB])
    scene.phone.is_reading = True
    await scene.town.settle()
    assert scene.is_whole
    assert scene.heard.count("unbind") >= 2


async def test_a_desktop_that_does_not_pause_is_bounded_and_says_by_a_snapshot_that_bytes_are_gone() -> None:
    async with open_scene(LOCAL, ignores_unbind=True) as scene:
        scene.phone.is_reading = False
        for _ in range(20):
            scene.desktop.say("t-1", BURST)
            assert scene.waiting_bytes <= MOST_OF_ROUTE_BYTES
        scene.phone.is_reading = True
        await scene.town.settle()
        assert scene.desktop.snapshots == 1
        assert len(scene.got) <= WINDOW_BYTES + 16 * KIB + SNAPSHOT_BYTES
        assert scene.got.endswith(scene.said[-SNAPSHOT_BYTES:])
        await scene.say(b"more")
        assert scene.got.endswith(scene.said[-SNAPSHOT_BYTES - 4 :])


async def test_all_terminals_of_a_desktop_together_are_bounded() -> None:
    async with open_scene(LOCAL, ignores_unbind=True) as scene:
        sessions = [f"s-{number}" for number in range(8)]
        for session_id in sessions:
            await bind(scene.phone, session_id)
        await scene.town.settle()
        scene.phone.is_reading = False
        for _ in range(4):
            for session_id in sessions:
                scene.desktop.say(session_id, BURST[: 4 * MIB])
                assert scene.waiting_bytes <= MOST_OF_PRODUCER_BYTES
        scene.phone.is_reading = True
        await scene.town.settle()
        assert scene.waiting_bytes == 0
        assert scene.desktop.snapshots >= 1


async def test_another_phone_that_binds_has_the_terminal_with_a_snapshot_and_the_first_is_not_told(
    scene: Scene,
) -> None:
    await scene.say(b"for the first")
    other = scene.town.add_phone()
    await scene.spare.connect(other, OTHER_PHONE)
    await bind(other)
    await scene.town.settle()
    await scene.say(b"for the other")
    assert scene.got == b"for the first"
    assert other.got["t-1"] == b"for the firstfor the other"
    assert (scene.phone.bound, scene.phone.errors) == (["t-1"], [])


async def test_a_phone_that_takes_its_terminal_back_gets_a_snapshot(scene: Scene) -> None:
    other = scene.town.add_phone()
    await scene.spare.connect(other, OTHER_PHONE)
    await bind(other)
    await scene.town.settle()
    await scene.say(b"for the other")
    await bind(scene.phone)
    await scene.town.settle()
    await scene.say(b", then")
    assert scene.got == b"for the other, then"


async def test_a_terminal_that_is_unbound_and_bound_again_misses_nothing(scene: Scene) -> None:
    await scene.say(b"one ")
    await unbind(scene.phone)
    scene.desktop.say("t-1", b"two ")
    await scene.town.settle()
    await scene.say(b"three ")
    assert scene.heard == ["bind", "unbind"]
    await bind(scene.phone)
    await scene.town.settle()
    await scene.say(b"four")
    assert scene.is_whole


async def test_a_phone_that_unbinds_a_paused_terminal_does_not_make_the_desktop_forget(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST)
    await scene.say(BURST[: 2 * MIB])
    await scene.say(BURST[:MIB])
    assert scene.heard == ["bind", "unbind"]
    await unbind(scene.phone)
    await scene.town.settle()
    assert scene.heard == ["bind", "unbind"]
    scene.phone.is_reading = True
    await bind(scene.phone)
    await scene.town.settle()
    assert scene.is_whole


async def test_who_does_not_have_a_terminal_cannot_unbind_it(scene: Scene) -> None:
    other = scene.town.add_phone()
    await scene.spare.connect(other, OTHER_PHONE)
    await unbind(other)
    await unbind(other, "unknown")
    await scene.town.settle()
    await scene.say(b"still here")
    assert (scene.got, scene.heard, other.errors) == (b"still here", ["bind"], [])


async def test_a_phone_may_unbind_by_another_connection_than_it_has_bound_by(scene: Scene) -> None:
    cut(scene.phone, is_noticed=False)
    await scene.spare.connect(scene.phone, PHONE)
    await unbind(scene.phone)
    await scene.town.settle()
    assert scene.heard == ["bind", "unbind"]


async def test_what_an_older_connection_asked_for_counts_no_more_when_it_comes_late() -> None:
    """Its letters took longer than the phone did to come back."""
    async with open_scene(REMOTE) as scene:
        await scene.say(b"one")
        assert scene.phone.connection is not None
        await unbind(scene.phone)
        await bind(scene.phone)
        late, scene.town.letters = scene.town.letters, deque()
        cut(scene.phone)
        await scene.connect_phone(scene.desk_house)
        scene.town.letters.extendleft(reversed(late))
        await scene.town.settle()
        await scene.say(b", two")
        assert scene.is_whole
        assert scene.phone.bound == ["t-1", "t-1"]


async def test_of_a_phone_that_never_returns_nothing_is_left(scene: Scene, autojump_clock: MockClock) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[:MIB])
    cut(scene.phone)
    await scene.town.settle()
    await trio.sleep(GRACE_SECONDS - 2)
    assert scene.waiting_bytes == len(build_frames_of(MIB))
    await trio.sleep(4)
    assert scene.waiting_bytes == 0
    cut(scene.desktop)
    await trio.sleep(2)
    assert list(scene.desk_house.terminals._producers) == []


async def test_a_phone_that_returns_after_its_grace_gets_a_snapshot_if_bytes_are_gone(
    scene: Scene, autojump_clock: MockClock
) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[:MIB])
    cut(scene.phone)
    await scene.town.settle()
    await trio.sleep(GRACE_SECONDS + 2)
    await scene.connect_phone(scene.phone_house)
    assert (scene.got, scene.desktop.snapshots) == (BURST[MIB - SNAPSHOT_BYTES : MIB], 1)


async def test_a_phone_that_returns_after_its_grace_and_had_everything_gets_what_the_desktop_has_kept(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.say(BURST[:MIB])
    cut(scene.phone)
    await scene.town.settle()
    await scene.say(BURST[MIB : 2 * MIB])
    await trio.sleep(GRACE_SECONDS + 2)
    await scene.connect_phone(scene.phone_house)
    await scene.say(BURST[2 * MIB :])
    assert scene.is_whole
    assert len(scene.town.records.kept) == 1


async def test_a_session_id_that_was_let_go_may_be_used_again(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.say(b"before")
    await unbind(scene.phone)
    await scene.town.settle()
    await trio.sleep(GRACE_SECONDS + 2)
    assert scene.town.records.kept == {}
    await bind(scene.phone, include_snapshot=True)
    await scene.town.settle()
    assert scene.desktop.heard[-1][1]["includeSnapshot"] is True
    await scene.say(b" after")
    assert scene.got == b"beforebefore after"


async def test_a_phone_that_binds_terminals_without_end_keeps_a_hundred(scene: Scene) -> None:
    for number in range(1000):
        await bind(scene.phone, f"s-{number}")
        if number % 50 == 0:
            await scene.town.settle()
    await scene.town.settle()
    [producer] = scene.desk_house.terminals._producers
    sockets = scene.phone_house.terminals._consumers._sockets
    assert len(producer.routes) == MAX_ROUTES
    assert [len(socket.bindings) for socket in sockets.values()] == [MAX_ROUTES]
    assert scene.phone.errors == []


async def test_a_terminal_that_is_let_go_for_another_is_unbound(scene: Scene) -> None:
    for number in range(MAX_ROUTES):
        await bind(scene.phone, f"s-{number}")
        await scene.town.settle()
    assert not scene.desktop.sessions["t-1"].is_bound
    assert scene.desktop.sessions["s-0"].is_bound
    await scene.say(b"kept")
    await bind(scene.phone)
    await scene.town.settle()
    assert scene.got == b"kept"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"PTC1",
        b"PTC1\x00",
        b"PTC1\x00\x09t-1hi",
        b"PTC2\x00\x03t-1hi",
        b"PTC1\xff\xff",
        b"PTC1\x00\x03\xff\xfe\xfdhi",
        b"PTC1\x00\x00hi",
        build_frame(b"unknown", b"hi"),
    ],
)
async def test_what_is_no_frame_of_a_bound_terminal_goes_nowhere(frame: bytes) -> None:
    async with open_scene(LOCAL) as scene:
        assert scene.desktop.connection is not None
        scene.desk_house.terminals.pass_on(scene.desktop.connection.member, frame)
        await scene.say(b"there")
        assert scene.got == b"there"


async def test_what_a_phone_sends_as_a_frame_goes_nowhere() -> None:
    async with open_scene(LOCAL) as scene:
        assert scene.phone.connection is not None
        scene.desk_house.terminals.pass_on(scene.phone.connection.member, build_frame(b"t-1", b"hi"))
        await scene.town.settle()
        assert scene.got == b""


async def test_what_is_dropped_is_logged_once_in_a_while_and_without_its_bytes(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_scene(LOCAL) as scene:
        assert scene.desktop.connection is not None
        with caplog.at_level(logging.INFO):
            for pause in (0.0, 0.0, LOG_EVERY_SECONDS):
                await trio.sleep(pause)
                frame = build_frame(b"unknown", b"secret")
                scene.desk_house.terminals.pass_on(scene.desktop.connection.member, frame)
        assert len(caplog.records) == 2
        assert not any("secret" in str(vars(record)) for record in caplog.records)


async def test_an_empty_frame_is_passed_on(scene: Scene) -> None:
    assert scene.desktop.connection is not None
    scene.desk_house.terminals.pass_on(scene.desktop.connection.member, build_frame(b"t-1", b""))
    await scene.say(b"hi")
    assert scene.got == b"hi"


def build_frames_of(size_bytes: int) -> bytes:
    """As many bytes as frames with so much output have, on the socket."""
    frame = 4 + len(build_frame(b"t-1", bytes(16 * KIB)))
    return bytes(size_bytes // (16 * KIB) * frame)

