"""A desktop that is cut off and comes back: to the same process, to another, or after its process was killed."""

from collections import deque
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from server.relay.terminal_letters import Handed, HandOver
from server.relay.terminal_moves import COLLECT_SECONDS, PART_BYTES, split
from server.relay.terminal_moves import cut as cut_apart
from tests.server.relay.terminal_devices import PENDING_BYTES, SNAPSHOT_BYTES
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import LOCAL, MIB, REMOTE, Scene, open_scene, take_confirmed
from tests.server.relay.terminal_town import DESK, PHONE, House, bind, cut, leave


@pytest.fixture(params=[LOCAL, REMOTE], ids=["local", "remote"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with open_scene(request.param) as scene:
        yield scene


async def test_a_desktop_that_is_cut_off_in_a_burst_is_bound_again_and_the_phone_does_nothing(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[: 2 * MIB])
    cut(scene.desktop)
    await scene.say(BURST[2 * MIB :])
    await scene.connect_desktop(scene.desk_house)
    scene.phone.is_reading = True
    await scene.town.settle()
    assert scene.is_whole
    assert scene.phone.bound == ["t-1"]


async def test_a_desktop_that_comes_back_at_another_process_loses_nothing(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[: 3 * MIB])
    cut(scene.desktop)
    await scene.say(BURST[3 * MIB :])
    await scene.connect_desktop(scene.spare)
    assert scene.desk_house.terminals.waiting_bytes == 0
    scene.phone.is_reading = True
    await scene.say(b"more")
    assert scene.is_whole
    assert scene.phone.bound == ["t-1"]


async def test_a_desktop_may_go_to_and_fro(scene: Scene) -> None:
    scene.phone.is_reading = False
    for turn in range(4):
        await scene.say(BURST[turn * MIB : (turn + 1) * MIB])
        cut(scene.desktop)
        await scene.connect_desktop((scene.spare, scene.desk_house)[turn % 2])
    scene.phone.is_reading = True
    await scene.say(BURST[4 * MIB :])
    assert scene.is_whole


async def test_a_desktop_whose_old_socket_still_stands_elsewhere_moves_soon(
    scene: Scene, autojump_clock: MockClock
) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[: 2 * MIB])
    former = cut(scene.desktop, is_noticed=False)
    await scene.say(BURST[2 * MIB :])
    started = trio.current_time()
    await scene.connect_desktop(scene.spare)
    assert trio.current_time() - started < COLLECT_SECONDS
    scene.phone.is_reading = True
    await scene.say(b"more")
    leave(former)
    await scene.say(b"more")
    assert scene.is_whole


async def test_what_came_on_the_old_socket_goes_before_what_comes_on_the_new_one(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.say(BURST[:MIB])
    former = cut(scene.desktop, is_noticed=False)
    await scene.say(BURST[2 * MIB :])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.connect_desktop, scene.desk_house)
        await trio.sleep(0.1)
        late = scene.desktop.connection
        scene.desktop.connection = former
        scene.desktop._send("t-1", BURST[MIB : 2 * MIB])
        scene.desktop.connection = late
        leave(former)
    await scene.town.settle()
    assert scene.got == BURST


async def test_a_desktop_whose_process_was_killed_begins_with_a_snapshot() -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[: 3 * MIB])
        scene.town.kill("one")
        await scene.connect_desktop(scene.spare)
        scene.phone.is_reading = True
        await scene.say(b"more")
        assert scene.desktop.snapshots == 1
        reached = len(scene.got) - SNAPSHOT_BYTES - 4
        assert scene.got == scene.said[:reached] + scene.said[-SNAPSHOT_BYTES - 4 : -4] + b"more"
        assert scene.phone.bound == ["t-1"]


async def test_a_desktop_whose_process_was_killed_long_after_all_had_arrived_needs_no_snapshot(
    autojump_clock: MockClock,
) -> None:
    """It had gone before."""
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        await trio.sleep(5)
        scene.town.kill("one")
        await scene.say(BURST[MIB:])
        await scene.connect_desktop(scene.spare)
        assert scene.is_whole


