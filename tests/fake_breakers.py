"""Circuit breakers in memory, for tests of what asks them."""

from dataclasses import dataclass, field

from proxy.breaker import BreakerState

Breaker = tuple[str, str]


@dataclass(slots=True)
class FakeBreakers:
    """Closed, but for those named in `opened` (a provider's code with a model id), and remembers what it is told."""

    opened: set[Breaker] = field(default_factory=set)
    asked: list[Breaker] = field(default_factory=list)
    successes: list[Breaker] = field(default_factory=list)
    failures: list[tuple[str, str, float | None]] = field(default_factory=list)

    async def admit(self, provider: str, model: str) -> bool:
        self.asked.append((provider, model))
        return (provider, model) not in self.opened

    async def note_success(self, provider: str, model: str) -> None:
        self.successes.append((provider, model))

    async def note_failure(self, provider: str, model: str, retry_after_seconds: float | None = None) -> None:
        self.failures.append((provider, model, retry_after_seconds))

    def state(self, provider: str, model: str) -> BreakerState:
        return "open" if (provider, model) in self.opened else "closed"
