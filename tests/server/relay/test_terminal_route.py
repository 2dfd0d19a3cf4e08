"""One terminal's way, in every order of events: each byte in order, unless a snapshot was ordered in between."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.relay import terminal_route, terminal_window
from server.relay.messages import Bind
from server.relay.terminal_route import GRACE_SECONDS, STUCK_SECONDS, Consumer, Order, Route, Want
from server.relay.terminal_window import HIGH_BYTES, LOW_BYTES, MOST_OF_ROUTE_BYTES, Stock, Window
from tests.server.relay.terminal_world import World, build_consumer, orders

OTHER = uuid4()
KIB = 1024

Sent = list[tuple[int, bytes]]


def build_route(*, must_reset: bool = False) -> Route:
    route = Route("t-1", Stock(Stock()), must_reset=must_reset)
    route.find_producer()
    return route


def bind(
    route: Route,
    consumer: Consumer | None = None,
    *,
    include: bool = False,
    force: bool = False,
    next_number: int = 1,
    confirmed: int = 0,
) -> Sent:
    """What is delivered to it from then on."""
    sent: Sent = []

    def deliver(number: int, frame: bytes) -> bool:
        sent.append((number, frame))
        return True

    consumer = consumer or build_consumer()
    is_same = route.consumer == consumer
    want = Want(include, force, next_number, confirmed)
    route.bind(consumer, want, route.window if is_same else Window(), deliver)
    return sent


def send_all(route: Route) -> None:
    while route.window.take_next() is not None:
        route.send()


def flags(found: list[Order]) -> list[tuple[bool, bool] | str]:
    """Of binds: includeSnapshot, forceSnapshot."""
    return [one if one == "unbind" else (one.include_snapshot, one.force_snapshot) for one in found]


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("force", [True, False])
def test_the_first_bind_is_passed_on_as_it_was_asked(include: bool, force: bool) -> None:
    route = build_route()
    bind(route, include=include, force=force)
    assert orders(route) == [Bind("t-1", include_snapshot=include, force_snapshot=force)]


def test_frames_are_numbered_one_after_the_other() -> None:
    route = build_route()
    sent = bind(route)
    for frame in (b"a", b"b"):
        route.take_in(frame)
        send_all(route)
    assert sent == [(1, b"a"), (2, b"b")]
    route.confirm(1)
    assert (route.first_number, route.next_number, route.unconfirmed_bytes) == (2, 3, 1)


def test_what_is_not_confirmed_comes_again_to_the_next_connection_and_under_new_numbers() -> None:
    route = build_route()
    bind(route)
    for frame in (b"a", b"b", b"c"):
        route.take_in(frame)
    send_all(route)
    route.confirm(1)
    route.lose_consumer(0)
    assert route.waiting_bytes == 2
    sent = bind(route)
    send_all(route)
    assert sent == [(1, b"b"), (2, b"c")]


def test_a_second_bind_of_the_same_connection_sends_nothing_again() -> None:
    route = build_route()
    consumer = build_consumer()
    first = bind(route, consumer)
    route.take_in(b"a")
    send_all(route)
    sent = bind(route, consumer, next_number=2)
    route.take_in(b"b")
    send_all(route)
    assert (first, sent) == ([(1, b"a")], [(2, b"b")])


def test_a_bind_of_a_bound_terminal_is_passed_on_too() -> None:
    """The manual refresh."""
    route = build_route()
    consumer = build_consumer()
    bind(route, consumer)
    assert flags(orders(route)) == [(False, False)]
    bind(route, consumer, include=True, force=True)
    assert flags(orders(route)) == [(True, True)]


def test_a_desktop_is_paused_above_and_goes_on_below() -> None:
    route = build_route()
    bind(route, include=True)
    orders(route)
    while route.waiting_bytes <= HIGH_BYTES:
        assert orders(route) == []
        route.take_in(bytes(64 * KIB))
    assert flags(orders(route)) == ["unbind"]
    route.take_in(b"what was under way")
    while route.waiting_bytes >= LOW_BYTES:
        assert orders(route) == []
        route.send()
    assert flags(orders(route)) == [(False, False)]


def test_a_desktop_is_told_to_unbind_once_for_more_would_make_it_forget() -> None:
    route = build_route()
    bind(route)
    orders(route)
    route.lose_consumer(0)
    assert flags(orders(route)) == ["unbind"]
    route.release(1)
    route.take_in(b"late")
    assert orders(route) == []


def test_a_desktop_that_has_come_back_is_bound_without_a_snapshot() -> None:
    route = build_route()
    bind(route)
    orders(route)
    route.lose_producer()
    assert orders(route) == []
    route.find_producer()
    assert flags(orders(route)) == [(False, False)]


def test_a_snapshot_that_was_ordered_and_did_not_come_is_ordered_again() -> None:
    route = build_route()
    bind(route, include=True, force=True)
    orders(route)
    route.lose_producer()
    route.find_producer()
    assert flags(orders(route)) == [(True, True)]
    route.take_in(b"the snapshot")
    route.lose_producer()
    route.find_producer()
    assert flags(orders(route)) == [(False, False)]


def test_a_desktop_that_comes_back_while_nobody_has_bound_is_told_nothing() -> None:
    route = build_route()
    bind(route)
    orders(route)
    route.lose_consumer(0)
    route.lose_producer()
    route.find_producer()
    assert orders(route) == []


def test_a_desktop_that_ignores_the_pause_loses_what_waits_and_begins_anew_when_there_is_room() -> None:
    route = build_route()
    bind(route)
    send = bytes(KIB * KIB)
    route.take_in(b"taken")
    send_all(route)
    orders(route)
    for _ in range(MOST_OF_ROUTE_BYTES // len(send) + 1):
        route.take_in(send)
        orders(route)
    assert (route.waiting_bytes, route.must_reset, orders(route)) == (0, True, [])
    route.take_in(send)
    assert route.waiting_bytes == 0
    route.confirm(1)
    assert flags(orders(route)) == [(False, True)]


def test_another_device_begins_with_a_snapshot_and_gets_nothing_of_the_first_ones() -> None:
    route = build_route()
    bind(route)
    orders(route)
    route.take_in(b"for the first")
    send_all(route)
    sent = bind(route, build_consumer(OTHER))
    send_all(route)
    assert (sent, flags(orders(route))) == ([], [(False, True)])


def test_a_forced_snapshot_stands_instead_of_what_waits() -> None:
    route = build_route()
    bind(route)
    orders(route)
    route.lose_consumer(0)
    route.take_in(b"waits")
    orders(route)
    sent = bind(route, include=True, force=True)
    send_all(route)
    assert (sent, flags(orders(route))) == ([], [(True, True)])


def test_a_consumer_that_was_in_doubt_goes_on_with_what_it_lacks() -> None:
    route = build_route()
    sent = bind(route)
    orders(route)
    for frame in (b"a", b"b", b"c"):
        route.take_in(frame)
    send_all(route)
    route.doubt(0)
    assert flags(orders(route)) == ["unbind"]
    route.take_in(b"d")
    del sent[:]
    route.go_on(next_number=3, confirmed=1)
    send_all(route)
    assert (sent, route.first_number) == ([(3, b"c"), (4, b"d")], 2)
    assert flags(orders(route)) == [(False, False)]


@pytest.mark.parametrize("next_number", [1, 9])
def test_a_consumer_whose_place_is_not_known_any_more_begins_anew(next_number: int) -> None:
    route = build_route()
    sent = bind(route)
    for frame in (b"a", b"b", b"c"):
        route.take_in(frame)
    send_all(route)
    route.confirm(2)
    orders(route)
    route.doubt(0)
    del sent[:]
    route.go_on(next_number, 0)
    send_all(route)
    assert (sent, route.next_number, flags(orders(route))) == ([], next_number, ["unbind", (False, True)])


def test_a_terminal_that_nothing_is_known_of_takes_the_place_of_its_consumer_without_a_snapshot() -> None:
    route = build_route()
    consumer = build_consumer()
    route.expect(consumer, 0)
    route.go_on(57, 56)
    assert (route.next_number, flags(orders(route))) == (57, [(False, False)])


def test_a_frame_that_cannot_be_sent_waits_on() -> None:
    route = build_route()
    bind(route)
    route.deliver = terminal_route.deliver_nowhere
    route.take_in(b"a")
    assert route.window.take_next() is route
    assert not route.send()
    assert (route.waiting_bytes, route.next_number, route.window.in_flight_bytes) == (1, 1, 0)


def test_a_grace_is_over_when_nobody_has_been_there_for_long_enough() -> None:
    route = build_route()
    bind(route)
    assert not route.is_over(1e9)
    route.doubt(100)
    route.lose_consumer(150)
    assert not route.is_over(100 + GRACE_SECONDS - 1)
    assert route.is_over(100 + GRACE_SECONDS)


def test_what_is_not_confirmed_for_long_is_asked_for_now_and_then() -> None:
    route = build_route()
    bind(route)
    route.take_in(b"a")
    send_all(route)
    assert [route.is_stuck(now) for now in (0, STUCK_SECONDS, STUCK_SECONDS + 1)] == [False, True, False]
    route.confirm(1)
    assert not route.is_stuck(3 * STUCK_SECONDS)


def test_it_is_whole_when_all_has_arrived() -> None:
    route = build_route()
    steps = (
        lambda: bind(route),
        lambda: route.take_in(b"a"),
        lambda: send_all(route),
        lambda: route.confirm(1),
        lambda: (bind(route, force=True), orders(route)),
    )
    found = []
    for step in steps:
        step()
        found.append(route.is_whole)
    assert found == [True, False, False, True, False]


def test_bytes_that_wait_are_counted_as_long_as_they_do() -> None:
    everything = Stock()
    route = Route("t-1", Stock(everything))
    bind(route)
    route.take_in(b"12345")
    assert everything.size_bytes == 5
    send_all(route)
    assert (everything.size_bytes, route.window.in_flight_bytes) == (0, 5)
    route.lose_consumer(0)
    assert (everything.size_bytes, route.window.in_flight_bytes) == (5, 0)
    route.clear()
    assert everything.size_bytes == 0


STEPS = (
    *(World.say,) * 3,
    *(World.carry_frames,) * 2,
    *(World.carry_orders,) * 2,
    World.take,
    World.confirm,
    World.bind,
    World.cut_phone,
    World.connect,
    World.cut_desktop,
    World.move,
)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(STEPS), min_size=20, max_size=100), st.sampled_from([64, 10**9]))
def test_whatever_happens_every_byte_comes_in_order_unless_a_snapshot_was_ordered(
    steps: list[Callable[[World], None]], most_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal_window, "WINDOW_BYTES", 24)
        patch.setattr(terminal_window, "HIGH_BYTES", 40)
        patch.setattr(terminal_window, "LOW_BYTES", 16)
        patch.setattr(terminal_route, "MOST_OF_ROUTE_BYTES", most_bytes)
        world = World()
        world.connect()
        world.bind()
        for step in steps:
            step(world)
        world.finish()
        assert world.expected == world.said
        assert world.route.window.in_flight_bytes == 0
