"""The bounded quota of one process, for reading while Redis is away: it begins afresh, and shares nothing."""

import math
from collections import OrderedDict, deque
from collections.abc import Sequence

import trio

from storage.rate_limits import TWELFTHS, Draw, Verdict

MAX_KEYS = 10_000
"""Whoever has not called for the longest is forgotten first: memory is bounded, also under a flood of addresses. A key
takes a kilobyte and a half at most, whatever its limit.
"""


class LocalQuota:
    """Each process grants the whole limit: N processes grant N times as much, for as long as Redis is away, beside what
    Redis has granted before and grants afterwards.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def take(self, draws: Sequence[Draw]) -> Verdict:
        """As `RateLimits.take` decides, in the same twelfths: all draws or none. At least one draw."""
        now = trio.current_time()
        windows = [self._find(draw, now) for draw in draws]
        waits = [window.wait_for_room(draw, now) for window, draw in zip(windows, draws, strict=True)]
        longest = max(waits)
        if not longest:
            for window, draw in zip(windows, draws, strict=True):
                window.add(min(draw.cost, draw.limit), now)
        shares = [(draw.limit - window.used) / draw.limit for window, draw in zip(windows, draws, strict=True)]
        told = waits.index(longest) if longest else shares.index(min(shares))
        remaining = draws[told].limit - windows[told].used
        reset = windows[told].wait_for(windows[told].used, now)
        return Verdict(not longest, told, draws[told].limit, remaining, reset, longest, drawn_at=0)

    def give_back(self, draw: Draw) -> None:
        """What was drawn last."""
        if draw.key in self._windows:
            self._windows[draw.key].remove(draw.cost)

    def _find(self, draw: Draw, now: float) -> "_Window":
        window = self._windows.setdefault(draw.key, _Window(draw.window_seconds))
        self._windows.move_to_end(draw.key)
        if len(self._windows) > MAX_KEYS:
            self._windows.popitem(last=False)
        window.forget_old(now)
        return window


class _Window:
    """What one key has drawn, by the twelfth of the window in which it did."""

    __slots__ = ("_parts", "_size", "used")

    def __init__(self, window_seconds: float) -> None:
        self._size = window_seconds / TWELFTHS
        self._parts: deque[list[int]] = deque()
        self.used = 0

    def forget_old(self, now: float) -> None:
        while self._parts and self._end_of(self._parts[0][0]) <= now:
            self.used -= self._parts.popleft()[1]

    def wait_for_room(self, draw: Draw, now: float) -> float:
        """Seconds; 0 if there is room now."""
        return self.wait_for(self.used + min(draw.cost, draw.limit) - draw.limit, now)

    def wait_for(self, wanted: int, now: float) -> float:
        """Seconds until so much of what was drawn counts no more."""
        if wanted > 0:
            for twelfth, count in self._parts:
                wanted -= count
                if wanted <= 0:
                    return self._end_of(twelfth) - now
        return 0.0

    def add(self, cost: int, now: float) -> None:
        twelfth = math.floor(now / self._size)
        if not self._parts or self._parts[-1][0] != twelfth:
            self._parts.append([twelfth, 0])
        self._parts[-1][1] += cost
        self.used += cost

    def remove(self, cost: int) -> None:
        if self._parts:
            given_back = min(cost, self._parts[-1][1])
            self._parts[-1][1] -= given_back
            self.used -= given_back

    def _end_of(self, twelfth: int) -> float:
        return (twelfth + TWELFTHS + 1) * self._size
