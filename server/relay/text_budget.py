"""How fast a device may speak, and register: whoever is faster is read more slowly; nothing that it says is dropped.
Pure.
"""

TEXTS_PER_SECOND = 200.0
BURST_TEXTS = 400.0
REGISTRATIONS_PER_SECOND = 1.0
BURST_REGISTRATIONS = 10.0
"""Each costs both stores work, and the user's other devices a look at who is there."""
ABUSE_SECONDS = 120.0
"""Who has been too fast for so long without a pause is not busy, but broken."""


class TextBudget:
    """Of one socket. Seconds are its clock's."""

    def __init__(self, now: float, burst: float = BURST_TEXTS, per_second: float = TEXTS_PER_SECOND) -> None:
        self._burst, self._per_second = burst, per_second
        self._texts = burst
        self._drawn_at = now
        self._short_since: float | None = None

    def draw(self, now: float) -> float:
        """For how many seconds nothing more is to be read."""
        self._texts = min(self._burst, self._texts + (now - self._drawn_at) * self._per_second) - 1
        self._drawn_at = now
        if self._texts >= 0:
            if self._texts >= self._burst / 2:
                self._short_since = None
            return 0.0
        if self._short_since is None:
            self._short_since = now
        return -self._texts / self._per_second

    def is_abused(self, now: float) -> bool:
        return self._short_since is not None and now - self._short_since >= ABUSE_SECONDS
