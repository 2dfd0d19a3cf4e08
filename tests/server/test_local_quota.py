"""The quota of one process: a window that slides, within a bound of memory."""

import pytest
import trio
from trio.testing import MockClock

import server.local_quota
from server.local_quota import LocalQuota
from storage.rate_limits import Draw

WINDOW_SECONDS = 60.0


def build_draw(key: str = "ann", limit: int = 3, cost: int = 1) -> Draw:
    return Draw(key, limit, WINDOW_SECONDS, cost)


def count_granted(quota: LocalQuota, *draws: Draw, times: int = 10) -> int:
    return sum(quota.take(draws).is_granted for _ in range(times))


async def test_the_limit_is_exact(autojump_clock: MockClock) -> None:
    assert count_granted(LocalQuota(), build_draw(limit=60), times=64) == 60


async def test_no_window_has_more_than_the_limit_wherever_it_begins(autojump_clock: MockClock) -> None:
    quota, granted_at = LocalQuota(), list[float]()
    for _ in range(300):
        await trio.sleep(1.7)
        if quota.take([build_draw(limit=5)]).is_granted:
            granted_at.append(trio.current_time())
    spans = [later - earlier for earlier, later in zip(granted_at, granted_at[5:], strict=False)]
    assert WINDOW_SECONDS <= min(spans) <= max(spans) <= WINDOW_SECONDS * 13 / 12 + 1.7


async def test_what_is_refused_is_granted_after_its_wait_and_not_before(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    assert count_granted(quota, build_draw(limit=1)) == 1
    wait_seconds = quota.take([build_draw(limit=1)]).retry_after_seconds
    await trio.sleep(wait_seconds - 0.001)
    assert not quota.take([build_draw(limit=1)]).is_granted
    await trio.sleep(0.002)
    assert quota.take([build_draw(limit=1)]).is_granted


async def test_the_verdict_counts_down(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    verdicts = [quota.take([build_draw(limit=2)]) for _ in range(3)]
    assert [(one.is_granted, one.limit, one.remaining) for one in verdicts] == [
        (True, 2, 1),
        (True, 2, 0),
        (False, 2, 0),
    ]
    assert all(WINDOW_SECONDS < one.reset_seconds <= WINDOW_SECONDS * 13 / 12 for one in verdicts)
    assert [one.retry_after_seconds for one in verdicts] == [0, 0, verdicts[2].reset_seconds]
    assert {one.drawn_at for one in verdicts} == {0}


async def test_all_budgets_are_drawn_on_or_none(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    user, key = build_draw("user", limit=9), build_draw("key", limit=2)
    assert count_granted(quota, user, key) == 2
    assert quota.take([user, key]).budget == 1
    assert quota.take([user]).remaining == 6


async def test_a_refusal_tells_of_the_budget_that_has_the_longest_wait(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    old, young = build_draw("old", limit=1), build_draw("young", limit=1)
    quota.take([old])
    await trio.sleep(WINDOW_SECONDS / 2)
    quota.take([young])
    refused = quota.take([old, young])
    assert (refused.is_granted, refused.budget) == (False, 1)
    assert refused.retry_after_seconds > WINDOW_SECONDS


async def test_what_was_given_back_may_be_drawn_again(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    assert count_granted(quota, build_draw()) == 3
    quota.give_back(build_draw())
    assert count_granted(quota, build_draw()) == 1


async def test_more_than_was_drawn_is_not_given_back(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    quota.give_back(build_draw())
    quota.take([build_draw()])
    for _ in range(3):
        quota.give_back(build_draw())
    assert count_granted(quota, build_draw()) == 3


async def test_what_costs_more_than_the_limit_takes_all_of_it(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    assert count_granted(quota, build_draw(cost=50)) == 1
    assert quota.take([build_draw()]).remaining == 0


async def test_whoever_has_not_called_for_the_longest_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(server.local_quota, "MAX_KEYS", 3)
    quota = LocalQuota()
    for key in ("ann", "bob", "cem", "ann", "dan", "eve"):
        quota.take([build_draw(key)])
    assert len(quota) == 3
    assert [quota.take([build_draw(key)]).remaining for key in ("ann", "bob")] == [0, 2]


async def test_memory_does_not_grow_with_the_limit(autojump_clock: MockClock) -> None:
    quota = LocalQuota()
    for _ in range(1000):
        quota.take([build_draw(limit=1_000_000)])
        await trio.sleep(1)
    [window] = quota._windows.values()
    assert len(window._parts) <= 13
