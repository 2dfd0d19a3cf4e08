"""What an open stream weighs in which nothing happens. To be measured first: memory once used is used again."""

from scripts.benchmark.arena import Arena, open_crowd
from scripts.benchmark.figures import Reading

WARM_STREAMS = 20
IDLE_SECONDS = 0.5


def measure(arena: Arena) -> list[Reading]:
    """The provider has accepted each and sent one token. A few streams before have loaded what loads only once."""
    with open_crowd(arena.served.target) as crowd:
        crowd.start_evenly([arena.build_wish("idle") for _ in range(WARM_STREAMS)])
    with open_crowd(arena.served.target) as crowd:
        before = arena.served.memory_kib()
        crowd.start_evenly([arena.build_wish("idle") for _ in range(arena.plan.idle_streams)])
        crowd.reactor.run_for(IDLE_SECONDS)
        grown = arena.served.memory_kib() - before
    return [
        Reading("memory per idle stream", "KiB", grown / arena.plan.idle_streams),
        Reading("memory before", "MiB", before / 1024),
    ]
