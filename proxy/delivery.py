"""An answer that has begun, read by the task that delivers it to the client.

Until its first event an answer is the pump's, who may ask somebody else. From then on nothing stands between the
provider's socket and the client's but this: no task is woken for an event but the one that sends it on, and a slow
client slows the provider down.
"""

from collections.abc import Callable

import trio

from proxy.errors import UpstreamError
from proxy.events import ChatEvent, Failed
from proxy.exchange import Exchange
from proxy.provider import Reader


class Delivery:
    """For one task at a time; whoever opened the exchange keeps it open until `over` is set, and sets it if it cannot.

    `take` hears all events that are read, and returns those that go on. `look` sees what is read as it came, until it
    says that it has seen enough. A failure goes to `failure` or `error`, for whoever waits for `over` to deal with.
    """

    def __init__(
        self,
        exchange: Exchange,
        reader: Reader,
        take: Callable[[list[ChatEvent]], list[ChatEvent]],
        look: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.over = trio.Event()
        self.failure: Failed | None = None
        self.error: UpstreamError | None = None
        self._exchange = exchange
        self._reader = reader
        self._take = take
        self._look = look

    async def read_events(self) -> list[ChatEvent]:
        """What has come since, at least one event; empty when there is no more to read. Safe to cancel and repeat."""
        while not self.over.is_set():
            try:
                data = await self._exchange.receive_some()
            except UpstreamError as error:
                self.error = error
                self.over.set()
                break
            if events := self._take(self._read(data)):
                return events
        return []

    def _read(self, data: bytes) -> list[ChatEvent]:
        reader = self._reader
        if self._look is not None and self._look(data):
            self._look = None
        events = reader.feed(data) if data else reader.finish()
        if not data or reader.is_done:
            if data:
                events += reader.finish()
            self.over.set()
        last = events[-1] if events else None
        if isinstance(last, Failed):
            self.failure = last
            self.over.set()
            return events[:-1]
        return events
