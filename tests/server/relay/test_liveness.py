"""Who is called gone, and when nobody is, by a clock that stands until it is set."""


import pytest

from server.relay.liveness import MOST_GONE, Liveness, Tempo, Verdict
from storage.relay_instances import Census
from tests.server.clocks import Clock

TEMPO = Tempo(renew_seconds=2, expiry_seconds=10)
IN_TIME = 8.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settled(clock: Clock) -> Liveness:
    """Has run for long beside `other`."""
    liveness = Liveness("me", TEMPO, clock)
    read(liveness, clock, None, "other")
    for _ in range(6):
        read(liveness, clock, IN_TIME, "other")
    return liveness


def read(liveness: Liveness, clock: Clock, left_seconds: float | None, *others: str) -> Verdict:
    """A reading, two seconds after the one before."""
    clock.now += 2
    return liveness.note(census(left_seconds, *others), clock.now)


def census(left_seconds: float | None, *others: str, left_of_others: float = IN_TIME) -> Census:
    return Census(left_seconds, {"me": TEMPO.expiry_seconds, **dict.fromkeys(others, left_of_others)})


def test_whoever_is_read_lives(settled: Liveness) -> None:
    assert settled.is_alive("other")
    assert settled.is_alive("me")
    assert settled.others == ("other",)


def test_whoever_is_not_read_any_more_is_gone_once(settled: Liveness, clock: Clock) -> None:
    assert read(settled, clock, IN_TIME).gone == ["other"]
    assert not settled.is_alive("other")
    assert settled.others == ()
    assert read(settled, clock, IN_TIME) == Verdict([], was_written_off=False)


def test_whoever_is_read_again_lives_again(settled: Liveness, clock: Clock) -> None:
    read(settled, clock, IN_TIME)
    read(settled, clock, IN_TIME, "other")
    assert settled.is_alive("other")
    assert read(settled, clock, IN_TIME).gone == ["other"]


def test_nobody_is_gone_before_all_had_the_time_to_renew(clock: Clock) -> None:
    liveness = Liveness("me", TEMPO, clock)
    assert liveness.is_alive("other")
    assert [read(liveness, clock, left).gone for left in (None, IN_TIME, IN_TIME, IN_TIME, IN_TIME)] == [[]] * 5
    assert read(liveness, clock, IN_TIME).gone == ["other"]


@pytest.mark.parametrize(("left_seconds", "was_written_off"), [(4.9, False), (0.0, True), (-3.0, True), (None, True)])
def test_who_was_held_up_calls_nobody_gone(
    settled: Liveness, clock: Clock, left_seconds: float | None, was_written_off: bool
) -> None:
    assert read(settled, clock, left_seconds) == Verdict([], was_written_off)
    for _ in range(4):
        assert read(settled, clock, IN_TIME) == Verdict([], was_written_off=False)
    assert settled.is_alive("other")
    assert read(settled, clock, IN_TIME).gone == ["other"]


def test_who_heard_nothing_for_too_long_was_written_off_whatever_redis_says(settled: Liveness, clock: Clock) -> None:
    """What it had asked long ago was done when the connection was back."""
    clock.now += 10
    assert read(settled, clock, IN_TIME) == Verdict([], was_written_off=True)
    assert read(settled, clock, IN_TIME) == Verdict([], was_written_off=False)


def test_who_has_just_begun_was_not_written_off(clock: Clock) -> None:
    assert not read(Liveness("me", TEMPO, clock), clock, None).was_written_off


def test_one_that_nothing_is_known_of_lives_until_it_was_looked_for(settled: Liveness, clock: Clock) -> None:
    asked_at = clock.now
    clock.now += 0.5
    assert not settled.knows("dead")
    assert settled.is_alive("dead")
    assert settled.knows("dead")
    assert settled.note(census(IN_TIME, "other"), asked_at).gone == []
    assert settled.is_alive("dead")
    assert read(settled, clock, IN_TIME, "other").gone == ["dead"]
    assert not settled.is_alive("dead")


def test_one_that_said_goodbye_is_gone_though_an_older_reading_has_it(settled: Liveness, clock: Clock) -> None:
    asked_at = clock.now
    clock.now += 0.5
    assert settled.note_farewell("other")
    settled.note(census(IN_TIME, "other"), asked_at)
    assert not settled.is_alive("other")
    assert read(settled, clock, IN_TIME).gone == []


def test_of_those_that_are_gone_the_newest_are_remembered(settled: Liveness) -> None:
    for name in range(MOST_GONE + 1):
        settled.note_farewell(str(name))
    assert not settled.knows("0")
    assert settled.knows("1")


def test_whoever_is_gone_has_given_its_last_sign_before(settled: Liveness, clock: Clock) -> None:
    clock.now += 2
    settled.note(census(IN_TIME, "other", left_of_others=0.5), clock.now)
    renewed_at = clock.now - 9.5
    assert settled.find_last_sign("other") == clock.now
    read(settled, clock, IN_TIME)
    assert settled.find_last_sign("other") == renewed_at


def test_one_that_was_gone_when_it_was_first_looked_for_has_expired_before(settled: Liveness, clock: Clock) -> None:
    assert settled.is_alive("dead")
    read(settled, clock, IN_TIME, "other")
    assert settled.find_last_sign("dead") == clock.now - TEMPO.expiry_seconds


def test_who_is_gone_says_goodbye_in_vain_until_it_is_back(settled: Liveness, clock: Clock) -> None:
    read(settled, clock, IN_TIME)
    assert not settled.note_farewell("other")
    read(settled, clock, IN_TIME, "other")
    assert settled.note_farewell("other")
    assert settled.find_last_sign("other") == clock.now
