"""Stripe's library, made to speak through our own transport: Trio, deadlines, nothing left behind, nothing in a log.

The transport is the one that providers are asked with, for httpx loses sockets when a request is cancelled while TLS is
agreed on. It knows no proxy, no redirect and no cookie, so the secret key goes to the configured host and to no other.
To import the library takes 0.2 s and 20 MB: only a server that sells does.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import stripe
import trio

from proxy.errors import RequestNotSendable, UpstreamError
from proxy.provider import UpstreamRequest
from proxy.transport import Deadlines, Transport, open_transport
from server.billing.settings import BillingSettings
from server.billing.stripe_failures import read_failure
from server.errors import ServerError, StripeUnavailable

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A hundred invoices with all their lines are about a megabyte."""
CONNECT_SECONDS = 5.0
MAX_RETRIES = 2
"""By the library, with the same idempotency key, for what it knows to be safe: no connection, 409 and 5xx."""

_build_connection_error: Callable[..., Exception] = stripe.APIConnectionError
"""Its constructor has no types."""

logger = logging.getLogger(__name__)


class TrioHttpClient(stripe.HTTPClient):
    """What the library sends its requests with. The blocking methods are as they were inherited: they refuse."""

    name = "trio"

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """The answer's header names are in lower case, which is also how the library looks for them, but for a notice
        that it would print.
        """
        request = UpstreamRequest(url, tuple(headers.items()), (post_data or "").encode(), method.upper())
        try:
            async with self._transport.open_exchange(request) as exchange:
                body = await exchange.receive_all(MAX_ANSWER_BYTES)
                status, headers = exchange.status, exchange.headers
        except UpstreamError as error:
            is_passing = not isinstance(error, RequestNotSendable)
            raise _build_connection_error(str(error), should_retry=is_passing) from error
        if not is_answer(status, body):
            raise _build_connection_error(f"no answer of Stripe's, with status {status}", should_retry=status >= 500)
        return body, status, headers

    async def sleep_async(self, secs: float) -> None:
        await trio.sleep(secs)


class StripeConnection:
    """The account's secret key and its connections. Made by `open_stripe_connection`."""

    def __init__(self, client: stripe.StripeClient, deadline_seconds: float) -> None:
        self._client = client
        self._deadline_seconds = deadline_seconds

    async def ask(
        self, method: str, path: str, form: Mapping[str, Any] | None = None, idempotency_key: str | None = None
    ) -> Mapping[str, Any]:
        """The object in the answer. Raises StripeUnavailable, StripeRefused and CardDeclined. Without a key a POST gets
        one of its own, so that a retry within this call is safe.
        """
        options = {} if idempotency_key is None else {"idempotency_key": idempotency_key}
        try:
            with trio.fail_after(self._deadline_seconds):
                answer = await self._client.raw_request_async(method, path, **(form or {}), **options)
        except trio.TooSlowError as error:
            raise StripeUnavailable("Stripe did not answer in time") from error
        except stripe.StripeError as error:
            raise _tell_failure(error, path) from None  # its message and body name people, and would be in a traceback
        return cast(Mapping[str, Any], answer.data)


@asynccontextmanager
async def open_stripe_connection(settings: BillingSettings) -> AsyncIterator[StripeConnection]:
    """Nobody is asked yet; leaving closes all connections. Of all that the library keeps for the whole process two
    switches alone are touched, and always in the same way.
    """
    stripe.enable_telemetry = False  # or it sends timings, and keeps an id in the home directory
    logging.getLogger("stripe").disabled = True  # it logs URLs, parameters and bodies
    seconds = settings.deadline_seconds
    async with open_transport(Deadlines(min(CONNECT_SECONDS, seconds), seconds, seconds, seconds)) as transport:
        client = stripe.StripeClient(
            settings.secret_key or "",
            stripe_version=settings.api_version,
            base_addresses={"api": settings.api_base},
            max_network_retries=MAX_RETRIES,
            http_client=TrioHttpClient(transport),
        )
        yield StripeConnection(client, seconds)


def is_answer(status: int, body: bytes) -> bool:
    """Whether it is an object, or Stripe's object for an error: the library fails in odd ways on anything else, as what
    stands in between us and Stripe may send it.
    """
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(answer, dict) and (status < 300 or isinstance(answer.get("error"), dict))


def _tell_failure(error: stripe.StripeError, path: str) -> ServerError:
    """What went wrong is told in the log by Stripe's own codes, and by the request's id, which its dashboard finds."""
    body = error.json_body if isinstance(error.json_body, Mapping) else {}
    details = body.get("error")
    is_replayed = (error.headers or {}).get("idempotent-replayed") == "true"
    failure = read_failure(
        error.http_status, details if isinstance(details, Mapping) else {}, is_replayed=is_replayed
    )
    found = {name: details.get(name) for name in ("type", "code", "param")} if isinstance(details, Mapping) else {}
    logger.info(
        "Stripe did not do what it was asked",
        extra={"collection": path.split("/")[2], "status": error.http_status, "request": error.request_id, **found},
    )
    if error.http_status in {401, 403}:
        logger.error("Stripe does not accept our secret key", extra={"status": error.http_status})
    return failure
