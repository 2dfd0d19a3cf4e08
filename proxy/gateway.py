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
from proxy.audience import Audience, Nobody
from proxy.background import call_off
from proxy.chat import ChatRequest
from proxy.collected import Collected
from proxy.delivery import Delivery
from proxy.events import Cancelled, ChatEvent, Completed, Usage
from proxy.ledger import Allowance, Journal, Ledger, Settlement, Unlimited
from proxy.lookup import look_up
from proxy.meter import Meter
from proxy.pricing import cost_usd
from proxy.pump import Pump, Reach
from proxy.remote_files import take_away
from proxy.routing import Model, Upstream
from proxy.transcript import TranscriptRequest
from proxy.transcription import admit_transcription

UNLIMITED = Unlimited()
NOBODY = Nobody()
HOLD_SECONDS = 15
SETTLE_SECONDS = 10
"""How long an ending may take. A hold that could not be settled in time is settled by the next sweep."""
OWN_TASK_SECONDS = 1
"""So long the task that answers a client may take to settle a call that was cancelled: it may be stuck in writing."""
REMOVAL_SECONDS = 12
"""How long a file at a provider may keep a call that is settled and told: a few tries with their pauses."""
TRUE_UP_SECONDS = 2
"""Tokens that could not be given back in time leave their window by themselves."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Opens calls. `models` is asked anew for every call, for the catalogue can change."""

    models: Callable[[], Mapping[str, Model]]
    upstreams: Mapping[str, Upstream]
    reach: Reach
    ledger: Ledger
    journal: Journal
    audience: Audience = NOBODY

    @asynccontextmanager
    async def open_chat(
        self, user_id: UUID, request: ChatRequest, allowance: Allowance = UNLIMITED, api_key_id: UUID | None = None
    ) -> AsyncIterator["Chat"]:
        """Reserve, hold, call, and settle on the way out. `api_key_id`: of the key that asks, for its own limits.

        Raises ModelUnknown, ProviderNotConfigured, RequestNotSupported, ContextWindowExceeded, and what the allowance
        raises for too many tokens and the ledger for a balance too low; then nothing has been held and nobody has been
        called.
        """
        admission = await admit(self.models(), self.upstreams, user_id, request, api_key_id)
        async with self._open_admitted(admission, allowance) as chat:
            yield chat

    @asynccontextmanager
    async def open_transcription(
        self,
        user_id: UUID,
        request: TranscriptRequest,
        allowance: Allowance = UNLIMITED,
        api_key_id: UUID | None = None,
    ) -> AsyncIterator["Chat"]:
        """The same for a recording that is to be written down; whoever keeps its file keeps it until this has ended."""
        admission = admit_transcription(self.models(), self.upstreams, user_id, request, api_key_id)
        async with self._open_admitted(admission, allowance) as chat:
            yield chat

    @asynccontextmanager
    async def _open_admitted(self, admission: Admission, allowance: Allowance) -> AsyncIterator["Chat"]:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.fail_after(HOLD_SECONDS, shield=True):  # what has been drawn must not be left behind by a cancel
            await allowance.reserve(admission.estimated_tokens)
        chat: Chat | None = None
        try:
            async with self._open_held(admission) as held:
                chat = held
                yield held
        finally:
            used_tokens = 0 if chat is None else _count_tokens(chat.usage_so_far())
            with trio.move_on_after(TRUE_UP_SECONDS, shield=True):
                await allowance.true_up(used_tokens)

    @asynccontextmanager
    async def _open_held(self, admission: Admission) -> AsyncIterator["Chat"]:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.fail_after(HOLD_SECONDS, shield=True):  # a hold that stands must not be left behind by a cancel
            await self.ledger.hold(admission.hold)
        slot = self.journal.open_slot(admission.hold.id)
        meter = Meter(admission.hold.prompt_tokens, slot, admission.tokenizer)
        pump = Pump(self.reach, self.ledger, admission, meter)
        chat = Chat(admission, meter, pump, self.ledger)
        self.audience.note_started(chat)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump.run)
                yield chat
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(SETTLE_SECONDS, shield=True):
                await chat.settle()
            slot.clear() if chat.is_settled else slot.leave()
            self.audience.note_ended(chat, chat.settlement)
            with trio.move_on_after(REMOVAL_SECONDS, shield=True):
                await pump.remove_left()

    async def call_off(self, provider_code: str, upstream_id: str) -> Usage | None:
        """End an answer in the background whose call is lost; says what it has used if the provider does. A file that
        was uploaded for it is removed.

        Raises UpstreamError. Safe to repeat.
        """
        upstream = self.upstreams.get(provider_code)
        if upstream is None:
            return None
        await take_away(self.reach.transport, upstream, upstream_id)
        return await call_off(self.reach.transport, upstream, upstream_id)

    async def look_up(self, provider_code: str, upstream_id: str) -> Usage | None:
        """What an answer has used, asked of its provider afterwards; None if it cannot tell, or not yet.

        Raises UpstreamError. Safe to repeat.
        """
        upstream = self.upstreams.get(provider_code)
        return await look_up(self.reach.transport, upstream, upstream_id) if upstream else None

    @property
    def looks_up(self) -> list[str]:
        """The codes of the providers that can be asked so."""
        return [code for code, upstream in self.upstreams.items() if upstream.provider.lookup and upstream.is_usable]


