"""How long after its client a provider's connection closes, when clients leave at random moments.

Both moments are CLOCK_MONOTONIC, which all processes of a machine share. The provider's includes the time until it got
to look, as the direct figure shows.
"""

import random
import time
from dataclasses import dataclass, field

from scripts.benchmark.arena import Arena, Crowd, open_crowd
from scripts.benchmark.calls import BenchFailed, Target
from scripts.benchmark.figures import Reading, percentile
from scripts.benchmark.stage import take_report

AT_ONCE = 50
LONGEST_STAY_SECONDS = 0.8
INTERVAL_SECONDS = 0.05
LATE_SECONDS = 0.5
EVENTS = 1_000


@dataclass(slots=True)
class _Leavers:
    """Streams that are cut, each followed by another until enough were."""

    arena: Arena
    crowd: Crowd
    dice: random.Random
    left: int
    cut_at: dict[int, int] = field(default_factory=dict)

    def start(self) -> None:
        if self.left == 0:
            return
        self.left -= 1
        wish = self.arena.build_wish("paced", EVENTS, INTERVAL_SECONDS)
        call = self.crowd.start(wish)
        is_reset = bool(self.dice.getrandbits(1))

        def cut() -> None:
            self.cut_at[wish.number] = time.monotonic_ns()
            call.close(reset=is_reset)
            self.crowd.end(call)
            self.start()

        self.crowd.reactor.call_at(time.monotonic() + self.dice.uniform(0, LONGEST_STAY_SECONDS), cut)


def measure(arena: Arena) -> list[Reading]:
    cloche, unseen = _cut(arena, arena.served.target)
    direct, _ = _cut(arena, arena.direct)
    name = "client's close to provider's close"
    return [
        *(Reading(f"{name} p{p}", "ms", percentile(cloche, p), percentile(direct, p)) for p in (50, 99)),
        Reading("streams cut before the provider was called", "streams", float(unseen)),
    ]


def _cut(arena: Arena, target: Target) -> tuple[list[float], int]:
    """Milliseconds, and how many were cut so early that the provider never heard of them.

    Raises BenchFailed if the provider still serves one that was cut.
    """
    streams = arena.plan.cut_streams
    take_report(arena.direct)
    with open_crowd(target) as crowd:
        leavers = _Leavers(arena, crowd, random.Random(streams), streams)  # noqa: S311  # the same load every time
        for _ in range(min(AT_ONCE, streams)):
            leavers.start()
        crowd.run_until(lambda: len(leavers.cut_at) == streams)
        crowd.reactor.run_for(LATE_SECONDS)
    arrived, closed = take_report(arena.direct)
    abandoned = arrived & leavers.cut_at.keys()
    if abandoned - closed.keys():
        raise BenchFailed(f"{target.name}: the provider goes on with {len(abandoned - closed.keys())} abandoned calls")
    delays = [(closed[number] - leavers.cut_at[number]) / 1e6 for number in abandoned]
    return delays, streams - len(abandoned)