async def test_a_process_whose_memory_has_grown_old_is_asked_by_nobody(autojump_clock: MockClock) -> None:
    """It never heard that it was to hand over; then the desktop is back there."""
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        scene.town.asleep.add("one")
        await scene.connect_desktop(scene.spare)
        await scene.say(BURST[MIB : 2 * MIB])
        assert scene.desktop.snapshots == 1
        cut(scene.desktop)
        scene.town.letters.clear()
        scene.town.asleep.clear()
        await scene.connect_desktop(scene.desk_house)
        got = scene.got
        await scene.say(b"more")
        assert scene.got == got + b"more"
        assert scene.desktop.snapshots == 1


async def test_a_process_whose_memory_has_grown_old_does_not_trust_it_where_the_newer_one_was_killed(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        scene.town.asleep.add("one")
        await scene.connect_desktop(scene.spare)
        scene.town.letters.clear()
        scene.town.asleep.clear()
        scene.town.kill("spare")
        await scene.say(BURST[MIB : 2 * MIB])
        await scene.connect_desktop(scene.desk_house)
        assert scene.desktop.snapshots == 2
        assert scene.got.endswith(scene.said[-SNAPSHOT_BYTES:])


async def test_a_process_that_was_about_to_hand_over_when_the_desktop_came_back_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.spare.connect, scene.desktop, DESK)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        late, scene.town.letters = scene.town.letters, deque()
        assert len(late) == 1
        cut(scene.desktop)
        await scene.connect_desktop(scene.desk_house)
        scene.town.letters.extend(late)
        async with scene.town.while_settling():
            await trio.sleep(2)
        scene.phone.is_reading = True
        await scene.say(b"more")
        assert scene.is_whole


