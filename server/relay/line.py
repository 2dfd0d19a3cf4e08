"""What waits to leave for one other process, in order, and how much it is; and the lines to all of them."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import trio

from server.relay.letters import Draft, build_entries
from storage.relay_streams import Entry

ROOM_BYTES = 16 * 1024 * 1024
"""Who can wait, waits as long as there is more."""
BATCH_BYTES = 1024 * 1024
"""Letters leave together up to about so many bytes,"""
BATCH_ENTRIES = 256
"""and so many at once."""
MOST_NUMBERS = 1_000
"""Of lines that were forgotten, the newest."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: Entry
    since: float


class Line:
    """To one process. Its numbers go on after `last_number`: whatever becomes of that process meanwhile, one that was
    thought to be gone, and is back, must not take new letters for old ones.
    """

    def __init__(
        self, sender: str, instance: str, last_number: int = 0, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self.instance = instance
        self._sender = sender
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._number = last_number
        self._drained = trio.Event()
        self.is_busy = False
        """Somebody sends what waits."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def last_number(self) -> int:
        return self._number

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def age_seconds(self) -> float:
        """Of what has waited longest."""
        return self._clock() - self._waiting[0].since if self._waiting else 0

    def put(self, draft: Draft) -> None:
        now = self._clock()
        for entry in build_entries(self._sender, draft, self._next_number):
            self._waiting.append(_Waiting(entry, now))
            self._bytes += entry.size_bytes

    def peek(self) -> Sequence[Entry]:
        """What leaves next."""
        batch: list[Entry] = []
        size = 0
        for waiting in self._waiting:
            size += waiting.entry.size_bytes
            if batch and (size > BATCH_BYTES or len(batch) == BATCH_ENTRIES):
                break
            batch.append(waiting.entry)
        return batch

    def note_left(self, entries: Sequence[Entry]) -> None:
        """The first have arrived; perhaps they were dropped meanwhile."""
        for entry in entries:
            if self._waiting and self._waiting[0].entry is entry:
                self._bytes -= self._waiting.popleft().entry.size_bytes
        self._wake_waiting()

    def drop(self) -> None:
        """Everything that waits. What comes later is numbered so that its reader knows."""
        self._waiting.clear()
        self._bytes = 0
        self._wake_waiting()

    async def wait_room(self) -> None:
        """Not a checkpoint while there is room."""
        while self._bytes > ROOM_BYTES:
            await self._drained.wait()

    def _wake_waiting(self) -> None:
        if self._bytes <= ROOM_BYTES:
            self._drained.set()
            self._drained = trio.Event()

    def _next_number(self) -> int:
        self._number += 1
        return self._number


class Lines:
    """Of one process. One that is forgotten goes on where it ended, should it be opened again; of those that were
    forgotten long ago only the highest number is known, and a new line may begin there: its reader hears of it as of
    letters that are missing.
    """

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self._lines: dict[str, Line] = {}
        self._numbers: dict[str, int] = {}
        self._least_number = 0

    def __iter__(self) -> Iterator[Line]:
        return iter(tuple(self._lines.values()))

    @property
    def waiting_bytes(self) -> int:
        return sum(line.waiting_bytes for line in self._lines.values())

    def find(self, instance: str) -> Line | None:
        return self._lines.get(instance)

    def open(self, instance: str) -> Line:
        if (line := self._lines.get(instance)) is None:
            last_number = self._numbers.pop(instance, self._least_number)
            line = self._lines[instance] = Line(self._sender, instance, last_number)
        return line

    def forget(self, line: Line) -> None:
        """Unless something waits, or is on its way. Safe to repeat."""
        if line or line.is_busy or self._lines.get(line.instance) is not line:
            return
        del self._lines[line.instance]
        self._numbers[line.instance] = line.last_number
        if len(self._numbers) > MOST_NUMBERS:
            self._least_number = max(self._least_number, self._numbers.pop(next(iter(self._numbers))))
