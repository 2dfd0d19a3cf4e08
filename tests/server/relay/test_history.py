"""What was missed, read from what is kept."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import trio
import trio.testing

from server.relay.event_frames import NewEvent, build_body
from server.relay.event_rules import find_track
from server.relay.history import UNKNOWN, History, give_page
from server.relay.lanes import Lane, Seat
from storage.errors import RedisUnavailable
from storage.event_stream import TRACKS, Entry, Page
from storage.redis import open_redis
from tests.server.relay.event_house import (
    ANN,
    AT,
    Device,
    ShakyStream,
    build_device,
    build_entry,
    read_told,
)

DESKTOP = UUID(int=1)


@pytest.fixture
async def stream(redis_url: str) -> AsyncIterator[ShakyStream]:
    async with open_redis(redis_url) as redis:
        yield ShakyStream(redis)


@pytest.fixture
def history(stream: ShakyStream) -> History:
    return History(stream)


async def append(stream: ShakyStream, count: int = 1, *, size: int = 2) -> list[int]:
    event = NewEvent("noted", b'"' + b"x" * size + b'"', "desktop", DESKTOP)
    bodies = [build_body(event, f"t.{number}", AT) for number in range(count)]
    return [(await stream.append(ANN, find_track(event), body, "t")).id for body in bodies]


def sit(lane: Lane, device: Device | None = None, **rest: object) -> Seat:
    device = device or build_device()
    seat = Seat(device.member.outbox, lambda about, primary_id: about.event_type == "noted", TRACKS)
    for name, value in rest.items():
        setattr(seat, name, value)
    lane.seats[seat] = None
    return seat


async def test_a_lane_begins_at_the_last_event(stream: ShakyStream, history: History) -> None:
    ids = await append(stream, 3)
    lane = Lane()
    await history.heal(ANN, lane)
    assert lane.tail == ids[-1]


async def test_a_lane_is_brought_up_to_the_last_event_however_many_there_are(
    stream: ShakyStream, history: History
) -> None:
    lane = Lane()
    await history.heal(ANN, lane)
    seat = sit(lane, cursor=0, is_live=True)
    ids = await append(stream, 150)
    await history.heal(ANN, lane)
    assert read_told(seat) == ids
    assert lane.tail == ids[-1]


async def test_who_has_come_gets_what_is_after_their_cursor_and_is_live(stream: ShakyStream, history: History) -> None:
    ids = await append(stream, 150)
    lane = Lane()
    await history.heal(ANN, lane)
    seat = sit(lane, cursor=ids[9])
    await history.replay(ANN, lane, seat)
    assert read_told(seat) == ids[10:]
    assert seat.is_live


async def test_a_replay_that_was_interrupted_goes_on_where_it_had_come_to(
    stream: ShakyStream, history: History
) -> None:
    device = build_device()
    ids = await append(stream, 60, size=200_000)
    lane = Lane()
    await history.heal(ANN, lane)
    seat = sit(lane, device, cursor=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.replay, ANN, lane, seat)
        with trio.fail_after(5):
            while device.member.outbox.has_room:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert not seat.is_live
    assert 0 < len(read_told(seat)) < len(ids)
    await history.replay(ANN, lane, seat, is_patient=False)
    assert read_told(seat) == ids


async def test_whose_socket_ends_is_replayed_nothing_more(stream: ShakyStream, history: History) -> None:
    device = build_device()
    await append(stream, 60, size=200_000)
    lane = Lane()
    await history.heal(ANN, lane)
    seat = sit(lane, device, cursor=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.replay, ANN, lane, seat)
        with trio.fail_after(5):
            while device.member.outbox.has_room:
                await trio.sleep(0.005)
        device.member.outbox.close()
    assert not seat.is_live


async def test_who_could_not_be_replayed_is_as_soon_as_it_is_possible(stream: ShakyStream, history: History) -> None:
    ids = await append(stream, 3)
    lane = Lane()
    seat, other = sit(lane, cursor=ids[0], is_stranded=True), sit(lane, cursor=0, is_stranded=True)
    stream.be_away(is_away=True)
    with pytest.raises(RedisUnavailable):
        await history.heal(ANN, lane)
    assert seat.is_stranded
    stream.be_away(is_away=False)
    await history.heal(ANN, lane)
    assert (read_told(seat), read_told(other)) == (ids[1:], ids)
    assert lane.list_stranded() == []


async def test_two_who_heal_at_once_repeat_nothing(stream: ShakyStream, history: History) -> None:
    ids = await append(stream, 150)
    lane = Lane()
    seat = sit(lane, cursor=0, is_stranded=True)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(history.heal, ANN, lane)
    assert read_told(seat) == ids


async def test_a_device_of_which_nothing_is_known_gets_everything_and_the_gap(
    stream: ShakyStream, history: History
) -> None:
    ids = await append(stream, 3)
    lane = Lane()
    await history.heal(ANN, lane)
    seat = sit(lane, device_id=UUID(int=2))
    await history.replay(ANN, lane, seat)
    assert read_told(seat) == ["event-replay-gap", *ids]
    assert ids[0] > UNKNOWN


async def test_a_lane_that_is_ahead_of_a_redis_that_lost_events_goes_back(
    stream: ShakyStream, history: History
) -> None:
    ids = await append(stream, 3)
    lane = Lane()
    await history.heal(ANN, lane)
    listener = sit(lane, cursor=ids[-1], is_live=True)
    await stream.redis.flushall()
    seat = sit(lane, cursor=ids[-1] - 1)
    with trio.fail_after(5):
        await history.replay(ANN, lane, seat)
    assert read_told(listener) == ["event-replay-gap"]
    assert read_told(seat) == ["event-replay-gap"]
    assert (lane.tail, lane.highest) == (0, ids[-1])


async def test_the_names_of_events_are_found_page_by_page(stream: ShakyStream, history: History) -> None:
    ids = await append(stream, 150)
    assert await history.find_tokens(ANN, ids[19]) == {f"t.{number}" for number in range(20, 150)}
    assert await history.find_tokens(UUID(int=5), 0) == set()


def test_a_page_is_given_to_whom_it_is_for() -> None:
    lane = Lane()
    lane.begin(2)
    seat = sit(lane, cursor=0)
    own = Entry(2, build_body(NewEvent("other", b"{}", "mobile"), "t", AT))
    page = Page(2, 0, dict.fromkeys(TRACKS, 0), 1, [build_entry(1), own], is_all=True)
    assert give_page(lane, seat, page)
    assert (read_told(seat), seat.cursor) == ([1], 2)


def test_a_replay_is_not_over_while_the_lane_is_ahead_of_it() -> None:
    lane = Lane()
    lane.begin(3)
    seat = sit(lane, cursor=0)
    page = Page(1, 0, dict.fromkeys(TRACKS, 0), 1, [build_entry(1)], is_all=True)
    assert not give_page(lane, seat, page)


async def test_a_large_event_that_is_gone_is_one_gap_however_much_is_read_before_it(
    stream: ShakyStream, history: History
) -> None:
    before = await append(stream, 150)
    await append(stream, size=300_000)
    (last,) = await append(stream)
    lane = Lane()
    await history.heal(ANN, lane)
    late = sit(lane, cursor=before[0])
    await history.replay(ANN, lane, late)
    assert read_told(late) == ["event-replay-gap", *before[1:], last]


async def test_a_lane_that_has_missed_a_large_event_tells_one_gap(stream: ShakyStream, history: History) -> None:
    lane = Lane()
    await history.heal(ANN, lane)
    seat = sit(lane, cursor=0, is_live=True)
    before = await append(stream, 150)
    await append(stream, size=300_000)
    await history.heal(ANN, lane)
    assert read_told(seat) == ["event-replay-gap", *before]