async def connect_for_a_moment(scene: Scene, house: House) -> None:
    """The desktop is gone before any letter has come."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.connect, scene.desktop, DESK)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    cut(scene.desktop)


async def test_what_was_asked_for_by_a_connection_that_has_ended_is_there_for_the_next_one(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[: 2 * MIB])
    cut(scene.desktop)
    await connect_for_a_moment(scene, scene.spare)
    await scene.say(BURST[2 * MIB :])
    await scene.connect_desktop(scene.spare)
    scene.phone.is_reading = True
    await scene.say(b"more")
    assert scene.is_whole


async def test_what_came_for_a_connection_that_has_ended_does_not_count_as_what_the_next_one_asks_for() -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        await connect_for_a_moment(scene, scene.spare)
        await scene.town.settle()
        await scene.connect_desktop(scene.desk_house)
        await scene.say(BURST[MIB : 2 * MIB])
        cut(scene.desktop)
        await scene.connect_desktop(scene.spare)
        scene.phone.is_reading = True
        await scene.say(b"more")
        assert scene.is_whole


async def test_a_bind_that_waits_for_a_connection_that_ends_does_not_take_the_place_of_what_has_yet_to_come(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[: 2 * MIB])
        cut(scene.desktop)
        cut(scene.phone)
        await scene.town.settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.spare.connect, scene.desktop, DESK)
            await trio.testing.wait_all_tasks_blocked()
            await scene.spare.connect(scene.phone, PHONE)
            await bind(scene.phone)
            nursery.cancel_scope.cancel()
        cut(scene.desktop)
        async with scene.town.while_settling():
            await scene.connect_desktop(scene.spare)
            scene.phone.is_reading = True
            await trio.sleep(1)
        await scene.say(b"more")
        assert scene.is_whole
        assert scene.phone.errors == []


async def test_a_desktop_that_is_back_before_it_was_handed_over_stays(scene: Scene) -> None:
    """The loop was busy with others until then."""
    await scene.say(BURST[:MIB])
    cut(scene.desktop)
    scene.desk_house.scope.cancel()
    moves = scene.desk_house.terminals._moves
    scene.town.connected_at += 1
    moves._note_hand_over("spare", scene.town.user_id, HandOver(DESK, scene.town.connected_at), b"")
    await scene.connect_desktop(scene.desk_house)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(moves.run)
        await scene.say(BURST[MIB:])
        nursery.cancel_scope.cancel()
    assert scene.is_whole
    assert scene.town.sent["terminal-handed"] == 1


async def test_a_process_that_does_not_hand_over_in_time_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST)
        cut(scene.desktop)
        scene.desk_house.scope.cancel()
        started = trio.current_time()
        await scene.connect_desktop(scene.spare)
        assert COLLECT_SECONDS <= trio.current_time() - started < COLLECT_SECONDS + 1
        scene.phone.is_reading = True
        await scene.town.settle()
        assert scene.desktop.snapshots == 1
        assert scene.got.endswith(scene.said[-SNAPSHOT_BYTES:])


async def test_what_is_handed_over_too_late_is_nobodys(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        member = await scene.spare.connect(scene.desktop, DESK)
        moves = scene.spare.terminals._moves
        moves._note_handed("one", member.member.user_id, Handed(DESK, is_all=True), b"")
        assert moves._collections == {}


async def test_both_may_be_cut_off_at_once_and_come_back_elsewhere(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[: 3 * MIB])
    take_confirmed(scene.phone, MIB)
    cut(scene.phone)
    cut(scene.desktop)
    await scene.say(BURST[3 * MIB :])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.connect_desktop, scene.spare)
        nursery.start_soon(scene.connect_phone, scene.spare)
    await scene.town.settle()
    assert scene.is_whole


async def test_a_phone_may_be_back_before_its_desktop(scene: Scene) -> None:
    await scene.say(BURST[:MIB])
    cut(scene.phone)
    cut(scene.desktop)
    del scene.town.links[DESK]
    await scene.say(BURST[MIB:])
    await scene.connect_phone(scene.spare)
    assert scene.phone.bound == ["t-1", "t-1"]
    await scene.connect_desktop(scene.spare)
    assert scene.is_whole


async def test_a_phone_may_be_back_before_its_desktop_though_their_process_was_killed() -> None:
    async with open_scene(LOCAL) as scene:
        await scene.say(BURST[:MIB])
        scene.town.kill("one")
        await scene.connect_phone(scene.spare)
        assert (scene.phone.bound, scene.phone.errors) == (["t-1", "t-1"], [])
        await scene.connect_desktop(scene.spare)
        await scene.say(b"more")
        assert scene.desktop.snapshots == 1
        assert scene.got == BURST[:MIB] + BURST[MIB - SNAPSHOT_BYTES : MIB] + b"more"


async def test_what_a_desktop_has_forgotten_while_it_was_away_it_says_by_a_snapshot(scene: Scene) -> None:
    cut(scene.desktop)
    for _ in range(3):
        await scene.say(BURST)
    assert len(scene.said) > PENDING_BYTES
    await scene.connect_desktop(scene.desk_house)
    assert (scene.got, scene.desktop.snapshots) == (scene.said[-SNAPSHOT_BYTES:], 1)


async def test_a_desktop_that_registers_again_on_its_socket_is_told_nothing(scene: Scene) -> None:
    assert scene.desktop.connection is not None
    await scene.desk_house.terminals.resume_producer(scene.desktop.connection.member)
    await scene.say(BURST[:MIB])
    assert scene.heard == ["bind"]
    assert scene.is_whole


async def test_a_desktop_that_is_about_to_be_closed_keeps_what_it_would_lose(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[:MIB])
    assert scene.desktop.connection is not None
    scene.desk_house.terminals.prepare_end(scene.desktop.connection.member)
    scene.desktop.say("t-1", BURST[MIB : 2 * MIB])
    await scene.town.settle()
    assert scene.heard == ["bind", "unbind"]
    await scene.say(BURST[2 * MIB :])
    cut(scene.desktop)
    await scene.connect_desktop(scene.spare)
    scene.phone.is_reading = True
    await scene.town.settle()
    assert scene.is_whole


async def test_a_desktop_at_a_new_process_is_bound_to_what_another_phone_asks_for(scene: Scene) -> None:
    cut(scene.desktop)
    await scene.connect_desktop(scene.spare)
    await bind(scene.phone, "t-2")
    await scene.say(b"$ ", "t-2")
    assert scene.phone.got["t-2"] == b"$ "


@pytest.mark.parametrize("sizes", [(), (0,), (PART_BYTES,), (7, PART_BYTES, PART_BYTES + 1, 3, 5)])
def test_frames_go_in_parts_and_come_out_as_they_were(sizes: tuple[int, ...]) -> None:
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    parts = list(split(frames))
    assert all(len(part) < 2 * PART_BYTES + 8 for part in parts)
    assert cut_apart(b"".join(parts), sizes) == frames
