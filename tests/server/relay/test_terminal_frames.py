"""What carries a terminal's output, and what is said of terminals, byte for byte."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.relay.terminal_frames import (
    build_bind,
    build_bound,
    build_frame,
    build_refusal,
    build_unbind,
    encode_session,
    read_session,
)

VECTOR = bytes.fromhex("505443310003742d316869")


def test_the_published_vector_is_read_and_built() -> None:
    assert read_session(VECTOR) == b"t-1"
    assert build_frame(b"t-1", b"hi") == VECTOR


@pytest.mark.parametrize("size", range(9))
def test_a_frame_that_is_cut_short_is_none(size: int) -> None:
    assert read_session(VECTOR[:size]) is None


def test_a_frame_may_be_empty_but_for_its_session() -> None:
    assert read_session(VECTOR[:9]) == b"t-1"


@given(st.text(min_size=1, max_size=300).filter(lambda text: encode_session(text) is not None), st.binary())
def test_a_session_is_found_in_its_frame(session_id: str, data: bytes) -> None:
    encoded = encode_session(session_id)
    assert encoded is not None
    assert read_session(build_frame(encoded, data)) == encoded


@given(st.binary(max_size=40))
def test_whatever_comes_is_read_without_harm(data: bytes) -> None:
    for frame in (data, b"PTC1" + data):
        found = read_session(frame)
        assert found is None or frame[6:].startswith(found)


@pytest.mark.parametrize(
    ("session_id", "encoded"),
    [("", None), ("\ud800", None), ("x" * 65_535, b"x" * 65_535), ("x" * 65_536, None), ("ä", b"\xc3\xa4")],
)
def test_what_no_frame_can_name_is_no_session(session_id: str, encoded: bytes | None) -> None:
    assert encode_session(session_id) == encoded


def test_messages_are_as_the_apps_read_them() -> None:
    asked = {"sessionId": 'a"b', "includeSnapshot": True, "forceSnapshot": False}
    bind = build_bind('a"b', include_snapshot=True, force_snapshot=False)
    assert json.loads(bind) == {"type": "terminal.binary.bind", "payload": asked}
    named = {"sessionId": 'a"b'}
    assert json.loads(build_unbind('a"b')) == {"type": "terminal.binary.unbind", "payload": named}
    assert json.loads(build_bound('a"b')) == {"type": "terminal.binary.bound", "payload": named}


def test_a_refusal_has_a_code_a_text_and_a_time() -> None:
    refusal = json.loads(build_refusal("forwardFailed", datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)))
    assert refusal.pop("message")
    assert refusal == {"type": "error", "code": "forwardFailed", "timestamp": "2026-02-03T04:05:06.000000Z"}
