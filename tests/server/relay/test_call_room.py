"""Waiting until a desktop takes more calls."""

from dataclasses import replace
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from server.relay.call_room import ROOM_SECONDS, CallRoom
from server.relay.call_table import Desktop
from tests.server.relay.call_town import DESK, House, Town

FAR = Desktop(DESK, uuid4(), "far")


@pytest.fixture
def near() -> House:
    town = Town()
    town.add_house("far")
    return town.add_house("near")


@pytest.fixture
def room(near: House) -> CallRoom:
    return CallRoom(near.hub, near.bridge)


async def test_who_has_room_is_not_waited_for(room: CallRoom) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await room.wait(replace(FAR, instance="near"))
    assert not scope.cancelled_caught


async def test_all_who_wait_go_on_when_there_is_room(
    room: CallRoom, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    room.note(FAR.connection_id, "far", has_room=False)
    outcomes: list[bool] = []

    async def wait() -> None:
        outcomes.append(await room.wait(FAR))

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert outcomes == []
    room.note(FAR.connection_id, "far", has_room=True)
    await wait_all_tasks_blocked()
    assert outcomes == [True, True]


async def test_who_was_waited_for_in_vain_is_not_waited_for_again(room: CallRoom, autojump_clock: MockClock) -> None:
    room.note(FAR.connection_id, "far", has_room=False)
    assert not await room.wait(FAR)
    assert trio.current_time() == pytest.approx(ROOM_SECONDS)
    assert not await room.wait(FAR)
    assert trio.current_time() == pytest.approx(ROOM_SECONDS)
    room.note(FAR.connection_id, "far", has_room=True)
    assert await room.wait(FAR)


async def test_a_process_that_takes_no_letters_is_waited_for_each_time(
    near: House, room: CallRoom, autojump_clock: MockClock
) -> None:
    near.bridge.room = trio.Event()
    assert not await room.wait(FAR)
    near.bridge.room = None
    assert await room.wait(FAR)


async def test_nobody_waits_for_a_process_that_is_gone(
    room: CallRoom, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    room.note(FAR.connection_id, "far", has_room=False)
    nursery.start_soon(room.wait, FAR)
    await wait_all_tasks_blocked()
    room.forget_instance("another")
    assert room._full
    room.forget_instance("far")
    assert not room._full
    await wait_all_tasks_blocked()
    assert trio.current_time() == 0
