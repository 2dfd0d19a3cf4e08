"""A lane passes events on in the order of their numbers, whatever the order in which it hears of them."""

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from server.relay.event_frames import About, read_body
from server.relay.lanes import MOST_HELD_BYTES, MOST_PENDING, MOST_PENDING_BYTES, Happening, Lane, Seat
from server.relay.outbox import Outbox
from storage.event_stream import TRACKS, Page
from tests.server.relay.event_house import AT, build_entry, read_told


def build_happening(number: int) -> Happening:
    return Happening(number, *read_body(build_entry(number).body))


def build_page(ids: Sequence[int], *, gone: int = 0, last: int = 0, is_all: bool = True) -> Page:
    tracks = dict.fromkeys(TRACKS, gone)
    last = last or (ids[-1] if ids else 0)
    return Page(last, 0, tracks, ids[0] if ids else 0, [build_entry(number) for number in ids], is_all=is_all)


def sit(lane: Lane, cursor: int = 0, *, is_live: bool = True) -> Seat:
    seat = Seat(Outbox(lambda: None), lambda about, primary_id: True, TRACKS, cursor=cursor, is_live=is_live)
    lane.seats[seat] = None
    return seat


@pytest.fixture
def lane() -> Lane:
    lane = Lane()
    lane.begin(0)
    return lane


@given(order=st.permutations(range(1, 9)), repeated=st.lists(st.integers(1, 8)))
def test_whatever_comes_first_they_are_told_in_order_and_once(order: Sequence[int], repeated: Sequence[int]) -> None:
    lane = Lane()
    lane.begin(0)
    seat = sit(lane)
    for number in [*order, *repeated]:
        lane.arrive(number - 1, build_happening(number))
    assert read_told(seat) == list(range(1, 9))
    assert lane.tail == 8


@given(
    order=st.permutations(range(1, 9)),
    history=st.integers(0, 8),
    at=st.integers(0, 8),
)
def test_history_fills_what_is_missing_and_repeats_nothing(order: Sequence[int], history: int, at: int) -> None:
    lane = Lane()
    lane.begin(0)
    seat = sit(lane)
    for number in order[:at]:
        lane.arrive(number - 1, build_happening(number))
    after = lane.tail or 0
    lane.take(after, build_page(range(after + 1, max(after, history) + 1), last=max(after, history)), AT)
    for number in order[at:]:
        lane.arrive(number - 1, build_happening(number))
    assert read_told(seat) == list(range(1, 9))


def test_what_comes_before_the_tail_is_known_waits_for_it() -> None:
    lane = Lane()
    seat = sit(lane)
    assert not lane.arrive(4, build_happening(5))
    assert not lane.arrive(5, build_happening(6))
    lane.begin(5)
    assert read_told(seat) == [6]


def test_who_has_come_later_is_not_told_of_what_they_know(lane: Lane) -> None:
    seat = sit(lane, cursor=2)
    for number in range(1, 5):
        lane.arrive(number - 1, build_happening(number))
    assert read_told(seat) == [3, 4]


def test_who_is_not_live_is_told_nothing_and_then_what_had_no_number(lane: Lane) -> None:
    seat = sit(lane, is_live=False)
    lane.arrive(0, build_happening(1))
    lane.tell(About("server", None, "hint", False, "t"), build_happening(1).head)
    assert read_told(seat) == []
    lane.go_live(seat)
    assert read_told(seat) == ["noted"]


