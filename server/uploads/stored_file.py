"""A file that a client sends, on disk and without a name: whatever becomes of us, the kernel frees it."""

import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import trio

from server.errors import TooManyUploads, UploadsUnavailable

PIECE_BYTES = 1024 * 1024
"""Written at a time: many pieces of what comes from a socket, for a hop to a thread costs more than a small write."""
MOST_PIECES = 1024
"""Gathered: the client decides how small they are, and one of two bytes takes sixty."""
MOST_OF_A_USER = 32
"""At a time: the desktop sends a film in some ten pieces at once."""
CLOSE_SECONDS = 30
INSPECTIONS_AT_A_TIME = 2


@dataclass(slots=True)
class Uploads:
    """Where a process keeps files of its clients, and how much of them. `kept_bytes` are there right now."""

    folder: Path
    most_bytes: int
    upload_seconds: float
    silence_seconds: float = 60.0
    kept_bytes: int = 0
    open_by_user: Counter[UUID] = field(default_factory=Counter)
    inspections: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(INSPECTIONS_AT_A_TIME))

    @contextmanager
    def open_one_more(self, user_id: UUID) -> Iterator[None]:
        """Who brings a file costs a megabyte of memory, however slow it is, and may have no money for what comes of it.
        Raises TooManyUploads.
        """
        if self.open_by_user[user_id] >= MOST_OF_A_USER:
            raise TooManyUploads(f"{MOST_OF_A_USER} of your uploads are under way; wait until one has ended")
        self.open_by_user[user_id] += 1
        try:
            yield
        finally:
            self.open_by_user[user_id] -= 1
            if not self.open_by_user[user_id]:
                del self.open_by_user[user_id]

    def require_room(self, size_bytes: int) -> None:
        """Raises UploadsUnavailable. Nothing is taken: who only says that much will come keeps nobody out."""
        if self.kept_bytes + size_bytes > self.most_bytes:
            raise UploadsUnavailable("clients' files together have reached MAX_UPLOADS_BYTES")


class StoredFile:
    """Written once from start to end, then read by as many as like. It counts in `uploads` until it is closed."""

    def __init__(self, uploads: Uploads, descriptor: int) -> None:
        self.uploads = uploads
        self.size_bytes = 0
        self._descriptor = descriptor
        self._pieces: list[bytes] = []
        self._gathered_bytes = 0

    def fileno(self) -> int:
        return self._descriptor

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        """At least one byte of what stands there, at the end b"". Raises OSError."""
        return await trio.to_thread.run_sync(os.pread, self._descriptor, most_bytes, offset)

    async def write(self, piece: bytes) -> None:
        """Raises UploadsUnavailable."""
        self._pieces.append(piece)
        self._gathered_bytes += len(piece)
        if self._gathered_bytes >= PIECE_BYTES or len(self._pieces) >= MOST_PIECES:
            await self.flush()

    async def flush(self) -> None:
        """Before anybody reads. Raises UploadsUnavailable."""
        data, self._pieces, self._gathered_bytes = b"".join(self._pieces), [], 0
        if data:
            self.uploads.require_room(len(data))
            self.uploads.kept_bytes += len(data)
            self.size_bytes += len(data)
            with _telling_of_the_disk():
                await trio.to_thread.run_sync(_write_all, self._descriptor, data)


@asynccontextmanager
async def open_stored_file(uploads: Uploads) -> AsyncIterator[StoredFile]:
    """An empty one. Raises UploadsUnavailable."""
    with _telling_of_the_disk():
        descriptor = await trio.to_thread.run_sync(_open_nameless, uploads.folder)
    file = StoredFile(uploads, descriptor)
    try:
        yield file
    finally:
        uploads.kept_bytes -= file.size_bytes
        with trio.move_on_after(CLOSE_SECONDS, shield=True):  # freeing many megabytes takes a disk its time
            await trio.to_thread.run_sync(os.close, descriptor)


def _open_nameless(folder: Path) -> int:
    """With O_TMPFILE. Where a file system lacks it the name is gone as soon as the file is open."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _telling_of_the_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UploadsUnavailable(f"a client's file cannot be kept: {error.strerror}") from error
