"""What the handler of a WebSocket receives: bounded in bytes, and closed from both ends without waiting."""

from collections import deque

import trio
from hypercorn.typing import ASGIReceiveEvent

WAITING_BYTES = 64 * 1024
"""With more than this the connection is not read, whoever its client is. One message may be larger."""
EVENT_BYTES = 128
"""What an event counts for beside its payload: a flood of empty ones is bounded too."""
TAKEN_BETWEEN_CHECKPOINTS = 16


class SocketMailbox:
    """Upstream's takes ten messages, of 32 MiB each, and the eleventh keeps even a disconnect out."""

    def __init__(self) -> None:
        self._events: deque[tuple[ASGIReceiveEvent, int]] = deque()
        self._bytes = 0
        self._last: ASGIReceiveEvent | None = None
        self._is_closed = False
        self._arrived = trio.Event()
        self._has_room = trio.Event()
        self._taken = 0

    async def put(self, event: ASGIReceiveEvent, payload_bytes: int) -> None:
        """Wait while there is no room. What nobody will take any more is dropped. No checkpoint while there is room."""
        while self._bytes > WAITING_BYTES and not self._is_closed:
            self._has_room = trio.Event()
            await self._has_room.wait()
        if not self._is_closed and self._last is None:
            size = payload_bytes + EVENT_BYTES
            self._events.append((event, size))
            self._bytes += size
            self._arrived.set()

    def put_last(self, event: ASGIReceiveEvent) -> None:
        """There is always room for a disconnect. The first counts."""
        self._last = self._last or event
        self._arrived.set()

    async def receive(self) -> ASGIReceiveEvent:
        """What came first; after the disconnect, the disconnect again."""
        self._taken += 1
        if self._taken % TAKEN_BETWEEN_CHECKPOINTS == 0:
            await trio.lowlevel.checkpoint()
        while not self._events:
            if self._last is not None:
                await trio.lowlevel.checkpoint()
                return self._last
            self._arrived = trio.Event()
            await self._arrived.wait()
        event, size = self._events.popleft()
        self._bytes -= size
        if self._bytes <= WAITING_BYTES // 2:
            self._has_room.set()
        return event

    def close(self) -> None:
        """Nobody will take anything any more: whoever waits for room may go."""
        self._is_closed = True
        self._events.clear()
        self._bytes = 0
        self._has_room.set()
