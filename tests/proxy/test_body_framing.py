from itertools import pairwise

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.body_framing import (
    MAX_LINE_BYTES,
    MAX_TRAILER_BYTES,
    Body,
    ChunkedBody,
    EndlessBody,
    FramingBroken,
    SizedBody,
    build_body,
)

EXTENSIONS = st.sampled_from([b"", b";a", b";name=value", b' ; q="x y"'])
TRAILERS = st.lists(st.sampled_from([b"x-checksum: 1\r\n", b"server-timing: a;dur=1\r\n"]), max_size=3)
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), EXTENSIONS), max_size=6)


def feed_split(body: Body, data: bytes, cuts: list[int]) -> bytes:
    points = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join(body.feed(data[start:end]) for start, end in pairwise(points))


def encode(chunks: list[tuple[bytes, bytes]], trailers: list[bytes]) -> bytes:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks)
    return framed + b"0\r\n" + b"".join(trailers) + b"\r\n"


@given(CHUNKS, TRAILERS, st.lists(st.integers(min_value=0, max_value=1000), max_size=8))
def test_a_chunked_body_is_the_same_however_it_is_split(
    chunks: list[tuple[bytes, bytes]], trailers: list[bytes], cuts: list[int]
) -> None:
    body = ChunkedBody()
    payload = feed_split(body, encode(chunks, trailers), cuts)
    assert payload == b"".join(data for data, _ in chunks)
    assert body.is_complete
    assert not body.has_excess


@given(CHUNKS, TRAILERS)
def test_a_chunked_body_may_come_byte_by_byte(chunks: list[tuple[bytes, bytes]], trailers: list[bytes]) -> None:
    data = encode(chunks, trailers)
    body = ChunkedBody()
    payload = b""
    for index in range(len(data)):
        assert not body.is_complete
        payload += body.feed(data[index : index + 1])
    assert body.is_complete
    assert payload == b"".join(chunk for chunk, _ in chunks)


@given(CHUNKS, st.data())
def test_a_chunked_body_that_is_cut_anywhere_is_never_complete(
    chunks: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    whole = encode(chunks, [])
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    body = ChunkedBody()
    body.feed(whole[:cut])
    with pytest.raises(FramingBroken):
        body.feed_end()


def read_with_h11(data: bytes) -> bytes | None:
    """The payload as h11 sees it; None if that refuses or waits for more."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + data)
    connection.next_event()
    payload = b""
    try:
        while isinstance(event := connection.next_event(), h11.Data):
            payload += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    return payload if isinstance(event, h11.EndOfMessage) else None


PLAIN_CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.just(b"")), max_size=6)


@given(PLAIN_CHUNKS, st.integers(min_value=0), st.binary(max_size=3), st.integers(min_value=0, max_value=3))
@example(chunks=[(b"abc", b"")], position=0, replacement=b"+", removed=0)
@example(chunks=[(b"abc", b"")], position=0, replacement=b"0x", removed=0)
@example(chunks=[(b"abc", b"")], position=1, replacement=b"\n", removed=2)
def test_h11_never_takes_a_chunked_body_for_another(
    chunks: list[tuple[bytes, bytes]], position: int, replacement: bytes, removed: int
) -> None:
    data = encode(chunks, [])
    position %= len(data)
    data = data[:position] + replacement + data[position + removed :]
    body = ChunkedBody()
    try:
        payload = body.feed(data)
    except FramingBroken:
        return
    if body.is_complete:  # h11 also reads the trailers that are skipped here, and may refuse those
        assert read_with_h11(data) in {payload, None}


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcX",
        b"3\r\nabc\rX",
        b"1" * 17 + b"\r\n",
        b"3;" + b"x" * MAX_LINE_BYTES,
        b"0\r\nx: 1\n",
        b"0\r\n" + b"x: 1\r\n" * (MAX_TRAILER_BYTES // 4),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_malformed_chunks_are_refused(data: bytes, step: int) -> None:
    with pytest.raises(FramingBroken):
        feed_split(ChunkedBody(), data, list(range(0, len(data), step)))


def test_bytes_after_the_last_chunk_are_noticed_and_not_given_out() -> None:
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK") == b"a"
    assert body.is_complete
    assert body.has_excess


def test_bytes_that_follow_a_complete_body_later_are_noticed() -> None:
    body = ChunkedBody()
    body.feed(b"0\r\n\r\n")
    assert not body.has_excess
    assert body.feed(b"x") == b""
    assert body.has_excess


@given(st.binary(max_size=60), st.lists(st.integers(min_value=0, max_value=100), max_size=5))
def test_a_sized_body_is_the_same_however_it_is_split(content: bytes, cuts: list[int]) -> None:
    body = SizedBody(len(content))
    assert feed_split(body, content, cuts) == content
    assert body.is_complete
    body.feed_end()


def test_a_sized_body_that_is_short_is_broken() -> None:
    body = SizedBody(3)
    body.feed(b"ab")
    with pytest.raises(FramingBroken, match="lacks 1 bytes"):
        body.feed_end()


def test_a_sized_body_gives_out_no_more_than_its_size() -> None:
    body = SizedBody(3)
    assert body.feed(b"abcd") == b"abc"
    assert body.has_excess


def test_a_body_without_a_size_lasts_until_the_connection_ends() -> None:
    body = EndlessBody()
    assert body.feed(b"abc") == b"abc"
    assert not body.is_complete
    body.feed_end()
    assert body.is_complete


@pytest.mark.parametrize(
    ("method", "status", "headers", "kind"),
    [
        ("POST", 200, {"transfer-encoding": "chunked", "content-length": "3"}, ChunkedBody),
        ("POST", 200, {"content-length": "3"}, SizedBody),
        ("POST", 200, {}, EndlessBody),
        ("POST", 204, {}, SizedBody),
        ("GET", 304, {"content-length": "3"}, SizedBody),
        ("HEAD", 200, {"content-length": "3"}, SizedBody),
    ],
)
def test_the_head_decides_how_the_body_is_framed(
    method: str, status: int, headers: dict[str, str], kind: type[Body]
) -> None:
    body = build_body(method, status, headers)
    assert isinstance(body, kind)
    assert body.is_complete == (status != 200 or method == "HEAD")