def test_what_is_held_is_bounded(lane: Lane) -> None:
    seat = sit(lane, is_live=False)
    for _ in range(9):
        lane.tell(About("server", None, "hint", False, "t"), b"x" * (MOST_HELD_BYTES // 4))
    assert (len(seat.held), len(seat.outbox._frames)) == (4, 5)


def test_what_waits_for_its_predecessor_is_bounded(lane: Lane) -> None:
    seat = sit(lane)
    for number in range(2, MOST_PENDING + 50):
        lane.arrive(number - 1, build_happening(number))
    lane.arrive(0, build_happening(1))
    assert lane.tail == MOST_PENDING + 1
    lane.take(MOST_PENDING + 1, build_page(range(MOST_PENDING + 2, MOST_PENDING + 50)), AT)
    assert read_told(seat) == list(range(1, MOST_PENDING + 50))


def test_what_waits_for_its_predecessor_is_bounded_in_bytes_and_what_is_more_is_read_again(lane: Lane) -> None:
    seat = sit(lane)
    one = build_happening(0)
    head = one.head + b',"x":"' + b"x" * (MOST_PENDING_BYTES // 3) + b'"'
    for number in range(2, 8):
        assert not lane.arrive(number - 1, Happening(number, one.about, head))
    assert lane._pending_bytes <= MOST_PENDING_BYTES
    lane.arrive(0, build_happening(1))
    assert (lane.tail, lane._pending_bytes) == (3, 0)
    lane.take(3, build_page(range(4, 8)), AT)
    assert read_told(seat) == [1, 2, 3, 4, 5, 6, 7]


def test_who_was_told_early_is_not_told_again(lane: Lane) -> None:
    seat = sit(lane)
    one = build_happening(1)
    lane.tell_early(one.about, one.head)
    lane.arrive(0, one)
    lane.arrive(1, build_happening(2))
    assert read_told(seat) == ["noted", 2]


def test_a_gap_in_the_history_is_told_before_what_is_left_of_it(lane: Lane) -> None:
    lane.arrive(0, build_happening(1))
    seat = sit(lane, cursor=1)
    lane.take(1, build_page(range(5, 8), gone=4), AT)
    assert read_told(seat) == ["event-replay-gap", 5, 6, 7]


def test_a_history_that_is_lost_begins_anew(lane: Lane) -> None:
    lane.begin(100)
    seat = sit(lane)
    lane.take(100, build_page([]), AT)
    assert read_told(seat) == ["event-replay-gap"]
    assert (lane.tail, lane.highest) == (0, 100)
    lane.arrive(0, build_happening(101))
    assert read_told(seat) == ["event-replay-gap", 101]


def test_history_that_was_read_before_something_came_does_not_lead_back(lane: Lane) -> None:
    lane.begin(5)
    lane.arrive(5, build_happening(6))
    lane.take(5, build_page([]), AT)
    assert lane.tail == 6


def test_what_was_replaced_or_let_go_at_the_end_of_the_history_is_not_waited_for(lane: Lane) -> None:
    lane.take(0, build_page([1, 2], last=9), AT)
    assert lane.tail == 9
    seat = sit(lane)
    lane.arrive(9, build_happening(10))
    assert read_told(seat) == [10]


def test_all_who_are_told_share_one_frame(lane: Lane) -> None:
    seats = [sit(lane) for _ in range(3)]
    lane.arrive(0, build_happening(1))
    assert len({id(seat.outbox._frames[0]) for seat in seats}) == 1


def test_an_event_is_for_whom_the_seat_says(lane: Lane) -> None:
    heard: list[tuple[About, UUID | None]] = []

    def takes(about: About, primary_id: UUID | None) -> bool:
        heard.append((about, primary_id))
        return False

    outbox = Outbox(lambda: None)
    lane.seats[Seat(outbox, takes, TRACKS, cursor=0, is_live=True)] = None
    lane.primary_id = UUID(int=7)
    one = build_happening(1)
    lane.arrive(0, one)
    assert heard == [(one.about, UUID(int=7))]
    assert outbox.waiting_bytes == 0


async def test_one_may_wait_for_an_event(lane: Lane) -> None:
    done: list[int] = []

    async def wait(number: int) -> None:
        await lane.wait_for(number)
        done.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 2)
        await trio.testing.wait_all_tasks_blocked()
        lane.arrive(1, build_happening(2))
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        lane.arrive(0, build_happening(1))
    assert done == [2]
