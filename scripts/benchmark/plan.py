"""How much of everything is measured: the whole, or just enough to see that it works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one run. `levels` are numbers of streams that run at once while first tokens are timed. `pairs` are of a
    desktop and a phone; of a terminal so many MiB are sent.
    """

    levels: tuple[int, ...]
    first_tokens: int
    window_seconds: float
    streams: int
    clients: int
    idle_streams: int
    cut_streams: int
    users: int
    pairs: int
    idle_devices: int
    calls_per_second: int
    terminal_mib: int


FULL = Plan(
    levels=(1, 50, 200),
    first_tokens=120,
    window_seconds=2.0,
    streams=200,
    clients=50,
    idle_streams=1000,
    cut_streams=500,
    users=50,
    pairs=500,
    idle_devices=1000,
    calls_per_second=500,
    terminal_mib=64,
)
QUICK = Plan(
    levels=(1, 3),
    first_tokens=8,
    window_seconds=0.4,
    streams=4,
    clients=2,
    idle_streams=20,
    cut_streams=10,
    users=2,
    pairs=3,
    idle_devices=20,
    calls_per_second=20,
    terminal_mib=2,
)
