"""The task that brings a provider's answer to the client: whom it asks, how often, and for how long.

Before the first event has been passed on a failure may be made good: by another key, by the catalogue's next provider,
and by the last one again after a pause. After it the client has a part of one answer, and a failure ends it.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from math import inf
from uuid import UUID

import trio

from proxy.admission import Admission
from proxy.background import Notes, open_background
from proxy.breaker import Breakers, counts_against
from proxy.delivery import Delivery
from proxy.errors import RequestNotSupported, UpstreamError
from proxy.events import ChatEvent, Failed, Usage
from proxy.failures import failed_here, failed_upstream, is_transient, may_be_the_key
from proxy.ledger import Ledger
from proxy.meter import Meter
from proxy.pricing import is_chargeable
from proxy.provider import Lookup, ProviderCall, Target, UpstreamRequest
from proxy.remote_files import FileNotes, Removal, open_uploaded
from proxy.routing import Route
from proxy.transport import Exchange, Transport

END_SECONDS = 0.5
MAX_REFUSAL_BYTES = 64 * 1024
RETRIES = 2
FIRST_PAUSE_SECONDS = 0.5
MAX_LOOKS = 20
"""Reads of a body in which the provider's id is looked for: all chunks have it, but comments may come first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take; how long a provider may be silent in each phase is the transport's.

    `first_token_seconds` bounds the time to the first event of each attempt, `total_seconds` the whole call, and
    `retry_seconds` the time from its start within which another pause may end.
    """

    first_token_seconds: float
    total_seconds: float
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class Reach:
    """How this process reaches providers: over what, sparing those that fail, and with how much patience."""

    transport: Transport
    breakers: Breakers
    patience: Patience


@dataclass(frozen=True, slots=True)
class Handover:
    """An answer that has begun, and its first events."""

    delivery: Delivery
    first: list[ChatEvent]


class Pump:
    """Brings one answer: `run` does, and whoever delivers it waits for the handover and then for the end."""

    def __init__(self, reach: Reach, ledger: Ledger, admission: Admission, meter: Meter) -> None:
        self._handover: Handover | None = None
        self._failure: Failed | None = None
        self._is_over = False
        self._news = trio.Event()
        """Of the next thing to happen: the handover, or the end."""
        self._ledger = ledger
        self._transport = reach.transport
        self._breakers = reach.breakers
        self._patience = reach.patience
        self._admission = admission
        self._meter = meter
        self._started = trio.current_time()
        self._has_begun = False
        self._ends_at = self._started + self._patience.total_seconds
        self._scope = trio.CancelScope()
        """Of the attempt under way: until its first event, and then until the call must be over."""
        self._whole = trio.CancelScope()
        """Of all attempts together."""
        self.provider_code = admission.routes[0].provider.code
        """The provider that was asked last: the one that answers."""
        self.upstream_id: str | None = None
        """That provider's id for its answer, if it can be asked later what the answer has used."""
        self._left: list[Removal] = []

    async def run(self) -> None:
        """Until the answer is over. Whatever goes wrong is an event for the client, and a log entry for us."""
        failure: Failed | None = None
        try:
            with self._whole:
                failure = await self._ask_providers()
        except Exception:  # the edge of the task: the client gets an event, the log the traceback
            logger.exception("a call failed in our own code", extra={"call_id": self._call_id})
            failure = failed_here(self.provider_code, "internal_error", "the answer could not be read")
        finally:
            if failure is not None:
                self._end_with(failure)
            self._is_over = True
            self._news.set()

    def cancel(self) -> None:
        """Whatever it does, it stops; the provider's connection closes at once, which wakes whoever reads from it. Safe
        to repeat.
        """
        self._whole.cancel()

    @property
    def is_called_off(self) -> bool:
        """Whether it was told to stop; perhaps it was over by then."""
        return self._whole.cancel_called

    async def wait_handover(self) -> Handover | None:
        """Once; None if the call has ended without an answer."""
        while self._handover is None and not self._is_over:
            await self._news.wait()
        handover, self._handover = self._handover, None
        return handover

    async def wait_end(self) -> Failed | None:
        """What went wrong, if something did; told once."""
        await self.wait_over()
        failure, self._failure = self._failure, None
        return failure

    async def wait_over(self) -> None:
        """Nothing more is asked of a provider, and nothing of this call is left there."""
        while not self._is_over:
            await self._news.wait()

    async def remove_left(self) -> None:
        """What is still at a provider although the call is over. For its end: nobody waits for this but the call."""
        while self._left:
            await self._left.pop()()

    @property
    def _call_id(self) -> UUID:
        return self._admission.hold.id

    async def _ask_providers(self) -> Failed | None:
        """Each of them once, and the last one that can be asked a few times more, until one answers.

        If none does: what the first one had to say.
        """
        routes, first = iter(self._admission.routes), None
        chosen = await self._choose(routes)
        while chosen is not None:
            failure = await self._try_keys(chosen)
            following = await self._choose(routes) if failure and is_transient(failure) else None
            if failure and not following:
                failure = await self._retry(chosen, failure)
            if failure is None:
                return None
            await self._note_failure(chosen.route, failure)
            is_fallback = chosen.route is not self._admission.routes[0]
            first, chosen = replace(first or failure, fallback_attempted=is_fallback), following
        return first or _nobody_asked(self.provider_code)

    async def _choose(self, routes: Iterator[Route]) -> "_Chosen | None":
        """The next of them that can do what the request asks for, and is not given a rest."""
        for route in routes:
            call = self._build_call(route, route.targets[0])
            if call is not None and await self._breakers.admit(route.provider.code, route.model.id):
                return _Chosen(route, call)
        return None

    async def _retry(self, chosen: "_Chosen", failure: Failed) -> Failed | None:
        """What it says in the end, when there is nobody else to ask: with one key, for the others have said no too."""
        code, model = chosen.route.provider.code, chosen.route.model.id
        for retry in range(RETRIES):
            if not is_transient(failure) or not await self._pause(failure, retry):
                break
            if not await self._breakers.admit(code, model):
                break
            again = await self._attempt(chosen.route, chosen.call)
            if again is None:
                return None
            failure = again
        return failure

    async def _pause(self, failure: Failed, retry: int) -> bool:
        """As long as the provider asks, or longer every time and never the same; False if that would be too long."""
        wanted = max(failure.retry_after_seconds or 0, FIRST_PAUSE_SECONDS * 2**retry)
        seconds = wanted * random.uniform(1, 1.25)  # noqa: S311 - not for secrets
        if trio.current_time() + seconds > self._started + self._patience.retry_seconds:
            return False
        logger.info("a provider is asked again", extra={"call_id": self._call_id, "pause_seconds": seconds})
        await trio.sleep(seconds)
        return True

    async def _try_keys(self, chosen: "_Chosen") -> Failed | None:
        """With each of our keys, as long as another one may help."""
        route = chosen.route
        failure = await self._attempt(route, chosen.call)
        for target in route.targets[1:]:
            call = self._build_call(route, target) if failure and _may_help(failure) else None
            if call is None:
                break
            failure = await self._attempt(route, call)
        return failure

    def _build_call(self, route: Route, target: Target) -> ProviderCall | None:
        """None where the provider cannot do what the request asks for."""
        try:
            return self._admission.build_call(route, target)
        except RequestNotSupported as error:
            reason = {"call_id": self._call_id, "provider": route.provider.code, "reason": str(error)}
            logger.info("a provider cannot stand in for another", extra=reason)
            return None

    async def _attempt(self, route: Route, call: ProviderCall) -> Failed | None:
        """Ask once. None if the answer began, however it ended; else the failure, and nothing is owed for it."""
        self.provider_code, self.upstream_id = route.provider.code, None
        seconds = inf if call.background or call.answers_late else self._patience.first_token_seconds
        failure: Failed | None = None
        try:
            with trio.CancelScope(deadline=min(trio.current_time() + seconds, self._ends_at)) as self._scope:
                failure = await self._bring(call, route.provider.lookup)
        except UpstreamError as error:
            logger.warning("a provider failed", extra={"call_id": self._call_id, "reason": str(error)})
            if self._meter.outcome != "completed":  # an answer that had its end is whole, whatever comes after
                failure = failed_upstream(self.provider_code, error)
        if self._scope.cancelled_caught:
            is_total = trio.current_time() >= self._ends_at
            told = "the answer took too long" if is_total else "the provider did not begin its answer in time"
            failure = failed_here(self.provider_code, "timeout_error", told)
        if failure is None:
            return None
        if self._has_begun:
            await self._note_failure(route, failure)
            self._end_with(failure)
            return None
        self._meter.note_refused()
        return failure

    async def _note_failure(self, route: Route, failure: Failed) -> None:
        """Once a provider and call, however often it was asked: one client must not outvote the others."""
        code, model = route.provider.code, route.model.id
        if counts_against(failure):
            await self._breakers.note_failure(code, model, failure.retry_after_seconds)
        elif not self._has_begun:
            await self._breakers.note_success(code, model)

    async def _bring(self, call: ProviderCall, lookup: Lookup | None) -> Failed | None:
        """The answer of one attempt, handed over when it has begun. What it returns has not been told to anybody."""
        async with self._open_exchange(call) as exchange:
            if exchange.status != 200:
                return await self._read_refusal(call, exchange)
            self._meter.note_accepted()
            reader = call.open_reader(exchange.headers.get("content-type", ""))
            delivery = Delivery(exchange, reader, self._take, self._look_for_id(exchange, lookup))
            events = await self._wait_begun(delivery)
            if events:
                await self._hand_over(delivery, events)
            if delivery.error is not None:
                raise delivery.error
            if reader.is_done and delivery.failure is None:
                await _receive_end(exchange)
            return delivery.failure

    async def _wait_begun(self, delivery: Delivery) -> list[ChatEvent]:
        """The first events. Usage alone is no beginning: it is held back until there is something to be charged for."""
        held_back: list[ChatEvent] = []
        while events := await delivery.read_events():
            held_back += events
            if not all(isinstance(event, Usage) for event in events):
                return held_back
        return []

    async def _hand_over(self, delivery: Delivery, events: list[ChatEvent]) -> None:
        """The client's task reads on by itself; this one keeps the connection open until that is done."""
        self._has_begun = True
        self._admission.forget_request()
        self._scope.deadline = self._ends_at
        try:
            await self._breakers.note_success(self.provider_code, self._admission.model.id)
            self._handover = Handover(delivery, events)
            begun, self._news = self._news, trio.Event()
            begun.set()
            await delivery.over.wait()
        finally:
            delivery.over.set()

    def _look_for_id(self, exchange: Exchange, lookup: Lookup | None) -> Callable[[bytes], bool] | None:
        """What has to see the body for it; None if the head has it, or nobody will ask."""
        if lookup is None:
            return None
        read_id, headers, looks = lookup.read_id, exchange.headers, iter(range(MAX_LOOKS))
        self.upstream_id = read_id(headers, b"")

        def look(data: bytes) -> bool:
            self.upstream_id = read_id(headers, data)
            return self.upstream_id is not None or next(looks, None) is None

        return None if self.upstream_id else look

    def _take(self, events: list[ChatEvent]) -> list[ChatEvent]:
        """Usage that cannot be stops here: neither the meter nor a client could make anything of it."""
        for event in events:
            if isinstance(event, Usage):
                events = [event for event in events if self._can_be(event)]
                break
        self._meter.note_read(events)
        return events

    def _end_with(self, failure: Failed) -> None:
        is_fallback = self.provider_code != self._admission.routes[0].provider.code
        failure = replace(failure, fallback_attempted=failure.fallback_attempted or is_fallback)
        self._meter.note_read([failure])
        self._failure = failure

    def _can_be(self, event: ChatEvent) -> bool:
        if not isinstance(event, Usage) or is_chargeable(self._admission.model.price, event):
            return True
        logger.error("a provider reported usage that cannot be", extra={"call_id": self._call_id})
        return False

    def _open_exchange(self, call: ProviderCall) -> AbstractAsyncContextManager[Exchange]:
        request = _with_request_id(call.request, self._call_id)
        if call.upload is not None:
            file_notes = FileNotes(self._note_begun, self._left.append)
            return open_uploaded(self._transport, request, call.upload, file_notes)
        if call.background is None:
            return self._transport.open_exchange(request)
        notes = Notes(self._note_begun, self._note_called_off)
        return open_background(self._transport, request, call.background, notes)

    async def _note_begun(self, upstream_id: str) -> None:
        """So that an answer is called off, and a file removed, also if this process dies."""
        try:
            await self._ledger.note_upstream(self._call_id, self.provider_code, upstream_id)
        except Exception:  # the edge of the call: an answer must not depend on the accounts
            logger.exception("what a call has at its provider could not be noted", extra={"call_id": self._call_id})

    def _note_called_off(self, usage: Usage) -> None:
        if self._can_be(usage):
            self._meter.note_read([usage])

    async def _read_refusal(self, call: ProviderCall, exchange: Exchange) -> Failed:
        failed = call.read_refusal(exchange.status, exchange.headers, await _receive_refusal(exchange))
        reason = {"status": exchange.status, "code": failed.code, "type": failed.provider_error_type}
        logger.warning("a provider refused a call", extra={"call_id": self._call_id, **reason})
        return failed


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A provider that is asked, with the call for its first key."""

    route: Route
    call: ProviderCall


def _may_help(failure: Failed) -> bool:
    """Whether another key may."""
    return is_transient(failure) or may_be_the_key(failure)


def _nobody_asked(provider: str) -> Failed:
    message = "the model's provider keeps failing and is given a rest; try again in a moment"
    return Failed("provider_unavailable", message, provider, retry_after_seconds=5)


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


def _with_request_id(request: UpstreamRequest, call_id: UUID) -> UpstreamRequest:
    """The provider's logs can be matched with ours."""
    headers = (*request.headers, ("X-Request-ID", str(call_id)))
    return replace(request, headers=headers)
