"""An answer that has begun, read by whoever delivers it."""

from collections.abc import Callable, Iterable, Mapping

import trio
from trio.testing import MockClock

from proxy.delivery import Delivery
from proxy.dialects.openai_chat import open_reader
from proxy.errors import UpstreamBroken
from proxy.events import ChatEvent, Failed, Finished, TextDelta, Usage
from proxy.sse import encode_event

WORD = encode_event(b'{"choices":[{"index":0,"delta":{"content":"word"}}]}')
USAGE = encode_event(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}')
FINISH = encode_event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
DONE = encode_event(b"[DONE]")
ERROR = encode_event(b'{"error":{"message":"no more","code":503}}')
HALF = WORD[:20]


class FakeExchange:
    """Gives these pieces, one a second; at an exception it breaks. Complete after the last."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, pieces: Iterable[bytes | Exception]) -> None:
        self._pieces = list(pieces)

    async def receive_some(self) -> bytes:
        await trio.sleep(1)
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def receive_all(self, limit_bytes: int) -> bytes:
        raise NotImplementedError


def deliver(
    *pieces: bytes | Exception,
    take: Callable[[list[ChatEvent]], list[ChatEvent]] = lambda events: events,
    look: Callable[[bytes], bool] | None = None,
) -> Delivery:
    return Delivery(FakeExchange(pieces), open_reader("x", "text/event-stream"), take, look)


async def read_all(delivery: Delivery) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    while batch := await delivery.read_events():
        events += batch
    return events


async def test_an_answer_is_read_to_its_end(autojump_clock: MockClock) -> None:
    delivery = deliver(WORD, HALF, WORD[20:] + FINISH, USAGE + DONE)
    assert await read_all(delivery) == [TextDelta("word")] * 2 + [Finished("stop"), Usage(3, output_tokens=1)]
    assert delivery.over.is_set()
    assert (delivery.failure, delivery.error) == (None, None)
    assert await delivery.read_events() == []


async def test_the_mark_of_its_end_ends_it_though_the_connection_stays(autojump_clock: MockClock) -> None:
    delivery = deliver(WORD + FINISH + DONE, WORD)
    assert await delivery.read_events() == [TextDelta("word"), Finished("stop")]
    assert delivery.over.is_set()


async def test_a_failure_is_for_whoever_owns_the_connection(autojump_clock: MockClock) -> None:
    delivery = deliver(WORD + ERROR, WORD)
    assert await read_all(delivery) == [TextDelta("word")]
    assert isinstance(delivery.failure, Failed)
    assert delivery.over.is_set()
    cut = deliver(WORD)
    assert await read_all(cut) == [TextDelta("word")]
    assert cut.failure is not None
    assert cut.failure.code == "network_error"


async def test_a_broken_connection_is_too(autojump_clock: MockClock) -> None:
    error = UpstreamBroken("gone")
    delivery = deliver(WORD, error)
    assert await read_all(delivery) == [TextDelta("word")]
    assert delivery.error is error
    assert delivery.over.is_set()


async def test_a_read_that_is_given_up_loses_nothing(autojump_clock: MockClock) -> None:
    delivery = deliver(WORD, WORD + FINISH)
    events: list[ChatEvent] = []
    while not delivery.over.is_set():
        with trio.move_on_after(0.4):
            events += await delivery.read_events()
        with trio.move_on_after(1.5):
            events += await delivery.read_events()
    assert events == [TextDelta("word")] * 2 + [Finished("stop")]


async def test_what_is_taken_away_is_not_passed_on(autojump_clock: MockClock) -> None:
    heard: list[ChatEvent] = []

    def take(events: list[ChatEvent]) -> list[ChatEvent]:
        heard.extend(events)
        return [event for event in events if not isinstance(event, Usage)]

    delivery = deliver(USAGE, WORD + FINISH, take=take)
    assert await read_all(delivery) == [TextDelta("word"), Finished("stop")]
    assert len(heard) == 3


async def test_whoever_looks_sees_what_came_until_it_has_seen_enough(autojump_clock: MockClock) -> None:
    seen: list[bytes] = []

    def look(data: bytes) -> bool:
        seen.append(data)
        return len(seen) == 2

    assert await read_all(deliver(HALF, WORD[20:], WORD + FINISH, look=look)) != []
    assert seen == [HALF, WORD[20:]]


async def test_nothing_is_read_when_it_is_over(autojump_clock: MockClock) -> None:
    delivery = deliver(WORD)
    delivery.over.set()
    assert await delivery.read_events() == []
