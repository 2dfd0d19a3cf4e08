"""Files of sound and video that stand in memory, for tests of what never looks into them."""

from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class FileInMemory:
    """Fits `proxy.media_file.MediaFile`."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + most_bytes]


SILENCE = FileInMemory(bytes(2048))
