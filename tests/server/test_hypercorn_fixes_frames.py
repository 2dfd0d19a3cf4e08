"""What a client's bytes say, however the network splits them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.hypercorn_fixes.frame_reader import (
    NO_CODE,
    CloseFrame,
    FrameInvalid,
    FrameReader,
    Item,
    PingFrame,
    PongFrame,
    is_code,
    unmask,
)
from tests.raw_websocket import BINARY, CLOSE, PING, PONG, TEXT, build_close, build_frame

MOST_BYTES = 1_000_000
TALK = b"".join(
    [
        build_frame(TEXT, "ein Wörtchen, 漢字".encode()),
        build_frame(BINARY, bytes(range(200))),
        build_frame(TEXT),
        build_frame(TEXT, b"in ", is_final=False),
        build_frame(PING, b"between"),
        build_frame(0, b"pie", is_final=False),
        build_frame(PONG),
        build_frame(0, is_final=False),
        build_frame(0, b"ces"),
        build_frame(BINARY, b"y" * 70_000),
        build_close(4000, b"done"),
    ]
)
SAID: Sequence[Item] = [
    "ein Wörtchen, 漢字",
    bytes(range(200)),
    "",
    PingFrame(b"between"),
    PongFrame(b""),
    "in pieces",
    b"y" * 70_000,
    CloseFrame(4000),
]


def read(pieces: Iterable[bytes], most_bytes: int = MOST_BYTES) -> list[Item]:
    reader = FrameReader(most_bytes)
    return [item for piece in pieces for item in reader.read(piece)]


def fail(*pieces: bytes, most_bytes: int = MOST_BYTES) -> int:
    with pytest.raises(FrameInvalid) as caught:
        read(pieces, most_bytes)
    return caught.value.code


def test_a_talk_is_read_alike_in_one_piece_and_in_single_bytes() -> None:
    assert read([TALK]) == SAID
    assert read(bytes([byte]) for byte in TALK) == SAID


@given(st.lists(st.integers(0, len(TALK)), max_size=20))
def test_a_talk_is_read_alike_at_every_split(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TALK)]
    assert read(TALK[a:b] for a, b in pairwise(edges)) == SAID


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_a_mask_is_taken_off_as_it_was_put_on(data: bytes, key: bytes) -> None:
    assert unmask(data, key) == bytes(byte ^ key[number % 4] for number, byte in enumerate(data))


@given(st.binary(max_size=300))
def test_nothing_but_a_fault_comes_of_noise(noise: bytes) -> None:
    with suppress(FrameInvalid):
        read([noise])


@given(st.text())
def test_any_text_arrives_as_it_was_written(text: str) -> None:
    try:
        data = text.encode()
    except UnicodeEncodeError:  # surrogates: no text that could be sent
        return
    assert read([build_frame(TEXT, data)]) == [text]


def test_after_a_close_nothing_is_read() -> None:
    assert read([build_frame(CLOSE), b"\xff" * 20]) == [CloseFrame(NO_CODE)]


def test_after_a_fault_nothing_is_read() -> None:
    reader = FrameReader(MOST_BYTES)
    with pytest.raises(FrameInvalid):
        list(reader.read(build_frame(TEXT, b"\xff")))
    assert list(reader.read(build_frame(TEXT, b"x"))) == []


def test_half_a_message_is_let_go_at_the_end() -> None:
    reader = FrameReader(MOST_BYTES)
    list(reader.read(build_frame(TEXT, b"x" * 1000, is_final=False)))
    assert reader._message
    reader.end()
    assert not reader._message
    assert list(reader.read(build_frame(0, b"y"))) == []


def test_what_is_too_large_is_refused_by_its_head() -> None:
    assert fail(b"\x82\xfe" + (127).to_bytes(2, "big"), most_bytes=126) == 1009
    assert read([b"\x82\xfe" + (126).to_bytes(2, "big")], most_bytes=126) == []


def test_pieces_are_too_large_together() -> None:
    first = build_frame(BINARY, bytes(60), is_final=False)
    assert fail(first, build_frame(0, bytes(41))[:2], most_bytes=100) == 1009
    assert read([first, build_frame(0, bytes(40))], most_bytes=100) == [bytes(100)]


def test_text_that_is_none_is_refused_before_all_of_it_has_come() -> None:
    assert fail(build_frame(TEXT, b"x" * 10 + b"\xff" + b"x" * 1000)[:40]) == 1007
    assert fail(build_frame(TEXT, b"\xff", is_final=False)) == 1007


@pytest.mark.parametrize(("width", "length"), [(2, 125), (8, 65535)])
def test_a_length_that_is_written_too_long_is_a_fault(width: int, length: int) -> None:
    second = 0xFE if width == 2 else 0xFF
    assert fail(bytes([0x82, second]) + length.to_bytes(width, "big")) == 1002


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_there_are_codes_that_nobody_may_send(code: int) -> None:
    assert not is_code(code)
    assert fail(build_close(code)) == 1002


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_a_code_that_may_be_sent_is_read(code: int) -> None:
    assert read([build_close(code)]) == [CloseFrame(code)]
