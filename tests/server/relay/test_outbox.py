"""What waits for one socket: in order, bounded in bytes, and who waits for room."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from server.relay.outbox import BATCH_BYTES, MOST_BYTES, ROOM_BYTES, Outbox
from server.websocket_frames import build_binary, build_ping, build_text


def never() -> None:
    raise AssertionError("it was called")


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(never)


async def test_what_was_put_comes_out_together_and_in_order(outbox: Outbox) -> None:
    outbox.put_text(b"one")
    outbox.put_binary(b"two")
    outbox.put_ping(b"three")
    outbox.put_frame(b"frame")
    assert await outbox.take() == build_text(b"one") + build_binary(b"two") + build_ping(b"three") + b"frame"
    assert outbox.batch_frames == 4


async def test_frames_are_never_split_and_batches_have_a_size(outbox: Outbox) -> None:
    frames = [bytes((number,)) * (BATCH_BYTES // 2) for number in range(3)] + [b"x" * (3 * BATCH_BYTES), b"y"]
    for frame in frames:
        outbox.put_frame(frame)
    taken = [await outbox.take() for _ in range(4)]
    assert taken == [frames[0] + frames[1], frames[2], frames[3], frames[4]]


async def test_a_frame_that_is_alone_is_not_copied(outbox: Outbox) -> None:
    frame = b"x" * 1000
    outbox.put_frame(frame)
    assert await outbox.take() is frame


async def test_the_writer_waits_for_something(outbox: Outbox) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_one, outbox, b"late")
        await wait_all_tasks_blocked()
        outbox.put_frame(b"late")


async def take_one(outbox: Outbox, expected: bytes) -> None:
    assert await outbox.take() == expected


async def test_bytes_wait_until_they_are_written(outbox: Outbox) -> None:
    outbox.put_frame(b"x" * 10)
    await outbox.take()
    assert outbox.waiting_bytes == 10
    outbox.note_written(10)
    assert outbox.waiting_bytes == 0


async def wait_room(outbox: Outbox, done: Callable[[bool], None]) -> None:
    done(await outbox.wait_room())


async def test_who_waits_for_room_goes_on_when_there_is_some(outbox: Outbox) -> None:
    answers: list[bool] = []
    for _ in range(3):
        outbox.put_frame(b"x" * (ROOM_BYTES // 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_room, outbox, answers.append)
        nursery.start_soon(wait_room, outbox, answers.append)
        for written in range(2):
            await wait_all_tasks_blocked()
            assert answers == []
            assert not outbox.has_room
            frames = await outbox.take()
            assert frames is not None
            outbox.note_written(len(frames))
            if written == 0:
                assert not outbox.has_room
    assert answers == [True, True]


async def test_with_room_nobody_waits(outbox: Outbox) -> None:
    outbox.put_frame(b"x" * (ROOM_BYTES - 1))
    with trio.fail_after(0):
        assert await outbox.wait_room()


async def test_a_device_that_leaves_too_much_unread_is_told_of_once_and_nothing_is_dropped() -> None:
    calls: list[int] = []
    full: Outbox = Outbox(lambda: calls.append(full.waiting_bytes))
    frame = b"x" * (MOST_BYTES // 4)
    for _ in range(4):
        full.put_frame(frame)
    assert calls == []
    full.put_frame(b"y")
    full.put_frame(b"z")
    assert calls == [MOST_BYTES + 1]
    assert full.waiting_bytes == MOST_BYTES + 2


async def test_a_closed_one_gives_what_waits_then_ends(outbox: Outbox) -> None:
    outbox.put_frame(b"last")
    outbox.close()
    outbox.put_frame(b"too late")
    assert [await outbox.take(), await outbox.take()] == [b"last", None]
    assert not await outbox.wait_room()


async def test_a_closed_one_may_discard_what_waits(outbox: Outbox) -> None:
    outbox.put_frame(b"taken")
    await outbox.take()
    outbox.put_frame(b"waits")
    outbox.close(discards=True)
    assert await outbox.take() is None
    assert outbox.waiting_bytes == 5


async def test_closing_wakes_everybody(outbox: Outbox) -> None:
    answers: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_end, outbox)
        await wait_all_tasks_blocked()
        outbox.close()
    other = Outbox(never)
    other.put_frame(b"x" * ROOM_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_room, other, answers.append)
        await wait_all_tasks_blocked()
        other.close(discards=True)
    assert answers == [False]


async def wait_end(outbox: Outbox) -> None:
    assert await outbox.take() is None
