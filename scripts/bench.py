"""`python -m scripts.bench [--json FILE] [--runs N] [--quick] [--only NAME ...]`: what Cloche costs, measured.

Serves the application with hypercorn and everything real, PostgreSQL, Redis, sign-in, hold and settlement, in front of
a fake provider, and puts each figure beside the same one without Cloche in between. Medians of all runs. Linux only.
"""

import argparse
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.benchmark import events, first_token, leaving, memory, relay, whole_answers
from scripts.benchmark.arena import Arena
from scripts.benchmark.calls import BenchFailed
from scripts.benchmark.figures import Figure, Reading, as_json, as_table, build_figures
from scripts.benchmark.plan import FULL, QUICK, Plan
from scripts.benchmark.stage import Stage, open_served, open_stage
from storage.errors import StorageError

MEASUREMENTS: Mapping[str, Callable[[Arena], list[Reading]]] = {
    "memory": memory.measure,  # first: see there
    "first_token": first_token.measure,
    "saturated": events.measure_saturated,
    "paced": events.measure_paced,
    "whole_answers": whole_answers.measure,
    "leaving": leaving.measure,
    "relay": relay.measure,
}

MAX_WAITED_PERCENT = 10
"""A server that waits longer for its core is slowed by what else runs here, in every time that is measured."""
WAITED = "server waited for its core"


@dataclass(frozen=True, slots=True)
class Options:
    json: Path | None
    runs: int
    quick: bool
    only: list[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`held` are calls whose money was still held long after all clients had gone: anything but 0 is a defect."""

    figures: list[Figure]
    settled: int
    held: int
    pinning: str
    waited_percent: float


def main() -> None:
    options = read_options(sys.argv[1:])
    if sys.platform != "linux":
        sys.exit("scripts.bench: needs Linux (epoll, /proc, processor affinity)")
    for number in (signal.SIGINT, signal.SIGTERM):  # unwinds, so that nothing is left running; also in the background
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    began = time.monotonic()
    try:
        outcome = run(options)
    except (BenchFailed, StorageError, OSError) as error:
        sys.exit(f"scripts.bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    show(options, outcome, time.monotonic() - began)


def read_options(words: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--runs", type=int, default=0, help="3 by default, 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="only see that it works: the figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS), metavar="NAME",
                        help=", ".join(MEASUREMENTS))  # fmt: skip
    options = Options(**vars(parser.parse_args(words)))
    runs = options.runs or (1 if options.quick else 3)
    return Options(options.json, max(1, runs), options.quick, options.only)


def run(options: Options) -> Outcome:
    """Everything `runs` times, each time with a fresh server. Raises BenchFailed."""
    plan = QUICK if options.quick else FULL
    allow_files(4 * max(plan.idle_streams, plan.idle_devices) + 1000)
    readings: list[Reading] = []
    with open_stage(plan.users, max(plan.pairs, plan.idle_devices // 2)) as stage:
        for number in range(options.runs):
            readings += run_once(stage, plan, options.only, f"run {number + 1} of {options.runs}")
        figures, held = build_figures(readings), stage.count_held()
        waited = next(figure.cloche for figure in figures if figure.name == WAITED)
        return Outcome(figures, stage.count_settled(), held, str(stage.cores), waited)


def run_once(stage: Stage, plan: Plan, only: list[str], label: str) -> list[Reading]:
    readings: list[Reading] = []
    with open_served(stage) as served:
        arena = Arena(plan, served, stage.provider, stage.members, partial(open_served, stage, "other"))
        for name, measure in MEASUREMENTS.items():
            if name in only:
                print(f"{label}: {name}", file=sys.stderr, flush=True)
                readings += measure(arena)
                stage.count_held()
        readings.append(Reading(WAITED, "%", served.waited_percent()))
    return readings


def allow_files(needed: int) -> None:
    """For us and all that we start. Raises BenchFailed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchFailed(f"{needed} open files are needed, and {hard} are allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def show(options: Options, outcome: Outcome, seconds: float) -> None:
    print(f"\n{as_table(outcome.figures)}\n")
    print(f"medians of {options.runs} runs, {seconds:.0f} s; {outcome.pinning}")
    if outcome.waited_percent > MAX_WAITED_PERCENT:
        print("the machine was busy with other things: only memory and CPU, the latter roughly, can be trusted")
    print(f"{outcome.settled:,} calls were settled, {outcome.held} still hold money")
    if options.json is not None:
        options.json.write_text(json.dumps(as_record(options, outcome, seconds), indent=2) + "\n")


def as_record(options: Options, outcome: Outcome, seconds: float) -> dict[str, object]:
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "pinning": outcome.pinning,
        "was_disturbed": outcome.waited_percent > MAX_WAITED_PERCENT,
        "runs": options.runs,
        "is_quick": options.quick,
        "seconds": round(seconds, 1),
        "calls_settled": outcome.settled,
        "calls_still_held": outcome.held,
        "figures": as_json(outcome.figures),
    }


if __name__ == "__main__":
    main()
