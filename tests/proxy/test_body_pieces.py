"""The tail of a body comes in pieces, and is what it is said to be."""

from base64 import b64encode
from dataclasses import dataclass
from itertools import pairwise

import pytest
import trio

from proxy.body_pieces import PIECE_BYTES, TailPieces
from proxy.errors import MediaUnreadable
from proxy.media_file import BodyTail, MediaFile
from tests.sounds import FileInMemory

SIZES = (0, 1, 2, 3, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * 1024 * 1024)


async def read_all(tail: BodyTail) -> list[bytes]:
    pieces = TailPieces(tail)
    found = []
    while piece := await pieces.read_next():
        found.append(piece)
    assert await pieces.read_next() == b""
    return found


def make_data(size_bytes: int) -> bytes:
    return (b"sound!" * (size_bytes // 6 + 1))[:size_bytes]


@dataclass(frozen=True, slots=True)
class Faulty:
    """Says a size, and gives a byte at a time until it has no more, or breaks."""

    size_bytes: int
    data: bytes
    breaks: bool = False

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.breaks and offset == len(self.data):
            raise OSError("the disk is gone")
        return self.data[offset : offset + min(1, most_bytes)]


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_a_file_comes_as_it_is_and_then_what_follows_it(size_bytes: int) -> None:
    data = make_data(size_bytes)
    tail = BodyTail(FileInMemory(data), b"after")
    found = await read_all(tail)
    assert b"".join(found) == data + b"after"
    assert tail.size_bytes == size_bytes + 5
    assert max(len(piece) for piece in found) <= PIECE_BYTES


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_a_file_comes_as_one_text_of_base64(size_bytes: int) -> None:
    data = make_data(size_bytes)
    tail = BodyTail(FileInMemory(data), b'"}', is_base64=True)
    found = await read_all(tail)
    assert b"".join(found) == b64encode(data) + b'"}'
    assert tail.size_bytes == sum(len(piece) for piece in found)
    assert max(len(piece) for piece in found) <= 256 * 1024


@pytest.mark.parametrize("is_base64", [False, True])
async def test_a_file_that_is_read_in_crumbs_comes_whole(is_base64: bool) -> None:
    data = make_data(1000)
    [whole] = await read_all(BodyTail(Faulty(1000, data), b"", is_base64))
    assert whole == (b64encode(data) if is_base64 else data)


@pytest.mark.parametrize("file", [Faulty(10, b"1234"), Faulty(10, b"1234", breaks=True)])
async def test_a_file_that_cannot_be_read_to_the_length_that_was_told_is_our_own_fault(file: MediaFile) -> None:
    with pytest.raises(MediaUnreadable):
        await TailPieces(BodyTail(file, b"after")).read_next()


async def test_a_file_that_grows_is_sent_as_long_as_was_told() -> None:
    assert b"".join(await read_all(BodyTail(Faulty(4, b"1234567"), b"|"))) == b"1234|"


async def test_a_file_is_read_no_further_than_it_is_sent() -> None:
    offsets: list[int] = []

    class Watched(FileInMemory):
        async def read_at(self, offset: int, most_bytes: int) -> bytes:
            offsets.append(offset)
            return await super().read_at(offset, most_bytes)

    pieces = TailPieces(BodyTail(Watched(make_data(4 * PIECE_BYTES)), b""))
    for count in range(1, 5):
        await pieces.read_next()
        assert len(offsets) == count
    assert {later - earlier for earlier, later in pairwise(offsets)} == {PIECE_BYTES}
