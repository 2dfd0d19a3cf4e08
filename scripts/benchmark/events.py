"""How many events a second pass through: as fast as they are taken, and paced, each written by itself."""

import time

from scripts.benchmark.arena import Arena, open_crowd
from scripts.benchmark.calls import BenchFailed, Target
from scripts.benchmark.figures import Reading
from scripts.benchmark.stage import start_floods

PROBE_EVENTS_PER_SECOND = 2_000
SHARE_OF_SATURATION = 0.85
MAX_EVENTS_PER_SECOND = 20_000
"""What provider and load generator can do together on one core, each event by itself."""
WARM_SECONDS = 0.3


def measure_saturated(arena: Arena) -> list[Reading]:
    cloche, cpu_seconds = _flood(arena, arena.served.target)
    direct, _ = _flood(arena, arena.direct)
    name = "streamed events, saturated"
    return [
        Reading(name, "events/s", cloche, direct),
        Reading(f"{name}: server CPU", "µs/event", cpu_seconds / cloche * 1e6),
    ]


def measure_paced(arena: Arena) -> list[Reading]:
    """First slowly, to learn what an event costs; then just below what that promises."""
    _, probed = _pace(arena, arena.served.target, PROBE_EVENTS_PER_SECOND)
    rate = min(MAX_EVENTS_PER_SECOND, SHARE_OF_SATURATION / probed)
    cloche, cost = _pace(arena, arena.served.target, rate)
    direct, _ = _pace(arena, arena.direct, rate)
    name = "streamed events, each its own write"
    return [
        Reading(f"{name}: offered", "events/s", rate, rate),
        Reading(name, "events/s", cloche, direct),
        Reading(f"{name}: server CPU", "µs/event", cost * 1e6),
        Reading(f"{name}: server CPU at {PROBE_EVENTS_PER_SECOND:,}/s", "µs/event", probed * 1e6),
    ]


def _flood(arena: Arena, target: Target) -> tuple[float, float]:
    """Events and CPU seconds of the server, both a second."""
    with open_crowd(target) as crowd:
        crowd.start_evenly([arena.build_wish("flood") for _ in range(arena.plan.streams)])
        start_floods(arena.direct)
        crowd.reactor.run_for(WARM_SECONDS)
        events, cpu_seconds, began = crowd.count_events(), arena.served.cpu_seconds(), time.monotonic()
        crowd.reactor.run_for(arena.plan.window_seconds)
        came, seconds = crowd.count_events() - events, time.monotonic() - began
        if not came:
            raise BenchFailed(f"{target.name}: no event came")
        return came / seconds, (arena.served.cpu_seconds() - cpu_seconds) / seconds


def _pace(arena: Arena, target: Target, rate: float) -> tuple[float, float]:
    """Events a second that came, and CPU seconds of the server for each."""
    interval = arena.plan.streams / rate
    endless = 1_000_000
    with open_crowd(target) as crowd:
        crowd.start_evenly([arena.build_wish("paced", endless, interval) for _ in range(arena.plan.streams)])
        crowd.reactor.run_for(WARM_SECONDS)
        events, cpu_seconds, began = crowd.count_events(), arena.served.cpu_seconds(), time.monotonic()
        crowd.reactor.run_for(arena.plan.window_seconds)
        came, seconds = crowd.count_events() - events, time.monotonic() - began
        if not came:
            raise BenchFailed(f"{target.name}: no event came")
        return came / seconds, (arena.served.cpu_seconds() - cpu_seconds) / came
