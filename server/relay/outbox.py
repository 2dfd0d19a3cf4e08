"""What waits to be written to one socket: text, binary and pings together, in order, bounded in bytes."""

from collections import deque
from collections.abc import Callable

import trio

from server.websocket_frames import build_binary, build_ping, build_text

ROOM_BYTES = 4 * 1024 * 1024
"""Who can wait, waits as long as there is more."""
MOST_BYTES = 40 * 1024 * 1024
"""A device that lets more than this wait is dropped: a whole response, and what else there may be beside it."""
BATCH_BYTES = 64 * 1024
"""Frames are written together up to about so many bytes."""


class Outbox:
    """Of one socket. Whoever puts never waits; whoever has a choice asks for room first.

    `overflow` is called once, when more waits than a device may leave unread: its socket is to end. Nothing that was
    put is dropped while the socket lives.
    """

    def __init__(self, overflow: Callable[[], None]) -> None:
        self._frames: deque[bytes] = deque()
        self._overflow = overflow
        self._bytes = 0
        self._is_closed = False
        self._filled = trio.Event()
        self._drained = trio.Event()
        self._waiting = 0
        self.batch_frames = 0
        """So many were taken last."""

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def has_room(self) -> bool:
        return self._bytes < ROOM_BYTES

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def put_text(self, payload: bytes) -> None:
        """UTF-8."""
        self._put(build_text(payload))

    def put_binary(self, payload: bytes) -> None:
        self._put(build_binary(payload))

    def put_ping(self, payload: bytes) -> None:
        """Its pong says that everything before it has arrived."""
        self._put(build_ping(payload))

    def put_frame(self, frame: bytes) -> None:
        """A whole WebSocket frame, perhaps shared with other sockets."""
        self._put(frame)

    async def wait_room(self) -> bool:
        """False if the socket has ended. Not a checkpoint while there is room."""
        while not self._is_closed and not self.has_room:
            self._waiting += 1
            try:
                await self._drained.wait()
            finally:
                self._waiting -= 1
        return not self._is_closed

    async def take(self) -> bytes | None:
        """For the writer: the frames that come next, together; None once it is closed. They count as waiting until
        `note_written`.
        """
        frames = self._frames
        while not frames:
            if self._is_closed:
                return None
            self._filled = trio.Event()
            await self._filled.wait()
        first = frames.popleft()
        self.batch_frames = 1
        if not frames or len(first) + len(frames[0]) > BATCH_BYTES:
            return first
        return self._take_batch(first)

    def note_written(self, size_bytes: int) -> None:
        self._bytes -= size_bytes
        if self._waiting and self.has_room:
            self._wake_waiting()

    def close(self, *, discards: bool = False) -> None:
        """What is put from now on goes nowhere; the writer writes what waits, unless that is discarded, then ends."""
        self._is_closed = True
        if discards:
            self._bytes -= sum(map(len, self._frames))
            self._frames.clear()
        self._filled.set()
        self._wake_waiting()

    def _take_batch(self, first: bytes) -> bytes:
        frames, batch, size = self._frames, [first], len(first)
        while frames and size + len(frames[0]) <= BATCH_BYTES:
            batch.append(frames.popleft())
            size += len(batch[-1])
        self.batch_frames = len(batch)
        return b"".join(batch)

    def _put(self, frame: bytes) -> None:
        if self._is_closed:
            return
        self._frames.append(frame)
        was_within, self._bytes = self._bytes <= MOST_BYTES, self._bytes + len(frame)
        self._filled.set()
        if was_within and self._bytes > MOST_BYTES:
            self._overflow()

    def _wake_waiting(self) -> None:
        self._drained.set()
        self._drained = trio.Event()
