"""Pushes to iOS: one attempt at a time for each, at the environment where its token is at home."""

import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import trio

from server.push.apns_answers import (
    CONFIGURATION_PAUSE_SECONDS,
    ApnsAnswer,
    find_outcome,
    find_remedy,
    is_our_configuration,
    may_be_our_mistake,
    read_answer,
)
from server.push.apns_connection import ApnsLink, ConnectionTimes, Peer
from server.push.apns_request import ApnsRequest, build_request
from server.push.apns_streams import Unanswered
from server.push.apns_token import ProviderTokens
from server.push.outcomes import Accepted, Later, Outcome
from server.push.settings import ApnsSettings
from storage.deliveries import Delivery
from storage.push_tokens import PushEnvironment

SEND_SECONDS = 20.0
"""For one attempt, connecting and a second environment included."""

_OTHER: Mapping[PushEnvironment, PushEnvironment] = {"production": "sandbox", "sandbox": "production"}

logger = logging.getLogger(__name__)


class Apns:
    """Any number of tasks send at the same time, while the `loops` run. Use `open_apns`."""

    def __init__(
        self, settings: ApnsSettings, tokens: ProviderTokens, links: Mapping[PushEnvironment, ApnsLink]
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._links = links
        self._told: Mapping[PushEnvironment, set[str]] = {name: set() for name in links}
        self._reached: set[PushEnvironment] = set()
        """Where a push of this process has been accepted."""
        self.loops: tuple[Callable[[], Awaitable[object]], ...] = tuple(link.keep_connected for link in links.values())

    async def send(self, delivery: Delivery) -> Outcome:
        """See Sender. Cancelled, it is called off at once; it may have arrived."""
        request = build_request(delivery, self._settings.bundle_id)
        with trio.move_on_after(SEND_SECONDS):
            return await self._send(request, delivery.environment or self._settings.environment)
        return Later("APNs did not answer in time")

    async def _send(self, request: ApnsRequest, home: PushEnvironment) -> Outcome:
        """A token says nothing of where it is at home, so what is bad in one environment is asked for in the other.
        Only if neither knows it, it is gone.
        """
        answer = await self._ask(request, home)
        if isinstance(answer, Unanswered) or find_remedy(answer) != "other_environment":
            return self._conclude(answer, home)
        elsewhere = await self._ask(request, _OTHER[home])
        if isinstance(elsewhere, ApnsAnswer) and _ends_search(elsewhere):
            return self._conclude(answer, home)
        return self._conclude(elsewhere, _OTHER[home])

    async def _ask(self, request: ApnsRequest, environment: PushEnvironment) -> ApnsAnswer | Unanswered:
        """Once more if it was our own token that was refused, and there is another one."""
        token = self._tokens.take()
        answer = await self._ask_as(token, request, environment)
        if isinstance(answer, Unanswered) or find_remedy(answer) != "new_token":
            return answer
        renewed = self._tokens.renew(token)
        return answer if renewed is None else await self._ask_as(renewed, request, environment)

    async def _ask_as(self, token: str, request: ApnsRequest, environment: PushEnvironment) -> ApnsAnswer | Unanswered:
        headers = (("authorization", f"bearer {token}"), *request.headers)
        answer = await self._links[environment].ask(request.path, headers, request.body)
        if isinstance(answer, Unanswered):
            return answer
        read = read_answer(answer.status, answer.headers, answer.body, datetime.now(UTC))
        if read.reason == "TooManyProviderTokenUpdates":
            self._tokens.slow_down()
        return read

    def _conclude(self, answer: ApnsAnswer | Unanswered, environment: PushEnvironment) -> Outcome:
        """A token that is for another app or environment is gone only if ours are known to be the right ones: else one
        mistaken setting would delete the tokens of all.
        """
        if isinstance(answer, Unanswered):
            return Later(answer.reason, answer.after_seconds)
        outcome = find_outcome(answer, environment)
        if isinstance(outcome, Accepted):
            self._told[environment].clear()
            self._reached.add(environment)
        elif is_our_configuration(answer):
            self._tell(answer, environment)
        elif may_be_our_mistake(answer) and environment not in self._reached:
            self._tell(answer, environment)
            return Later(answer.reason, CONFIGURATION_PAUSE_SECONDS)
        return outcome

    def _tell(self, answer: ApnsAnswer, environment: PushEnvironment) -> None:
        """Once until a push has been accepted again, not for every push."""
        if answer.reason not in self._told[environment]:
            self._told[environment].add(answer.reason)
            logger.error(
                "APNs does not accept our configuration: pushes wait until it is mended",
                extra={"status": answer.status, "reason": answer.reason, "environment": environment},
            )


def _ends_search(elsewhere: ApnsAnswer) -> bool:
    """Whether the other environment does not know the token either, or does not know us: our key may be for one of the
    two alone.
    """
    is_unknown = find_remedy(elsewhere) == "other_environment"
    return is_unknown or (bool(elsewhere.reason) and is_our_configuration(elsewhere))


@asynccontextmanager
async def open_apns(
    settings: ApnsSettings, ca_file: Path | None, times: ConnectionTimes | None = None
) -> AsyncIterator[Apns]:
    """Nobody is connected to before somebody sends; connections live and end in the `loops`."""
    context = await trio.to_thread.run_sync(build_ssl_context, ca_file)
    urls: Mapping[PushEnvironment, str] = {"production": settings.production_url, "sandbox": settings.sandbox_url}
    links = {name: ApnsLink(build_peer(url, context), times or ConnectionTimes()) for name, url in urls.items()}
    yield Apns(settings, ProviderTokens(settings, trio.current_time, time.time), links)


def build_ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates and host names are checked, HTTP/2 is the only protocol, and nothing is renegotiated."""
    context = ssl.create_default_context(cafile=certifi.where())
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def build_peer(url: str, context: ssl.SSLContext) -> Peer:
    """Of a URL as the settings have it: https, without a path."""
    parts = urlsplit(url)
    return Peer(parts.hostname or "", parts.port or 443, parts.netloc, context)
