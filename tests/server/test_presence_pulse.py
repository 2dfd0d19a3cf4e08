"""When a link is refreshed and when its device is silent, by a clock that stands until it is set."""

from inspect import signature

import pytest

from server.presence_pulse import Pulse, Rhythm
from storage.presence import PresenceTable
from tests.server.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(Rhythm(refresh_seconds=30, silence_seconds=75, poll_seconds=5, retry_seconds=2), clock)


def test_life_is_told_with_the_next_refresh(clock: Clock, pulse: Pulse) -> None:
    clock.now += 10
    pulse.note_life()
    assert pulse.next_step() == "wait"
    assert 14 <= pulse.seconds_to_wait() <= 20
    clock.now += 20
    assert pulse.next_step() == "refresh"
    pulse.note_refresh(clock.now)
    assert pulse.next_step() == "wait"
    assert 24 <= pulse.seconds_to_wait() <= 30


def test_a_device_that_shows_no_life_is_not_refreshed(clock: Clock, pulse: Pulse) -> None:
    clock.now += 31
    assert pulse.next_step() == "wait"
    assert pulse.seconds_to_wait() == 5
    clock.now += 20
    pulse.note_life()
    assert pulse.next_step() == "refresh"


def test_life_that_was_shown_while_the_refresh_was_under_way_is_told_with_the_next(clock: Clock, pulse: Pulse) -> None:
    clock.now += 30
    pulse.note_life()
    asked_at = clock.now
    clock.now += 1
    pulse.note_life()
    pulse.note_refresh(asked_at)
    clock.now += 30
    assert pulse.next_step() == "refresh"


def test_a_device_is_silent_at_its_deadline_and_not_before(clock: Clock, pulse: Pulse) -> None:
    clock.now += 74
    assert pulse.next_step() == "wait"
    assert pulse.seconds_to_wait() == 1
    clock.now += 1
    assert pulse.next_step() == "silent"


def test_a_refresh_that_failed_is_tried_again_soon_and_without_more_life(clock: Clock, pulse: Pulse) -> None:
    clock.now += 1
    pulse.note_failure()
    assert pulse.next_step() == "wait"
    assert 2 <= pulse.seconds_to_wait() <= 4
    clock.now += 4
    assert pulse.next_step() == "refresh"
    pulse.note_refresh(clock.now)
    clock.now += 40
    assert pulse.next_step() == "wait"


def test_a_device_is_silent_also_where_refreshes_fail(clock: Clock, pulse: Pulse) -> None:
    clock.now += 74.5
    pulse.note_failure()
    assert pulse.seconds_to_wait() == 0.5
    clock.now += 1
    assert pulse.next_step() == "silent"


def test_links_that_began_together_are_not_refreshed_together(clock: Clock) -> None:
    waits = {Pulse(Rhythm(), clock).seconds_to_wait() for _ in range(20)}
    assert len(waits) > 1
    assert all(24 <= wait <= 30 for wait in waits)


def test_a_link_outlasts_the_longest_pause_of_a_device_that_lives() -> None:
    rhythm, ttl_seconds = Rhythm(), signature(PresenceTable).parameters["ttl_seconds"].default
    assert rhythm.silence_seconds + rhythm.poll_seconds < ttl_seconds
    assert rhythm.refresh_seconds + rhythm.poll_seconds < rhythm.silence_seconds


def test_a_link_that_may_be_lost_is_refreshed_soon_whether_or_not_life_is_shown(clock: Clock, pulse: Pulse) -> None:
    pulse.note_doubt()
    assert pulse.next_step() == "wait"
    assert 2.4 <= pulse.seconds_to_wait() <= 3
    pulse.note_doubt()
    clock.now += 3
    assert pulse.next_step() == "refresh"


def test_doubt_does_not_put_off_what_is_due(clock: Clock, pulse: Pulse) -> None:
    clock.now += 29
    pulse.note_life()
    clock.now += 1
    pulse.note_doubt()
    assert pulse.next_step() == "refresh"
