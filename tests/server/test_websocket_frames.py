"""Frames as a server sends them, in bytes."""

import pytest

from server.websocket_frames import build_binary, build_close, build_ping, build_pong, build_text


def test_an_unmasked_text_is_that_of_the_standard() -> None:
    """https://www.rfc-editor.org/rfc/rfc6455#section-5.7"""
    assert build_text(b"Hello") == bytes.fromhex("81 05 48 65 6c 6c 6f")
    assert build_ping(b"Hello") == bytes.fromhex("89 05 48 65 6c 6c 6f")
    assert build_pong(b"Hello") == bytes.fromhex("8a 05 48 65 6c 6c 6f")


@pytest.mark.parametrize(
    ("size", "head"),
    [(125, "82 7d"), (126, "82 7e 00 7e"), (65535, "82 7e ff ff"), (65536, "82 7f 00 00 00 00 00 01 00 00")],
)
def test_a_length_is_written_as_short_as_it_can_be(size: int, head: str) -> None:
    assert build_binary(bytes(size)) == bytes.fromhex(head) + bytes(size)


def test_a_close_says_why() -> None:
    assert build_close(4001, "größer") == b"\x88\x0a\x0f\xa1" + "größer".encode()
    assert build_close(None) == b"\x88\x00"


def test_a_reason_that_is_too_long_is_cut_between_letters() -> None:
    frame = build_close(1000, "x" * 122 + "ä")
    assert frame == b"\x88\x7c\x03\xe8" + b"x" * 122
