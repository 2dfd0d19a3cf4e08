"""What waits for one process: in order, bounded, and numbered for as long as we live."""

from uuid import uuid4

import msgspec
import pytest
import trio
import trio.testing

from server.relay.letters import PIECE_BYTES, Draft, read_header
from server.relay.line import BATCH_BYTES, BATCH_ENTRIES, ROOM_BYTES, Line, Lines

ANN = uuid4()


class Body(msgspec.Struct):
    pass


def draft(blob: bytes = b"") -> Draft:
    return Draft(ANN, "kind", Body(), blob)


@pytest.fixture
def line() -> Line:
    return Line("here", "there", clock=lambda: 5.0)


def numbers(line: Line) -> list[int]:
    return [read_header(entry).number for entry in line.peek()]


def test_what_was_put_waits_until_it_has_left(line: Line) -> None:
    for blob in (b"a", b"b", b"c"):
        line.put(draft(blob))
    assert [entry.blob for entry in line.peek()] == [b"a", b"b", b"c"]
    line.note_left(line.peek()[:2])
    assert [entry.blob for entry in line.peek()] == [b"c"]
    line.note_left(line.peek())
    assert not line
    assert line.waiting_bytes == 0


def test_what_leaves_together_is_bounded(line: Line) -> None:
    for _ in range(BATCH_ENTRIES + 1):
        line.put(draft())
    assert len(line.peek()) == BATCH_ENTRIES
    line.drop()
    line.put(draft(bytes(5 * PIECE_BYTES)))
    assert sum(len(entry.blob) for entry in line.peek()) <= BATCH_BYTES
    assert len(line.peek()) == 1


def test_what_was_dropped_while_it_was_on_its_way_takes_nothing_with_it(line: Line) -> None:
    line.put(draft(b"old"))
    leaving = line.peek()
    line.drop()
    line.put(draft(b"new"))
    line.note_left(leaving)
    assert [entry.blob for entry in line.peek()] == [b"new"]


def test_numbers_go_on_after_what_was_dropped(line: Line) -> None:
    line.put(draft())
    line.put(draft())
    line.drop()
    line.put(draft())
    assert numbers(line) == [3]


def test_the_age_is_that_of_what_has_waited_longest() -> None:
    times = iter((1.0, 4.0, 6.0, 7.0))
    line = Line("here", "there", clock=lambda: next(times))
    line.put(draft())
    line.put(draft())
    assert line.age_seconds == 5
    line.note_left(line.peek()[:1])
    assert line.age_seconds == 3
    line.drop()
    assert line.age_seconds == 0


@pytest.mark.parametrize("is_dropped", [False, True])
async def test_who_waits_for_room_goes_on_when_there_is_some(line: Line, is_dropped: bool) -> None:
    line.put(draft(bytes(ROOM_BYTES)))
    with trio.move_on_after(0.01) as waiting:
        await line.wait_room()
    assert waiting.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        if is_dropped:
            line.drop()
        else:
            line.note_left(line.peek())
    await line.wait_room()


async def test_a_line_is_forgotten_only_when_nothing_waits_and_goes_on_where_it_ended() -> None:
    lines = Lines("here")
    line = lines.open("there")
    assert lines.open("there") is line
    line.put(draft())
    lines.forget(line)
    assert lines.find("there") is line
    line.drop()
    line.is_busy = True
    lines.forget(line)
    assert lines.find("there") is line
    line.is_busy = False
    lines.forget(line)
    assert list(lines) == []
    again = lines.open("there")
    lines.forget(line)
    assert list(lines) == [again]
    again.put(draft())
    assert numbers(again) == [2]
