"""One call, from admission to settlement.

Everything that can be refused is refused before money is held; money is held before the provider hears of the call; and
however the call ends, leaving `open_chat` closes the provider's connection at once and settles the hold exactly once.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import trio

from proxy.admission import Admission, admit
from proxy.chat import ChatEvent, ChatRequest, Completed, Failed, Usage
from proxy.collected import Collected
from proxy.errors import UpstreamError
from proxy.failures import failed_here, failed_upstream
from proxy.ledger import Journal, Ledger, Settlement
from proxy.meter import Meter
from proxy.pricing import cost_usd, is_chargeable
from proxy.provider import UpstreamRequest
from proxy.routing import Model, Upstream
from proxy.transport import Exchange, Transport

HOLD_SECONDS = 15
END_SECONDS = 0.5
SETTLE_SECONDS = 10
"""How long an ending may take. A hold that could not be settled in time is settled by the next sweep."""
CALL_SECONDS = 1740
"""The longest that a provider may take for one answer."""
MAX_REFUSAL_BYTES = 64 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Opens calls. `models` is asked anew for every call, for the catalogue can change."""

    models: Callable[[], Mapping[str, Model]]
    upstreams: Mapping[str, Upstream]
    transport: Transport
    ledger: Ledger
    journal: Journal

    @asynccontextmanager
    async def open_chat(self, user_id: UUID, request: ChatRequest) -> AsyncIterator["Chat"]:
        """Hold, call, and settle on the way out.

        Raises ModelUnknown, ProviderNotConfigured, RequestNotSupported, ContextWindowExceeded, and what the ledger
        raises for a balance too low; then nothing has been held and nobody has been called.
        """
        admission = await admit(self.models(), self.upstreams, user_id, request)
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.fail_after(HOLD_SECONDS, shield=True):  # a hold that stands must not be left behind by a cancel
            await self.ledger.hold(admission.hold)
        slot = self.journal.open_slot(admission.hold.id)
        meter = Meter(admission.hold.prompt_tokens, slot)
        send, receive = trio.open_memory_channel[list[ChatEvent]](0)
        chat = Chat(admission, meter, receive, self.ledger)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, self.transport, admission, meter, send)
                yield chat
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(SETTLE_SECONDS, shield=True):
                await chat.settle()
            slot.clear() if chat.is_settled else slot.leave()


class Chat:
    """An answer under way. Owned by `open_chat`; ask it for events until there are none."""

    def __init__(
        self, admission: Admission, meter: Meter, receive: trio.MemoryReceiveChannel[list[ChatEvent]], ledger: Ledger
    ) -> None:
        self.request_id = admission.hold.id
        self.answer_id = uuid4()
        self.model = admission.route.model
        self._admission = admission
        self._meter = meter
        self._receive = receive
        self._ledger = ledger
        self._handed_out: list[ChatEvent] = []
        self.is_settled = False
        self._ended = False

    async def next_events(self) -> list[ChatEvent]:
        """The events that have come since, at least one; empty at the end.

        Asking for the next events says that the last ones have reached the client: only then are they counted. The
        last event is Completed, and when it comes the call has been settled, or Failed.
        """
        self._note_delivery()
        if self._ended:
            return []
        try:
            events = await self._receive.receive()
        except trio.EndOfChannel:
            return await self._end()
        self._handed_out = events
        return events

    def next_events_nowait(self) -> list[ChatEvent] | None:
        """The same for events that wait already; None where one has to wait."""
        try:
            events = self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return None
        self._note_delivery()
        self._handed_out = events
        return events

    async def collect(self) -> Collected:
        """The whole answer, settled. Nothing of it reaches the client before its end: if it has none, nothing
        counts.
        """
        collected = Collected()
        batches: list[list[ChatEvent]] = []
        async for events in self._receive:
            collected.add(events)
            batches.append(events)
        if collected.ended is None:
            for events in batches:
                self._meter.note_passed_on(events)
        collected.add(await self._end())
        return collected

    async def settle(self) -> None:
        """Charge what was used. Safe to repeat. After an error the journal keeps the call for the sweep."""
        if self.is_settled:
            return
        try:
            await self._ledger.settle(self._build_settlement())
        except Exception:  # the edge of the call: a client's answer must not depend on the accounts
            logger.exception("a call could not be settled; the sweep will do it", extra={"request_id": self.request_id})
            return
        self.is_settled = True

    def _note_delivery(self) -> None:
        if self._handed_out:
            self._meter.note_passed_on(self._handed_out)
            self._handed_out = []

    async def _end(self) -> list[ChatEvent]:
        self._ended = True
        with trio.move_on_after(SETTLE_SECONDS, shield=True):
            await self.settle()
        if self._meter.outcome != "completed":
            return []
        settlement = self._build_settlement()
        return [Completed(settlement.usage, str(settlement.charge_usd), settlement.provisional)]

    def _build_settlement(self) -> Settlement:
        hold, usage = self._admission.hold, self._meter.usage
        charge = cost_usd(self._admission.route.model.price, usage)
        return Settlement(hold.id, hold.user_id, self._meter.outcome, charge, usage, self._meter.is_provisional)


