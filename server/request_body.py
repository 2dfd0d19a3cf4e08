"""A request's body on its way in: how much of it waits in memory is decided by its route."""

import trio
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import RequestEntityTooLarge

ROOM_BYTES = 128 * 1024
"""What waits of a body that is read in pieces, or of which nobody knows yet what it is for; and one message more."""


class RequestBody(TrioBody):
    """Quart's body collects whatever comes, and cannot hold a client back: so a file of any size would be in memory.
    Here the client is held back, unless its route says that it collects.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(None, None)
        self._expected_bytes = expected_content_length or 0
        self._is_held_back = True
        self._is_unwanted = False
        self._has_room = trio.Event()

    @property
    def waiting_bytes(self) -> int:
        return len(self._data)

    def collect(self, most_bytes: int) -> None:
        """The route reads it as a whole. Reading more than so much is a 413."""
        self._max_content_length = most_bytes
        if max(self._expected_bytes, len(self._data)) > most_bytes:
            self._must_raise = RequestEntityTooLarge()
        self._is_held_back = False
        self._has_room.set()

    def discard(self) -> None:
        """Nobody reads on. What still comes is dropped, so that the end of the connection is heard behind it."""
        if self._is_held_back:
            self._is_unwanted = True
            self._data.clear()
            self._has_room.set()

    def append(self, data: bytes) -> None:
        if not self._is_unwanted:
            super().append(data)

    async def wait_room(self) -> None:
        """Until more may come. What has come to its end needs no room."""
        while self._is_full():
            self._has_room = trio.Event()
            await self._has_room.wait()

    def _is_full(self) -> bool:
        waits = self._is_held_back and not self._is_unwanted and not self._complete.is_set()
        return waits and len(self._data) >= ROOM_BYTES

    async def __anext__(self) -> bytes:
        data = await super().__anext__()
        self._has_room.set()
        return data


class Request(TrioRequest):
    body_class = RequestBody
