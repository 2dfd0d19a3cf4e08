"""The terminals of a desktop, and the one queue by which their output leaves."""

from collections import deque

import trio

from scripts.device_link.link import Link, LinkEnded
from scripts.device_link.terminal_frames import build_frames
from scripts.device_link.terminal_output import TerminalOutput

QUEUE_BYTES = 256 * 1024
"""Who writes waits while more waits to leave."""


class Terminals:
    """`lost_bytes`: frames that waited to leave when the link went down. What the network has lost nobody knows."""

    def __init__(self) -> None:
        self.outputs: dict[str, TerminalOutput] = {}
        self.lost_bytes = 0
        self._queue: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = trio.Event()

    def open(self, session_id: str) -> TerminalOutput:
        return self.outputs.setdefault(session_id, TerminalOutput())

    async def write(self, session_id: str, output: bytes) -> None:
        """Waits while the link is up and slow."""
        self.write_nowait(session_id, output)
        while self._waiting_bytes > QUEUE_BYTES:
            await self._changed.wait()

    def write_nowait(self, session_id: str, output: bytes) -> None:
        self._put(session_id, self.open(session_id).write(output))

    def bind(self, session_id: str, *, includes_snapshot: bool, forces_snapshot: bool) -> None:
        found = self.open(session_id).bind(
            trio.current_time(), includes_snapshot=includes_snapshot, forces_snapshot=forces_snapshot
        )
        self._put(session_id, found)

    def unbind(self, session_id: str) -> None:
        self.open(session_id).unbind()

    def unbind_all(self) -> None:
        """What the app does when it knows that its link is about to end."""
        for output in self.outputs.values():
            output.note_lost(trio.current_time())

    def end(self) -> None:
        """The link is down."""
        self.lost_bytes += self._waiting_bytes
        self._queue.clear()
        self._waiting_bytes = 0
        for output in self.outputs.values():
            if output.is_bound:
                output.note_lost(trio.current_time())
        self._tell()

    async def drain(self) -> None:
        while self._waiting_bytes:
            await self._changed.wait()

    async def run(self, link: Link) -> None:
        """Sends what waits, for as long as the link lasts."""
        while True:
            while not self._queue:
                await self._changed.wait()
            frame = self._queue[0]
            try:
                await link.send_bytes(frame)
            except LinkEnded:
                return
            if self._queue:  # nobody has ended it meanwhile
                self._queue.popleft()
                self._waiting_bytes -= len(frame)
                self._tell()

    def _put(self, session_id: str, output: bytes) -> None:
        for frame in build_frames(session_id, output):
            self._queue.append(frame)
            self._waiting_bytes += len(frame)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
