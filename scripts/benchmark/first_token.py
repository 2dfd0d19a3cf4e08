"""How much later the first token comes: time from connecting to the first text, while N streams run at once.

Each stream has an event every 50 ms, and as many calls begin as end: 50 a second with 50 and with 200 streams. With
one stream they follow one another.
"""

import random
from dataclasses import dataclass, field

from scripts.benchmark.arena import Arena, Crowd, open_crowd
from scripts.benchmark.calls import Call, Target
from scripts.benchmark.figures import Reading, percentile

INTERVAL_SECONDS = 0.05
STARTS_PER_SECOND = 50


@dataclass(slots=True)
class _Relay:
    """Streams, each of which is followed by another when it ends."""

    arena: Arena
    crowd: Crowd
    events: int
    milliseconds: list[float] = field(default_factory=list)
    is_warm: bool = False

    def start(self, events: int) -> None:
        interval = INTERVAL_SECONDS if events > 2 else 0.0
        self.crowd.start(self.arena.build_wish("paced", events, interval), self._follow)

    def _follow(self, call: Call) -> None:
        if self.is_warm:
            self.milliseconds.append((call.first_at - call.started_at) * 1000)
        self.crowd.end(call)
        self.start(self.events)


def measure(arena: Arena) -> list[Reading]:
    readings = []
    for streams in arena.plan.levels:
        cloche = _time_first_tokens(arena, arena.served.target, streams)
        direct = _time_first_tokens(arena, arena.direct, streams)
        for percent in (50, 99):
            name = f"first token p{percent}, {streams} stream{'s' if streams > 1 else ''}"
            readings.append(Reading(name, "ms", percentile(cloche, percent), percentile(direct, percent)))
    return readings


def _time_first_tokens(arena: Arena, target: Target, streams: int) -> list[float]:
    """In milliseconds. The first streams have random lengths and begin no faster than those that follow them."""
    events = 2 if streams == 1 else max(3, round(streams / STARTS_PER_SECOND / INTERVAL_SECONDS))
    dice = random.Random(streams)  # noqa: S311  # the same load every time
    with open_crowd(target) as crowd:
        relay = _Relay(arena, crowd, events)
        for _ in range(streams):
            relay.start(dice.randint(2, events))
            crowd.reactor.run_for(1 / STARTS_PER_SECOND)
        relay.is_warm = True
        crowd.run_until(lambda: len(relay.milliseconds) >= arena.plan.first_tokens)
        return relay.milliseconds