async def pump(
    transport: Transport, admission: Admission, meter: Meter, send: trio.MemorySendChannel[list[ChatEvent]]
) -> None:
    """From the provider to the channel, whose size is zero: a client that reads slowly slows the provider down."""
    async with send:
        failure: Failed | None = None
        try:
            with trio.fail_after(CALL_SECONDS):
                await _pump_answer(transport, admission, meter, send)
        except UpstreamError as error:
            logger.warning("a provider failed", extra={"request_id": admission.hold.id, "reason": str(error)})
            if meter.outcome != "completed":  # an answer that had its end is whole, whatever became of the connection
                failure = failed_upstream(admission.route.provider.code, error)
        except trio.TooSlowError:
            failure = failed_here(admission.route.provider.code, "timeout_error", "the answer took too long")
        except Exception:  # the edge of the task: the client gets an event, the log the traceback
            logger.exception("a call failed in our own code", extra={"request_id": admission.hold.id})
            failure = failed_here(admission.route.provider.code, "internal_error", "the answer could not be read")
        if failure is not None:
            meter.note_read([failure])
            await send.send([failure])


async def _pump_answer(
    transport: Transport, admission: Admission, meter: Meter, send: trio.MemorySendChannel[list[ChatEvent]]
) -> None:
    provider, request_id = admission.route.provider, admission.hold.id
    async with transport.open_exchange(_with_request_id(admission.upstream_request, request_id)) as exchange:
        if exchange.status != 200:
            failed = provider.read_refusal(exchange.status, exchange.headers, await _receive_refusal(exchange))
            reason = {"status": exchange.status, "code": failed.code, "type": failed.provider_error_type}
            logger.warning("a provider refused a call", extra={"request_id": request_id, **reason})
            await _pass_on([failed], admission, meter, send)
            return
        meter.note_accepted()
        reader = provider.open_reader(exchange.headers.get("content-type", ""))
        while data := await exchange.receive_some():
            if events := reader.feed(data):
                await _pass_on(events, admission, meter, send)
                if isinstance(events[-1], Failed):
                    return
            if reader.is_done:
                await _receive_end(exchange)
                break
        if events := reader.finish():
            await _pass_on(events, admission, meter, send)


async def _receive_end(exchange: Exchange) -> None:
    """The answer has said that it is over. Its last bytes, if they come at once, let the connection be used again."""
    with trio.move_on_after(END_SECONDS):
        await exchange.receive_some()


async def _receive_refusal(exchange: Exchange) -> bytes:
    """The body of a refusal; nothing if it is too long or broken off, for then the status says enough."""
    try:
        return await exchange.receive_all(MAX_REFUSAL_BYTES)
    except UpstreamError:
        return b""


async def _pass_on(
    events: list[ChatEvent], admission: Admission, meter: Meter, send: trio.MemorySendChannel[list[ChatEvent]]
) -> None:
    """Usage that cannot be stops here: neither the meter nor a client could make anything of it."""
    if any(isinstance(event, Usage) for event in events):
        events = [event for event in events if _can_be(event, admission)]
    meter.note_read(events)
    if events:
        await send.send(events)


def _can_be(event: ChatEvent, admission: Admission) -> bool:
    if not isinstance(event, Usage) or is_chargeable(admission.route.model.price, event):
        return True
    logger.error("a provider reported usage that cannot be", extra={"request_id": admission.hold.id})
    return False


def _with_request_id(request: UpstreamRequest, request_id: UUID) -> UpstreamRequest:
    """The provider's logs can be matched with ours."""
    headers = (*request.headers, ("X-Request-ID", str(request_id)))
    return UpstreamRequest(request.url, headers, request.body, request.method)
