"""What a device has taken of its terminals: pings among the frames, each of whose pongs confirms all before it. Pure.

A ping follows a frame if none is on its way, or 64 KiB after the last one; where frames came meanwhile, the next
follows its pong. So a keystroke's echo is confirmed within a round trip, and a burst every 64 KiB, without a timer. A
device may answer several pings by the newest one's pong: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

PING_EVERY_BYTES = 64 * 1024
_PREFIX = b"t"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """`numbers`: for each binding, that of its newest frame which has arrived. `ping`, if any, is to be sent now."""

    numbers: Mapping[int, int]
    ping: bytes | None


class Confirmations:
    """Of one connection."""

    __slots__ = ("_bytes", "_number", "_pinged", "_uncovered")

    def __init__(self) -> None:
        self._number = 0
        self._pinged: deque[tuple[int, Mapping[int, int]]] = deque()
        self._uncovered: dict[int, int] = {}
        self._bytes = 0

    def note_put(self, binding: int, number: int, size_bytes: int) -> bytes | None:
        """A frame is in the outbox; what is returned is the payload of a ping that is to follow it."""
        self._uncovered[binding] = number
        self._bytes += size_bytes
        return self._ping() if not self._pinged or self._bytes >= PING_EVERY_BYTES else None

    def note_pong(self, payload: bytes) -> Confirmed | None:
        """None if it answers no ping of terminals, or one that a later pong has overtaken."""
        if (answered := _read_number(payload)) is None or not self._pinged:
            return None
        if not self._pinged[0][0] <= answered <= self._number:
            return None
        numbers: dict[int, int] = {}
        while self._pinged and self._pinged[0][0] <= answered:
            numbers.update(self._pinged.popleft()[1])
        return Confirmed(numbers, self._ping() if self._uncovered and not self._pinged else None)

    def _ping(self) -> bytes:
        self._number += 1
        self._pinged.append((self._number, self._uncovered))
        self._uncovered, self._bytes = {}, 0
        return b"%s%d" % (_PREFIX, self._number)


def _read_number(payload: bytes) -> int | None:
    digits = payload[1:]
    return int(digits) if payload.startswith(_PREFIX) and digits.isdigit() and len(digits) < 16 else None
