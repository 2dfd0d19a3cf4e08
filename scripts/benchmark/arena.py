"""One measurement's surroundings: a reactor, the targets, numbers for calls, and the server's account of itself."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from scripts.benchmark.calls import BenchFailed, Call, Target
from scripts.benchmark.plan import Plan
from scripts.benchmark.reactor import Reactor
from scripts.benchmark.stage import Served
from scripts.benchmark.wishes import Wish

CALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Arena:
    """What every measurement is given. A call's number is its own within one run. `members` are the headers of users
    who are bound to no device, and may have several.
    """

    plan: Plan
    served: Served
    direct: Target
    members: tuple[Mapping[str, str], ...]
    open_another: Callable[[], AbstractContextManager[Served]]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def build_wish(self, kind: str, events: int = 0, interval_seconds: float = 0.0) -> Wish:
        return Wish(kind, next(self.numbers), events, round(interval_seconds * 1e6))


class Crowd:
    """Calls that run at once. All are closed at the end of open_crowd()."""

    def __init__(self, reactor: Reactor, target: Target) -> None:
        self.reactor = reactor
        self.target = target
        self.calls: set[Call] = set()

    def start(self, wish: Wish, on_end: Callable[[Call], None] | None = None, *, stream: bool = True) -> Call:
        request = self.target.build_request(wish, stream=stream)
        call = Call(self.reactor, self.target, request, on_end or self.end)
        self.calls.add(call)
        return call

    def end(self, call: Call) -> None:
        call.close()
        self.calls.discard(call)

    def count_events(self) -> int:
        return sum(call.events for call in self.calls)

    def run_until(self, is_done: Callable[[], bool], seconds: float = CALL_SECONDS) -> None:
        """Raises BenchFailed if it takes longer."""
        if not self.reactor.run(is_done, seconds):
            raise BenchFailed(f"{self.target.name}: not done within {seconds:.0f} s, {len(self.calls)} calls are open")

    def start_evenly(self, wishes: list[Wish], at_once: int = 50) -> None:
        """Start calls that go on, few at a time, and wait until each has its first token."""
        waiting: list[Call] = []
        for wish in wishes:
            waiting.append(self.start(wish))
            if len(waiting) == at_once:
                self._wait_first(waiting)
        self._wait_first(waiting)

    def _wait_first(self, waiting: list[Call]) -> None:
        self.run_until(lambda: all(call.first_at for call in waiting))
        waiting.clear()


@contextmanager
def open_crowd(target: Target) -> Iterator[Crowd]:
    crowd = Crowd(Reactor(), target)
    try:
        yield crowd
    finally:
        for call in tuple(crowd.calls):
            crowd.end(call)
        crowd.reactor.close()
