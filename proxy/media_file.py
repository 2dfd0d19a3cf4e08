"""A file of sound or video, and a request's body that has one in it: sent as it is read, never whole in memory."""

from dataclasses import dataclass, field
from typing import Protocol


class MediaFile(Protocol):
    """Somebody else keeps it until the call is over. May be read as often as it takes, and by several at a time."""

    @property
    def size_bytes(self) -> int: ...

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        """At least one byte of what stands there, at the end b"". Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class BodyTail:
    """The rest of a request's body: the file, then `after`. With `is_base64` the file goes as base64 text."""

    file: MediaFile = field(repr=False)
    after: bytes = field(repr=False)
    is_base64: bool = False

    @property
    def size_bytes(self) -> int:
        size = self.file.size_bytes
        return (4 * -(-size // 3) if self.is_base64 else size) + len(self.after)
