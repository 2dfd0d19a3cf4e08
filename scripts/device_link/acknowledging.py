"""When each of the apps acknowledges events. Pure: the clock is passed in, seconds."""

from dataclasses import dataclass
from typing import Literal

AppKind = Literal["desktop", "phone"]
AHEAD = 10
PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class Acknowledging:
    """Desktop: with an event that is ten ids ahead of the last acknowledged one, or a second later; what comes at the
    end stays unacknowledged. Phone: a second after the last event, so a steady stream postpones it for ever.
    """

    kind: AppKind
    acknowledged: int = 0
    acknowledged_at: float = float("-inf")
    seen: int = 0
    seen_at: float = 0.0

    def note_event(self, event_id: int, now: float) -> int | None:
        """What is to be acknowledged at once."""
        self.seen, self.seen_at = max(self.seen, event_id), now
        if self.kind == "phone" or not self._is_far(now):
            return None
        return self._acknowledge(now)

    def find_due(self, now: float) -> int | None:
        """What is to be acknowledged by now; to be asked now and then."""
        if self.kind == "desktop" or self.seen <= self.acknowledged or now < self.seen_at + PAUSE_SECONDS:
            return None
        return self._acknowledge(now)

    def _is_far(self, now: float) -> bool:
        return self.seen >= self.acknowledged + AHEAD or now >= self.acknowledged_at + PAUSE_SECONDS

    def _acknowledge(self, now: float) -> int:
        self.acknowledged, self.acknowledged_at = self.seen, now
        return self.seen
