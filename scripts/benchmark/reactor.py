"""A bare epoll loop, for a provider and a load generator that must cost less than the server between them.

Trio would do, but at ten microseconds an event it would be half of what is measured.
"""

import heapq
import itertools
import select
import time
from collections.abc import Callable
from math import inf

READABLE = select.EPOLLIN | select.EPOLLRDHUP
WRITABLE = select.EPOLLOUT
MAX_WAIT_SECONDS = 1.0


class Reactor:
    """Calls back when a descriptor is ready or a moment has come. Moments are of time.monotonic()."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._on_ready: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def watch(self, descriptor: int, events: int, on_ready: Callable[[int], None]) -> None:
        """`on_ready` gets the mask that epoll reports; it may be called once in vain for a number that was reused."""
        self._epoll.register(descriptor, events)
        self._on_ready[descriptor] = on_ready

    def watch_for(self, descriptor: int, events: int) -> None:
        """Other events from now on."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Before the descriptor is closed."""
        del self._on_ready[descriptor]
        self._epoll.unregister(descriptor)

    def call_at(self, moment: float, action: Callable[[], None]) -> None:
        """Up to a millisecond late: epoll counts in those."""
        heapq.heappush(self._timers, (moment, next(self._numbers), action))

    def run(self, is_done: Callable[[], bool], seconds: float = inf) -> bool:
        """Until `is_done()`, asked once a round; False if that takes longer than `seconds`."""
        give_up = time.monotonic() + seconds
        while not is_done():
            if time.monotonic() > give_up:
                return False
            for descriptor, events in self._epoll.poll(self._seconds_to_wait(give_up), 1024):
                on_ready = self._on_ready.get(descriptor)
                if on_ready is not None:
                    on_ready(events)
            self._call_due()
        return True

    def run_for(self, seconds: float) -> None:
        self.run(lambda: False, seconds)

    def close(self) -> None:
        """Closes epoll, not what it watched."""
        self._epoll.close()

    def _seconds_to_wait(self, give_up: float) -> float:
        moment = min(self._timers[0][0] if self._timers else inf, give_up)
        return max(0.0, min(moment - time.monotonic(), MAX_WAIT_SECONDS))

    def _call_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
