"""Bytes of a terminal as they travel: "PTC1", two bytes of length, the session's id, the rest. Pure."""

MAGIC = b"PTC1"
MOST_BYTES = 16 * 1024
"""Of output in one frame of the desktop."""


def build_frame(session_id: str, output: bytes) -> bytes:
    name = session_id.encode()
    return MAGIC + len(name).to_bytes(2, "big") + name + output


def build_frames(session_id: str, output: bytes) -> list[bytes]:
    starts = range(0, len(output), MOST_BYTES)
    return [build_frame(session_id, output[start : start + MOST_BYTES]) for start in starts]


def read_frame(frame: bytes) -> tuple[str, bytes] | None:
    """Session and output; None for what the phone drops: too short, unframed, or of no session."""
    if len(frame) <= 6 or frame[:4] != MAGIC:
        return None
    end = 6 + int.from_bytes(frame[4:6], "big")
    if end == 6 or end > len(frame):
        return None
    try:
        return frame[6:end].decode(), frame[end:]
    except UnicodeDecodeError:
        return None
