"""How fast a device is read."""

import pytest

from server.relay.text_budget import ABUSE_SECONDS, BURST_TEXTS, TEXTS_PER_SECOND, TextBudget


def test_a_burst_is_read_as_it_comes() -> None:
    budget = TextBudget(0)
    assert [budget.draw(0) for _ in range(int(BURST_TEXTS))] == [0] * int(BURST_TEXTS)
    assert budget.draw(0) == pytest.approx(1 / TEXTS_PER_SECOND)


def test_who_is_too_fast_is_read_at_the_rate() -> None:
    budget, now = TextBudget(0), 0.0
    count = int(BURST_TEXTS + 10 * TEXTS_PER_SECOND)
    for _ in range(count):
        now += budget.draw(now)
    assert now == pytest.approx(10)
    assert not budget.is_abused(now)


def test_a_pause_gives_back_a_burst_and_no_more() -> None:
    budget = TextBudget(0)
    assert budget.draw(1000) == 0
    assert sum(budget.draw(1000) == 0 for _ in range(int(2 * BURST_TEXTS))) == BURST_TEXTS - 1


def test_who_is_never_slower_for_minutes_is_broken() -> None:
    budget, now = TextBudget(0), 0.0
    while not budget.is_abused(now):
        now += budget.draw(now)
    assert now == pytest.approx(ABUSE_SECONDS + BURST_TEXTS / TEXTS_PER_SECOND, abs=3)


def test_a_pause_makes_it_good() -> None:
    budget, now = TextBudget(0), 0.0
    while now < ABUSE_SECONDS - 10:
        now += budget.draw(now)
    now += BURST_TEXTS / TEXTS_PER_SECOND
    budget.draw(now)
    assert not budget.is_abused(now + ABUSE_SECONDS)


def test_a_budget_may_be_another_one() -> None:
    budget = TextBudget(0.0, burst=2, per_second=0.5)
    assert [budget.draw(0.0) for _ in range(3)] == [0, 0, 2]
