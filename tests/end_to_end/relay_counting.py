"""Terminal output of which every sixteen bytes say where they stand: so a hole or a repetition shows. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

RECORD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Story:
    """What has come of an output. `end` is where it has got to."""

    start: int
    end: int
    holes: tuple[tuple[int, int], ...]
    repeated_bytes: int


def count_out(start: int, size: int) -> bytes:
    """The output from there on; both are multiples of sixteen."""
    assert start % RECORD_BYTES == size % RECORD_BYTES == 0
    return b"".join(b"%014d\r\n" % position for position in range(start, start + size, RECORD_BYTES))


def read_story(output: bytes) -> Story:
    """Raises AssertionError if a byte is not what was written there."""
    assert len(output) % RECORD_BYTES == 0, len(output)
    first = int(output[:RECORD_BYTES]) if output else 0
    holes, repeated, expected = [], 0, first
    for position in _positions(output):
        if position > expected:
            holes.append((expected, position))
        elif position < expected:
            repeated += RECORD_BYTES
        expected = max(expected, position + RECORD_BYTES)
    return Story(first, expected, tuple(holes), repeated)


def _positions(output: bytes) -> Iterable[int]:
    for start in range(0, len(output), RECORD_BYTES):
        record = output[start : start + RECORD_BYTES]
        assert record[14:] == b"\r\n", record
        yield int(record[:14])
