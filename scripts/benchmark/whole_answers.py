"""How many requests without streaming are answered a second, by clients that keep their connections."""

import time
from dataclasses import dataclass

from scripts.benchmark.arena import Arena, Crowd, open_crowd
from scripts.benchmark.calls import BenchFailed, Call, Target
from scripts.benchmark.figures import Reading

WARM_SECONDS = 0.3


@dataclass(slots=True)
class _Round:
    """Clients that ask again as soon as they have been answered."""

    arena: Arena
    crowd: Crowd
    answers: int = 0

    def start(self) -> None:
        self.crowd.start(self.arena.build_wish("whole"), self._again, stream=False)

    def _again(self, call: Call) -> None:
        self.answers += 1
        call.ask_again(self.crowd.target.build_request(self.arena.build_wish("whole"), stream=False))


def measure(arena: Arena) -> list[Reading]:
    cloche, cpu_seconds = _ask(arena, arena.served.target)
    direct, _ = _ask(arena, arena.direct)
    return [
        Reading("whole answers", "requests/s", cloche, direct),
        Reading("whole answers: server CPU", "µs/request", cpu_seconds / cloche * 1e6),
    ]


def _ask(arena: Arena, target: Target) -> tuple[float, float]:
    """Answers and CPU seconds of the server, both a second."""
    with open_crowd(target) as crowd:
        clients = _Round(arena, crowd)
        for _ in range(arena.plan.clients):
            clients.start()
        crowd.reactor.run_for(WARM_SECONDS)
        answers, cpu_seconds, began = clients.answers, arena.served.cpu_seconds(), time.monotonic()
        crowd.reactor.run_for(arena.plan.window_seconds)
        seconds = time.monotonic() - began
        if clients.answers == answers:
            raise BenchFailed(f"{target.name}: no answer came")
        return (clients.answers - answers) / seconds, (arena.served.cpu_seconds() - cpu_seconds) / seconds
