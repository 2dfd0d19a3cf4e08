"""An answer that a provider makes in the background for minutes: asked for once, looked up until it is over.

It has the shape of an exchange, so that the rest need not know. The id that the provider gives must not be lost, for
without it nobody could call the answer off: it is waited for even when the client has gone meanwhile. Whoever leaves
before the end calls the answer off at the provider; a finished one is deleted there.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from proxy.errors import UpstreamBroken, UpstreamError
from proxy.events import Usage
from proxy.provider import Background, BackgroundState, Target, UpstreamRequest
from proxy.routing import Upstream
from proxy.transport import Exchange, Transport

CREATE_SECONDS = 60
END_SECONDS = 10
FIRST_PAUSE_SECONDS = 2.0
LAST_PAUSE_SECONDS = 5.0
PAUSE_GROWTH = 1.1
CALL_OFF_PAUSES_SECONDS = (0.5, 2.0)
"""Before a provider that could not call an answer off is asked again: what is not called off works on, at our cost."""
MAX_FAILED_LOOKUPS = 10
"""In a row. A provider that cannot be looked up for a moment goes on with its work all the same."""
MAX_BODY_BYTES = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notes:
    """Who wants to know: under which id the answer is being made, and what one has used that was called off."""

    begun: Callable[[str], Awaitable[None]]
    called_off: Callable[[Usage], None]


@asynccontextmanager
async def open_background(
    transport: Transport, request: UpstreamRequest, background: Background, notes: Notes
) -> AsyncIterator[Exchange]:
    """Raises UpstreamError."""
    exchange: BackgroundExchange | None = None
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CREATE_SECONDS):
            exchange = BackgroundExchange(transport, background, await _ask(transport, request))
            if exchange.id is not None:
                await notes.begun(exchange.id)
        if exchange is None:
            raise UpstreamBroken("the provider did not say that it began")
        yield exchange
    finally:
        if exchange is not None:
            with trio.move_on_after(END_SECONDS, shield=True):
                await exchange.end(notes)


async def call_off(transport: Transport, upstream: Upstream, id_: str) -> Usage | None:
    """End an answer whose call is lost, and say what it has used, as far as the provider tells.

    Which of our keys it belongs to is not known: the others find nothing. Raises UpstreamError, and then it may go on.
    """
    build = upstream.provider.build_background
    if build is None:
        return None
    for key in upstream.api_keys:
        background = build(Target(upstream.base_url, key, ""))
        body = await _call_off(transport, background, id_)
        if background.read_state(body) is not None:
            await _delete(transport, background, id_)
            return background.read_usage(body)
    return None


class BackgroundExchange:
    """One answer under way. Its body comes at its end, in one piece."""

    def __init__(self, transport: Transport, background: Background, reply: _Reply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._transport = transport
        self._background = background
        self._body = reply.body
        self._state: BackgroundState | None = background.read_state(reply.body) if reply.status == 200 else None

    async def receive_some(self) -> bytes:
        """The whole answer, as soon as it is over; then b""."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while self._state is not None and not self._state.is_over:
            await trio.sleep(pause_seconds + random.uniform(0, 0.5))  # noqa: S311 - not for secrets
            pause_seconds = min(pause_seconds * PAUSE_GROWTH, LAST_PAUSE_SECONDS)
            reply = await self._look_up(self._state.id)
            self._body, self._state = reply.body, self._background.read_state(reply.body) or self._state
        await trio.lowlevel.checkpoint_if_cancelled()
        body, self._body = self._body, b""
        return body

    async def receive_all(self, limit_bytes: int) -> bytes:
        body = await self.receive_some()
        return body[:limit_bytes]

    @property
    def id(self) -> str | None:
        """While it is under way."""
        return self._state.id if self._state is not None and not self._state.is_over else None

    async def end(self, notes: Notes) -> None:
        """Leave nothing at the provider: neither an answer under way nor one that was read."""
        if self._state is None:
            return
        try:
            if not self._state.is_over:
                usage = self._background.read_usage(await _call_off(self._transport, self._background, self._state.id))
                if usage is not None:
                    notes.called_off(usage)
            await _delete(self._transport, self._background, self._state.id)
        except UpstreamError as error:
            logger.warning("an answer in the background could not be ended", extra={"reason": str(error)})

    async def _look_up(self, id_: str) -> _Reply:
        """Raises UpstreamError when it has failed many times in a row."""
        for failed in range(1, MAX_FAILED_LOOKUPS + 1):
            try:
                reply = await _ask(self._transport, self._background.build_lookup(id_))
            except UpstreamError:
                if failed == MAX_FAILED_LOOKUPS:
                    raise
            else:
                if reply.status == 200:
                    return reply
            await trio.sleep(LAST_PAUSE_SECONDS)
        raise UpstreamBroken("the provider no longer says how far an answer in the background is")


async def _call_off(transport: Transport, background: Background, id_: str) -> bytes:
    """What the provider says of it then. Raises UpstreamError if it goes on after all."""
    for pause_seconds in CALL_OFF_PAUSES_SECONDS:
        with suppress(UpstreamError):
            return await _try_to_call_off(transport, background, id_)
        await trio.sleep(pause_seconds)
    return await _try_to_call_off(transport, background, id_)


async def _try_to_call_off(transport: Transport, background: Background, id_: str) -> bytes:
    """It may have ended meanwhile, or may be unknown to this key, and then there is nothing to cancel."""
    reply = await _ask(transport, background.build_cancel(id_))
    if reply.status != 200:
        reply = await _ask(transport, background.build_lookup(id_))
    state = background.read_state(reply.body) if reply.status == 200 else None
    if reply.status == 429 or reply.status >= 500 or (state is not None and not state.is_over):
        raise UpstreamBroken(f"the provider did not call an answer off, with status {reply.status}")
    return reply.body


async def _delete(transport: Transport, background: Background, id_: str) -> None:
    """What it has used is known by now, and must not be lost with this."""
    try:
        await _ask(transport, background.build_delete(id_))
    except UpstreamError as error:
        logger.warning("an answer in the background could not be deleted", extra={"reason": str(error)})


async def _ask(transport: Transport, request: UpstreamRequest) -> _Reply:
    async with transport.open_exchange(request) as exchange:
        return _Reply(exchange.status, exchange.headers, await exchange.receive_all(MAX_BODY_BYTES))
