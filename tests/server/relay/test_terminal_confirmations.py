"""Which pings follow a phone's frames, and what their pongs confirm."""

import pytest

from server.relay.terminal_confirmations import PING_EVERY_BYTES, Confirmations, Confirmed


def test_a_frame_with_no_ping_on_its_way_is_followed_by_one() -> None:
    confirmations = Confirmations()
    assert confirmations.note_put(1, 1, 10) == b"t1"
    assert confirmations.note_put(1, 2, 10) is None
    assert confirmations.note_pong(b"t1") == Confirmed({1: 1}, b"t2")
    assert confirmations.note_pong(b"t2") == Confirmed({1: 2}, None)
    assert confirmations.note_put(1, 3, 10) == b"t3"


def test_a_burst_is_pinged_every_so_many_bytes_though_no_pong_comes() -> None:
    confirmations = Confirmations()
    confirmations.note_put(1, 1, 1)
    quarter = PING_EVERY_BYTES // 4
    pings = [confirmations.note_put(1, number, quarter) for number in range(2, 14)]
    assert [ping for ping in pings if ping] == [b"t2", b"t3", b"t4"]
    assert pings[3] == b"t2"


def test_a_pong_confirms_what_all_pings_before_it_have_covered() -> None:
    """RFC 6455, 5.5.3: a device may answer the newest ping alone."""
    confirmations = Confirmations()
    confirmations.note_put(1, 1, PING_EVERY_BYTES)
    confirmations.note_put(2, 1, PING_EVERY_BYTES)
    confirmations.note_put(1, 2, PING_EVERY_BYTES)
    assert confirmations.note_pong(b"t3") == Confirmed({1: 2, 2: 1}, None)
    assert confirmations.note_pong(b"t2") is None


def test_what_follows_a_pong_waits_for_the_ping_that_is_still_on_its_way() -> None:
    confirmations = Confirmations()
    confirmations.note_put(1, 1, PING_EVERY_BYTES)
    confirmations.note_put(1, 2, PING_EVERY_BYTES)
    confirmations.note_put(1, 3, 1)
    assert confirmations.note_pong(b"t1") == Confirmed({1: 1}, None)
    assert confirmations.note_pong(b"t2") == Confirmed({1: 2}, b"t3")


@pytest.mark.parametrize("payload", [b"", b"t", b"t0", b"t2", b"T1", b"heartbeat", b"t-1", b"t 1", b"t1" + bytes(99)])
def test_other_pongs_confirm_nothing(payload: bytes) -> None:
    confirmations = Confirmations()
    confirmations.note_put(1, 1, 1)
    assert confirmations.note_pong(payload) is None
    assert confirmations.note_pong(b"t1") == Confirmed({1: 1}, None)
