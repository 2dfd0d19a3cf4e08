"""What every answer owes the gateway, shown with a dialect of one word an event."""

import tracemalloc

import pytest

from proxy.answer import StreamReader, WholeReader, not_an_answer, open_reader
from proxy.events import ChatEvent, Failed, Finished, TextDelta
from proxy.provider import Reader
from proxy.sse import ServerSentEvent

FINISHED = b"data: finish\n\n"
DONE = b"data: done\n\n"
ERROR = b"data: error\n\n"


class WordAnswer:
    """`finish`, `error` and `done` mean what they say, everything else is text."""

    def __init__(self) -> None:
        self.is_done = False

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        self.read_whole(event.data, events)

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        for word in body.split():
            if word == b"done":
                self.is_done = True
            elif word == b"finish":
                events.append(Finished("stop"))
            elif word == b"error":
                events.append(not_an_answer("x"))
            else:
                events.append(TextDelta(word.decode()))


def stream() -> StreamReader:
    return StreamReader("x", WordAnswer())


def whole(max_bytes: int = 1000) -> WholeReader:
    return WholeReader("x", WordAnswer(), max_bytes)


def read(reader: Reader, *pieces: bytes) -> list[ChatEvent]:
    return [event for piece in pieces for event in reader.feed(piece)] + reader.finish()


def kinds(events: list[ChatEvent]) -> list[str]:
    return [event.code if isinstance(event, Failed) else type(event).__name__ for event in events]


@pytest.mark.parametrize("media_type", ["text/event-stream", "Text/Event-Stream;charset=UTF-8"])
def test_an_event_stream_is_known_by_its_media_type(media_type: str) -> None:
    assert isinstance(open_reader("x", WordAnswer(), media_type), StreamReader)


@pytest.mark.parametrize("media_type", ["application/json", "application/problem+json"])
def test_json_is_a_whole_answer(media_type: str) -> None:
    assert isinstance(open_reader("x", WordAnswer(), media_type), WholeReader)


@pytest.mark.parametrize("media_type", ["", "text/plain; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("size", [1, 100])
def test_what_calls_itself_neither_shows_by_how_it_begins(media_type: str, size: int) -> None:
    said = {
        b"\xef\xbb\xbf\n: hello\n\ndata: a\n\n" + FINISHED: [TextDelta("a"), Finished("stop")],
        b"event: x\ndata: a\n\n" + FINISHED: [TextDelta("a"), Finished("stop")],
        b"  {a finish": [TextDelta("{a"), Finished("stop")],
    }
    for body, events in said.items():
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert read(open_reader("x", WordAnswer(), media_type), *pieces) == events
    assert kinds(read(open_reader("x", WordAnswer(), media_type)))[-1] == "parsing_error"


def test_an_answer_of_unknown_form_is_over_when_its_stream_is() -> None:
    reader = open_reader("x", WordAnswer(), "")
    assert not reader.is_done
    reader.feed(b"data: a\n\n" + FINISHED)
    assert not reader.is_done
    reader.feed(DONE)
    assert reader.is_done


def test_a_stream_says_what_its_events_say() -> None:
    events = read(stream(), b"data: a\n\nda", b"ta: b\n\n" + FINISHED)
    assert events == [TextDelta("a"), TextDelta("b"), Finished("stop")]


@pytest.mark.parametrize("body", [b"", b": nothing but a comment\n\n", b"data: a\n\n", b"data: a"])
def test_a_stream_that_is_cut_is_a_failure(body: bytes) -> None:
    assert kinds(read(stream(), body))[-1] == "network_error"


def test_a_stream_with_its_mark_of_the_end_is_complete() -> None:
    assert read(stream(), b"data: a\n\n" + DONE) == [TextDelta("a"), Finished("stop")]


def test_only_a_stream_can_say_that_it_is_over_before_its_body_is() -> None:
    for reader, is_done in ((stream(), [False, False, True]), (whole(), [False, False, False])):
        said = []
        for piece in (b"", FINISHED, DONE):
            reader.feed(piece)
            said.append(reader.is_done)
        assert said == is_done


def test_nothing_counts_after_the_mark_of_the_end() -> None:
    assert read(stream(), FINISHED + DONE + b"data: late\n\n", ERROR) == [Finished("stop")]


def test_an_answer_finishes_once() -> None:
    assert read(stream(), FINISHED + b"data: usage\n\n" + FINISHED) == [Finished("stop"), TextDelta("usage")]
    assert read(stream(), b"data: finish a finish\n\n") == [Finished("stop"), TextDelta("a")]


def test_nothing_comes_after_a_failure() -> None:
    reader = stream()
    assert kinds(reader.feed(b"data: a error b\n\ndata: c\n\n")) == ["TextDelta", "parsing_error"]
    assert reader.feed(b"data: d\n\n") == reader.finish() == []


def test_an_event_without_an_end_does_not_fill_the_memory() -> None:
    reader = stream()
    piece = b"data: " + b"x" * 1_000_000
    tracemalloc.start()
    events = [event for _ in range(60) for event in reader.feed(piece)]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kinds(events) == ["parsing_error"]
    assert reader.finish() == []
    assert peak_bytes < 40_000_000


def test_a_whole_answer_is_read_when_its_body_has_ended() -> None:
    reader = whole()
    assert reader.feed(b"a b fin") == reader.feed(b"ish") == []
    assert reader.finish() == [TextDelta("a"), TextDelta("b"), Finished("stop")]


def test_a_whole_answer_that_does_not_finish_is_none() -> None:
    assert kinds(read(whole(), b"a")) == ["TextDelta", "parsing_error"]


def test_a_whole_answer_ends_with_its_failure() -> None:
    assert kinds(read(whole(), b"a error finish")) == ["TextDelta", "parsing_error"]


def test_a_whole_answer_above_the_limit_is_refused_once() -> None:
    reader = whole(max_bytes=1000)
    events = [event for _ in range(50) for event in reader.feed(b" " * 100)]
    assert kinds(events) == ["parsing_error"]
    assert reader.finish() == []
