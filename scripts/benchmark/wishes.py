"""What a caller wants of the fake provider, written into the prompt: the one thing that reaches it unchanged."""

import re
from dataclasses import dataclass

PATTERN = re.compile(rb"\[bench (\w+) (\d+) (\d+) (\d+)\]")


@dataclass(frozen=True, slots=True)
class Wish:
    """One call.

    `kind` is `whole` (a short answer at once), `flood` (events without end, as fast as they are
    taken, once the gates are open), `paced` (that
    many events, each in a write of its own) or `idle` (one event, then silence).
    """

    kind: str
    number: int
    events: int = 0
    interval_microseconds: int = 0

    def as_text(self) -> str:
        return f"[bench {self.kind} {self.number} {self.events} {self.interval_microseconds}]"


def read_wish(body: bytes) -> Wish | None:
    """The wish in a request's body."""
    found = PATTERN.search(body)
    return Wish(found[1].decode(), int(found[2]), int(found[3]), int(found[4])) if found else None
