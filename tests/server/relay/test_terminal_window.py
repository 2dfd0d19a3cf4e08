"""How much of terminals may be on its way, whose turn it is, and when memory is tight."""

from server.relay.terminal_window import (
    HIGH_BYTES,
    LOW_BYTES,
    MOST_BYTES,
    MOST_OF_PRODUCER_BYTES,
    TIGHT_BYTES,
    TIGHT_FROM_BYTES,
    WINDOW_BYTES,
    Stock,
    Window,
)


def test_those_that_wait_take_turns() -> None:
    window: Window[str] = Window()
    for name in ("burst", "shell", "burst"):
        window.add(name)
    turns = []
    while (route := window.take_next()) is not None:
        turns.append(route)
        if turns.count("burst") < 3 and route == "burst":
            window.add(route)
    assert turns == ["burst", "shell", "burst", "burst"]


def test_nobody_has_a_turn_while_the_window_is_full() -> None:
    window: Window[str] = Window()
    window.add("shell")
    window.in_flight_bytes = WINDOW_BYTES
    assert window.take_next() is None
    window.in_flight_bytes -= 1
    assert window.take_next() == "shell"


def test_who_has_nothing_more_to_send_has_no_turn() -> None:
    window: Window[str] = Window()
    window.add("shell")
    window.remove("shell")
    window.remove("unknown")
    assert window.take_next() is None


def test_a_desktop_may_let_so_much_wait_and_all_of_them_together() -> None:
    everything = Stock()
    one, other = Stock(everything), Stock(everything)
    one.add(MOST_OF_PRODUCER_BYTES)
    assert not one.is_full
    one.add(1)
    assert (one.is_full, other.is_full) == (True, False)
    everything.add(MOST_BYTES)
    assert other.is_full


def test_desktops_are_paused_earlier_where_memory_is_tight() -> None:
    everything = Stock()
    one, other = Stock(everything), Stock(everything)
    assert (other.high_bytes, other.low_bytes) == (HIGH_BYTES, LOW_BYTES)
    one.add(TIGHT_FROM_BYTES + 1)
    assert (other.high_bytes, other.low_bytes) == (TIGHT_BYTES, TIGHT_BYTES)
    one.add(-1)
    assert other.high_bytes == HIGH_BYTES
