"""The decoder at every split of the bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import KEEP_ALIVE, EventTooLarge, ServerSentEvent, SseDecoder, encode_event


def decode(*pieces: bytes, limit: int = 10_000) -> list[tuple[str, bytes]]:
    """Names and data."""
    decoder = SseDecoder(limit)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [(event.name, event.data) for event in events + decoder.finish()]


def data_of(*pieces: bytes) -> list[bytes]:
    return [data for _, data in decode(*pieces)]


NO_LINE_ENDS = "a\u2028b\u0085c\x0bd\x0ce\x1cf\u2029g".encode()
CASES = [
    (b"data: x\n\n", [("", b"x")]),
    (b"data: x\r\n\r\n", [("", b"x")]),
    (b"data: x\r\r", [("", b"x")]),
    (b"data: x\r\n\ndata: y\n\r\n", [("", b"x"), ("", b"y")]),
    (b"data:x\n\n", [("", b"x")]),
    (b"data:  x \n\n", [("", b" x ")]),
    (b"data: a\ndata:b\n\n", [("", b"a\nb")]),
    (b"data\n\n", [("", b"")]),
    (b"data:\ndata:\n\n", [("", b"\n")]),
    (b"data: a\r\ndata: b\rdata: c\n\r\n", [("", b"a\nb\nc")]),
    (b": comment\n\n:\n\ndata: x\n: in the middle\ndata: y\n\n", [("", b"x\ny")]),
    (b"event: e\ndata: x\n\ndata: y\n\n", [("e", b"x"), ("", b"y")]),
    (b"event: a\nevent: b\ndata: x\n\n", [("b", b"x")]),
    (b"event:e\r\ndata: x\r\n\r\n", [("e", b"x")]),
    (b"event: lost\n\ndata: x\n\n", [("", b"x")]),
    (b"id: 7\nretry: 10\nfoo: bar\ndatax: y\n data: z\ndata: x\n\n", [("", b"x")]),
    (b"\n\n\n\ndata: x\n\n\n\n", [("", b"x")]),
    (b"\xef\xbb\xbfdata: x\n\n", [("", b"x")]),
    (b"\xef\xbb\xbf\r\ndata: x\r\n\r\n", [("", b"x")]),
    (b"\xef\xbbdata: x\n\ndata: y\n\n", [("", b"y")]),
    (b"data: \xef\xbb\xbf\n\n", [("", b"\xef\xbb\xbf")]),
    (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [("", b"x")]),
    (b"data: " + NO_LINE_ENDS + b"\n\n", [("", NO_LINE_ENDS)]),
    (b"data: x", [("", b"x")]),
    (b"data: x\n", [("", b"x")]),
    (b"data: x\ndata: y", [("", b"x\ny")]),
    (b"data: x\r", [("", b"x")]),
    (b"data: \xff\xfe\n\n", [("", b"\xff\xfe")]),
    (b"event: \xff\ndata: x\n\n", [("\ufffd", b"x")]),
    (b"data: data: x\n\n", [("", b"data: x")]),
    (b"", []),
    (b"\xef", []),
    (b"event: e\n\n", []),
]


@pytest.mark.parametrize(("stream", "events"), CASES)
def test_a_stream_is_read_the_same_at_every_split(stream: bytes, events: list[tuple[str, bytes]]) -> None:
    assert decode(stream) == events
    assert decode(*(bytes([byte]) for byte in stream)) == events
    for first in range(len(stream) + 1):
        assert decode(stream[:first], stream[first:]) == events
        assert decode(stream[:first], b"", stream[first : first + 1], stream[first + 1 :]) == events


def test_an_event_comes_with_the_bytes_that_end_it() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\ndata: y") == [ServerSentEvent("", b"x")]
    assert decoder.feed(b"\r\r") == [ServerSentEvent("", b"y")]
    assert decoder.feed(b"\n") == []  # the rest of a CRLF, not another line


LINES = st.sampled_from(
    [b"data: x", b"data:y", b"data", b": c", b"event: e", b"", b"id", "data: \u2028 ü".encode(), b"\xef\xbb\xbfdata: z"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=12).map(b"".join)


@given(STREAMS | st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_no_split_changes_what_is_read(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert decode(*pieces) == decode(stream)


def read_plainly(stream: bytes) -> list[bytes]:
    """Data of the events, read as the specification says it and in no hurry."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[bytes] = []
    data: list[bytes] = []
    for line in [*text.split(b"\n"), b""]:
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            found.append(b"\n".join(data))
            data = []
    return found


@given(STREAMS)
def test_it_reads_what_the_specification_says(stream: bytes) -> None:
    assert data_of(stream) == read_plainly(stream)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=10).filter(lambda s: s[:1] != " ")


@given(NAMES, st.binary(max_size=50).filter(lambda data: not {10, 13} & set(data)))
def test_what_is_encoded_is_decoded_again(name: str, data: bytes) -> None:
    assert decode(encode_event(data, name)) == [(name, data)]


def test_a_keep_alive_is_no_event() -> None:
    assert decode(KEEP_ALIVE, encode_event(b"x"), KEEP_ALIVE) == [("", b"x")]


X60 = b"x" * 60


@pytest.mark.parametrize("piece", [b"data: " + X60, b"data: " + X60 + b"\n", b": " + X60, b"event: " + X60])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_event_above_the_limit_is_refused(piece: bytes, step: int) -> None:
    with pytest.raises(EventTooLarge):
        feed_in_steps(SseDecoder(100), piece * 3, step)


def feed_in_steps(decoder: SseDecoder, data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        decoder.feed(data[start : start + step])


def test_the_limit_is_for_one_event_and_not_for_all() -> None:
    decoder = SseDecoder(100)
    for _ in range(100):
        assert len(decoder.feed(b"data: " + b"x" * 90 + b"\n\n")) == 1


def test_many_short_lines_of_one_event_are_bounded_too() -> None:
    with pytest.raises(EventTooLarge):
        feed_in_steps(SseDecoder(100), b"data:\n" * 200, 6)
