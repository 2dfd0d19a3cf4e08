"""What a terminal has written: five megabytes without a repetition, or records that say where they stand."""

import random

BURST = random.Random(7).randbytes(5 * 1024 * 1024)  # noqa: S311 - not for secrets
RECORD_BYTES = 16


def count_out(start: int, size_bytes: int) -> bytes:
    """Both are multiples of a record."""
    return b"".join(b"%014d\r\n" % at for at in range(start, start + size_bytes, RECORD_BYTES))


def read_out(output: bytes) -> list[int]:
    """Where the records stand that have come."""
    return [int(output[at : at + RECORD_BYTES]) for at in range(0, len(output), RECORD_BYTES)]