class Chat:
    """An answer under way. Owned by `open_chat`; ask it for events until there are none."""

    def __init__(self, admission: Admission, meter: Meter, pump: Pump, ledger: Ledger) -> None:
        self.request_id = admission.hold.id
        self.user_id = admission.hold.user_id
        self.idempotency_key = admission.hold.idempotency_key
        self.answer_id = uuid4()
        self.model = admission.model
        self._pump = pump
        self._admission = admission
        self._meter = meter
        self._ledger = ledger
        self._delivery: Delivery | None = None
        self._handed_out: list[ChatEvent] = []
        self.is_settled = False
        self.settlement: Settlement | None = None
        self._settling = trio.Lock()
        self._settled = trio.Event()
        self._ended = False

    async def next_events(self) -> list[ChatEvent]:
        """The events that have come since, at least one; empty at the end.

        Asking for the next events says that the last ones have reached the client: only then are they counted. The
        last event is Completed or Cancelled, and when it comes the call has been settled, or Failed.
        """
        self._note_delivery()
        if self._ended:
            return []
        events = await self._receive_events()
        if not events:
            return await self._end()
        self._handed_out = events
        return events

    async def collect(self) -> Collected:
        """The whole answer, settled. Nothing of it reaches the client before its end: if it has none, nothing
        counts; of one that is cancelled, what the provider was asked for.
        """
        collected = Collected()
        batches: list[list[ChatEvent]] = []
        while events := await self._receive_events():
            collected.add(events)
            batches.append(events)
        if collected.ended is not None:  # nobody gets anything of it, whatever the provider says that it used
            self._meter.note_refused()
        elif not self._is_cancelled:
            for events in batches:
                self._meter.note_passed_on(events)
        collected.add(await self._end())
        return collected

    async def _receive_events(self) -> list[ChatEvent]:
        """Read by this task itself once the answer has begun; empty at the end."""
        if self._delivery is None:
            if handover := await self._pump.wait_handover():
                self._delivery = handover.delivery
                return handover.first
        elif events := await self._delivery.read_events():
            return events
        failure = await self._pump.wait_end()
        return [failure] if failure else []

    def usage_so_far(self) -> Usage:
        """The provider's word where it has come, else what was counted of what the client has."""
        return self._meter.usage

    async def cancel(self) -> bool:
        """For another task: end the call, whatever it does, and return when it has been charged as if the client had
        left at this moment. False if it was over before, and then nothing has changed. Safe to repeat and to cut off.
        """
        if self.is_settled or self._meter.outcome != "cancelled":
            return False
        self._pump.cancel()
        await self._pump.wait_over()
        with trio.move_on_after(OWN_TASK_SECONDS):
            await self._settled.wait()
        with trio.move_on_after(SETTLE_SECONDS, shield=True):
            await self.settle()
        return self.settlement is not None and self.settlement.outcome == "cancelled"

    async def settle(self) -> None:
        """Charge what was used. Safe to repeat. After an error the journal keeps the call for the sweep."""
        async with self._settling:  # who cancels a call may settle it while its own task does
            if self.is_settled:
                return
            try:
                self.settlement = self.settlement or self._build_settlement()  # what was tried may have been booked
                await self._ledger.settle(self.settlement)
            except Exception:  # the edge of the call: a client's answer must not depend on the accounts
                extra = {"call_id": self.request_id}
                logger.exception("a call could not be settled; the sweep will do it", extra=extra)
                return
            self.is_settled = True
            self._settled.set()

    def _note_delivery(self) -> None:
        if self._handed_out:
            self._meter.note_passed_on(self._handed_out)
            self._handed_out = []

    async def _end(self) -> list[ChatEvent]:
        self._ended = True
        with trio.move_on_after(SETTLE_SECONDS, shield=True):
            await self.settle()
        settlement = self.settlement or self._build_settlement()
        figures = settlement.usage, str(settlement.charge_usd), settlement.provisional
        if settlement.outcome == "completed":
            return [Completed(*figures)]
        return [Cancelled(*figures)] if self._is_cancelled else []

    @property
    def _is_cancelled(self) -> bool:
        """By its user, and by nothing else: whatever had ended it before counts."""
        return self._pump.is_called_off and self._meter.outcome == "cancelled"

    def _build_settlement(self) -> Settlement:
        hold, usage = self._admission.hold, self._meter.usage
        charge = cost_usd(self.model.price, usage)
        provisional, pump = self._meter.is_provisional, self._pump
        outcome, answered_by = self._meter.outcome, pump.provider_code
        return Settlement(hold.id, hold.user_id, outcome, charge, usage, provisional, answered_by, pump.upstream_id)


def _count_tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
