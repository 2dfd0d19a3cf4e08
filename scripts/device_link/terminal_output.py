"""One terminal of a desktop: what becomes of its output while nobody has bound it, and when somebody binds. Pure."""

from collections import deque

PENDING_BYTES = 8 * 1024 * 1024
SNAPSHOT_BYTES = 64 * 1024
SMALL_SNAPSHOT_BYTES = 32 * 1024
RECENT_SECONDS = 120.0


class TerminalOutput:
    """`write`, `bind` answer with the output that is to be sent now. Behaves as the shipped desktop: output that
    nobody has bound is pending, at most 8 MiB of it, the oldest is trimmed. `cleared_bytes`: what an unbind has made it
    give up.
    """

    def __init__(self) -> None:
        self.is_bound = False
        self.is_trimmed = False
        self.written_bytes = 0
        self.cleared_bytes = 0
        self._pending = bytearray()
        self._last = bytearray()
        self._disconnects: deque[float] = deque(maxlen=8)

    @property
    def pending_bytes(self) -> int:
        return len(self._pending)

    def write(self, output: bytes) -> bytes:
        self.written_bytes += len(output)
        self._last = (self._last + output)[-SNAPSHOT_BYTES:]
        if self.is_bound:
            return output
        self._pending += output
        if len(self._pending) > PENDING_BYTES:
            del self._pending[: len(self._pending) - PENDING_BYTES]
            self.is_trimmed = True
        return b""

    def bind(self, now: float, *, includes_snapshot: bool, forces_snapshot: bool) -> bytes:
        self.is_bound = True
        recent = sum(at > now - RECENT_SECONDS for at in self._disconnects)
        if self.is_trimmed or forces_snapshot:
            self._pending.clear()
            first = self._snapshot(SMALL_SNAPSHOT_BYTES if recent >= 2 else SNAPSHOT_BYTES)
        elif includes_snapshot and not self._pending and recent < 3:
            first = self._snapshot(SNAPSHOT_BYTES)
        else:
            first = b""
        self.is_trimmed = False
        pending, self._pending = bytes(self._pending), bytearray()
        return first + pending

    def unbind(self) -> None:
        """What is pending is given up; what comes from now on is pending."""
        self.is_bound = False
        self.cleared_bytes += len(self._pending)
        self._pending.clear()
        self.is_trimmed = False

    def note_lost(self, now: float) -> None:
        """The link is down."""
        self.is_bound = False
        self._disconnects.append(now)

    def _snapshot(self, most: int) -> bytes:
        return bytes(self._last[-most:])
