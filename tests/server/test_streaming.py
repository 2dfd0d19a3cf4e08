"""Chat events to an event stream, and the comments in between."""

import pytest
import trio
from trio.testing import MockClock

from proxy.events import ChatEvent, Failed
from proxy.sse import KEEP_ALIVE
from proxy.transport import Deadlines
from server.streaming import event_stream
from tests.proxy.calls import REQUEST, USER, open_bench, saying

IMPATIENT = Deadlines(connect_seconds=3, response_seconds=5, idle_seconds=40, write_seconds=11)


class Recorder:
    """An encoder whose bytes say nothing; it remembers the events."""

    def __init__(self) -> None:
        self.events: list[ChatEvent] = []

    def open(self) -> bytes:
        return b"open"

    def encode(self, events: list[ChatEvent]) -> bytes:
        self.events += events
        return b"events" if events else b""


@pytest.mark.parametrize("is_watched", [False, True])
async def test_comments_fill_a_silence_and_do_not_prolong_it(autojump_clock: MockClock, is_watched: bool) -> None:
    """The deadline of the silence counts from the provider's last word, not from our last comment."""
    encoder, sent = Recorder(), []
    async with open_bench(saying(2), deadlines=IMPATIENT) as bench, trio.open_nursery() as nursery:
        if is_watched:
            nursery.start_soon(bench.transport.watch_silence)
            await trio.lowlevel.checkpoint()
        started = trio.current_time()
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            sent = [data async for data in event_stream(chat, encoder, None, 15)]
        assert 40 <= trio.current_time() - started <= 40 * 9 / 8 + 1
        assert sent.count(KEEP_ALIVE) == 2
        last = encoder.events[-1]
        assert isinstance(last, Failed)
        assert last.code == "timeout_error"
        nursery.cancel_scope.cancel()
