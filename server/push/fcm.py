"""FCM's HTTP v1 API: pushes to Android, over our own transport.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
"""

import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import certifi
import trio

from proxy.errors import RequestNotSendable, UpstreamError
from proxy.provider import UpstreamRequest
from proxy.transport import Deadlines, Exchange, Transport, build_ssl_context, open_transport
from server.push.fcm_answers import (
    CONFIGURATION_PAUSE_SECONDS,
    FOREIGN_SENDER,
    FcmAnswer,
    find_outcome,
    is_our_configuration,
    read_answer,
    tell_reason,
)
from server.push.fcm_message import build_message
from server.push.google_access import AccessRefused, AccessTokens, AccessUnavailable, build_access_tokens
from server.push.outcomes import Accepted, Later, Outcome, Refused
from server.push.settings import FcmSettings
from storage.deliveries import Delivery

MAX_REQUESTS = 32
"""At once; each has a connection of its own, for this is HTTP/1.1."""
ATTEMPT_SECONDS = 25.0
"""For one attempt, with its access token; waiting for one's turn is not in it."""
BODY_SECONDS = 1.0
DEADLINES = Deadlines(connect_seconds=5.0, response_seconds=15.0, idle_seconds=5.0, write_seconds=10.0)
"""Google asks not to send again before ten seconds are over."""
MAX_ANSWER_BYTES = 64 * 1024

logger = logging.getLogger(__name__)


class Fcm:
    """A Sender. Use open_fcm()."""

    loops: tuple[Callable[[], Awaitable[object]], ...] = ()

    def __init__(self, settings: FcmSettings, transport: Transport, access: AccessTokens) -> None:
        self._url = f"{settings.base_url}/v1/projects/{quote(settings.project_id)}/messages:send"
        self._transport = transport
        self._access = access
        self._limiter = trio.CapacityLimiter(MAX_REQUESTS)
        self._has_reached = False
        """Whether Google has taken any push of this process."""
        self._has_complained = False

    async def send(self, delivery: Delivery) -> Outcome:
        """See Sender. What Google may have taken is Later until it says so: a repetition replaces the first."""
        async with self._limiter:
            with trio.move_on_after(ATTEMPT_SECONDS):
                return await self._attempt(build_message(delivery, datetime.now(UTC)))
        return Later("FCM did not answer in time")

    async def _attempt(self, message: bytes) -> Outcome:
        try:
            return self._judge(await self._ask(message))
        except AccessRefused as error:
            self._complain(str(error))
            return Later(str(error), CONFIGURATION_PAUSE_SECONDS)
        except RequestNotSendable as error:
            return Refused(str(error))
        except (AccessUnavailable, UpstreamError) as error:
            return Later(str(error))

    async def _ask(self, message: bytes) -> FcmAnswer:
        """Once more with another access token if Google does not take this one. Raises AccessError, UpstreamError."""
        token = await self._access.read()
        answer = await self._ask_with(token, message)
        if answer.status != 401:
            return answer
        return await self._ask_with(await self._access.replace(token), message)

    async def _ask_with(self, token: str, message: bytes) -> FcmAnswer:
        headers = (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json; charset=utf-8"))
        async with self._transport.open_exchange(UpstreamRequest(self._url, headers, message)) as exchange:
            body = await _read_body(exchange)
            answer = read_answer(exchange.status, exchange.headers, body, datetime.now(UTC))
        if answer.is_acknowledged:
            self._access.confirm(token)
        return answer

    def _judge(self, answer: FcmAnswer) -> Outcome:
        """A token of another project is gone only if our own project is known to be the right one: else one mistaken
        setting would delete the tokens of all.
        """
        outcome = find_outcome(answer)
        if isinstance(outcome, Accepted):
            self._note_success()
        elif is_our_configuration(answer):
            self._complain(tell_reason(answer))
        elif answer.fcm_code == FOREIGN_SENDER and not self._has_reached:
            self._complain(FOREIGN_SENDER)
            return Later(FOREIGN_SENDER, CONFIGURATION_PAUSE_SECONDS)
        return outcome

    def _complain(self, reason: str) -> None:
        """Once, until Google takes a push again."""
        if not self._has_complained:
            logger.error("Google does not take our pushes: check FCM_SERVICE_ACCOUNT", extra={"reason": reason})
        self._has_complained = True

    def _note_success(self) -> None:
        if self._has_complained:
            logger.warning("Google takes our pushes again")
        self._has_reached, self._has_complained = True, False


@asynccontextmanager
async def open_fcm(settings: FcmSettings, ca_file: Path | None) -> AsyncIterator[Fcm]:
    """Nobody is asked yet; leaving closes all connections. `ca_file` holds further authorities to believe."""
    async with open_transport(DEADLINES, ssl_context=_build_ssl_context(ca_file)) as transport:
        yield Fcm(settings, transport, build_access_tokens(settings, transport, time.time))


async def _read_body(exchange: Exchange) -> bytes | None:
    """None if it broke off. Shielded, for a moment: whoever is cancelled between the head and the body must not lose
    that Google has taken the push, or it would be sent again.
    """
    with trio.move_on_after(BODY_SECONDS, shield=True):
        try:
            return await exchange.receive_all(MAX_ANSWER_BYTES)
        except UpstreamError:
            return None
    return None


def _build_ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """As the transport's own, which nobody may alter, and these authorities beside."""
    if ca_file is None:
        return build_ssl_context()
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context
