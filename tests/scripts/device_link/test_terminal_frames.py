"""Frames of terminals, against the protocol's own example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.device_link.terminal_frames import MOST_BYTES, build_frame, build_frames, read_frame

EXAMPLE = bytes.fromhex("50 54 43 31 00 03 74 2D 31 68 69")


def test_a_frame_is_the_one_of_the_protocol() -> None:
    assert build_frame("t-1", b"hi") == EXAMPLE
    assert read_frame(EXAMPLE) == ("t-1", b"hi")


@given(st.text(min_size=1, max_size=50), st.binary(max_size=100))
def test_whatever_is_framed_can_be_read(session_id: str, output: bytes) -> None:
    assert read_frame(build_frame(session_id, output)) == (session_id, output)


def test_long_output_goes_in_frames_of_sixteen_kibibytes() -> None:
    output = bytes(range(256)) * 200
    frames = [read_frame(frame) for frame in build_frames("t", output)]
    assert [len(found[1]) for found in frames if found] == [MOST_BYTES] * 3 + [2048]
    assert b"".join(found[1] for found in frames if found) == output


@pytest.mark.parametrize(
    "frame", [b"", EXAMPLE[:6], b"PTC2" + EXAMPLE[4:], b"PTC1\0\0hi", b"PTC1\0\x09t-1hi", b"PTC1\0\x03\xff\xfe\xfdhi"]
)
def test_what_the_phone_drops_is_none(frame: bytes) -> None:
    assert read_frame(frame) is None
