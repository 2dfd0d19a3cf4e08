"""Events that could not be numbered while Redis was away, kept by the process that published them until it is back.

Nobody knows of the first of them whether Redis has taken it: so what came after it there is looked through first.
"""

import logging
from collections import deque
from dataclasses import dataclass, field
from uuid import UUID

import trio

from storage.event_stream import Track

MOST_PER_USER = 2_000
"""No more would be kept by Redis either."""
MOST_BYTES = 64 * 1024 * 1024
"""Of all users. What is more is lost to those who are not connected to this process."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LateEvent:
    """As it is to be appended. Whether Redis has it already can be seen after `floor`."""

    track: Track
    body: bytes = field(repr=False)
    token: str
    newest_of: str
    floor: int


class LateLine:
    """Those of one user, in their order. Who appends them holds `turn`."""

    def __init__(self) -> None:
        self.turn = trio.Lock()
        self.events: deque[LateEvent] = deque()


class LateEvents:
    """One per process."""

    def __init__(self) -> None:
        self._lines: dict[UUID, LateLine] = {}
        self._bytes = 0

    def add(self, user_id: UUID, event: LateEvent) -> None:
        line = self._lines.get(user_id)
        count = 0 if line is None else len(line.events)
        if count >= MOST_PER_USER or self._bytes + len(event.body) > MOST_BYTES:
            logger.warning("an event was told on this server alone: too many wait for Redis")
            return
        self._lines.setdefault(user_id, LateLine()).events.append(event)
        self._bytes += len(event.body)

    def find(self, user_id: UUID) -> LateLine | None:
        return self._lines.get(user_id)

    def drop_first(self, user_id: UUID) -> None:
        """Redis has it."""
        line = self._lines[user_id]
        self._bytes -= len(line.events.popleft().body)
        if not line.events:
            del self._lines[user_id]
