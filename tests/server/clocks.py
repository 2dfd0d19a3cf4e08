"""Time that a test moves."""


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
