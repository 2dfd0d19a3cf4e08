"""Questions to the issuer over HTTP: small, with a deadline, each on a connection of its own.

By the transport that providers are asked with: it closes a connection at once, whenever who asked is cancelled. An HTTP
library that was tried lost the socket if that happened while TLS was agreed on.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

import trio

from proxy.errors import UpstreamError
from proxy.provider import UpstreamRequest
from proxy.transport import Deadlines, open_transport
from server.errors import IssuerUnavailable

MAX_ANSWER_BYTES = 1024 * 1024
CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Of whatever status. Redirects are not followed: no endpoint of the protocol has any."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class IssuerHttp:
    """`ssl_context` is made once: that costs 30 ms."""

    ssl_context: ssl.SSLContext = field(repr=False)
    total_seconds: float = TOTAL_SECONDS

    async def get(self, url: str, *, bearer: str | None = None) -> Answer:
        """Raises IssuerUnavailable if there is no answer in time, or one that is too large."""
        headers = [("Accept", "application/json"), *([("Authorization", f"Bearer {bearer}")] if bearer else [])]
        return await self._ask(UpstreamRequest(url, tuple(headers), b"", "GET"))

    async def post(self, url: str, form: Mapping[str, str]) -> Answer:
        """Raises as `get` does."""
        headers = (("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded"))
        return await self._ask(UpstreamRequest(url, headers, urlencode(form).encode(), "POST"))

    async def _ask(self, request: UpstreamRequest) -> Answer:
        """A sign-in asks twice at most, so nothing is kept for the next one."""
        seconds = self.total_seconds
        deadlines = Deadlines(min(CONNECT_SECONDS, seconds), seconds, seconds, seconds)
        try:
            with trio.fail_after(seconds):
                async with (
                    open_transport(deadlines, ssl_context=self.ssl_context) as transport,
                    transport.open_exchange(request) as exchange,
                ):
                    return Answer(exchange.status, await exchange.receive_all(MAX_ANSWER_BYTES))
        except trio.TooSlowError as error:
            raise IssuerUnavailable("the issuer did not answer in time") from error
        except UpstreamError as error:
            raise IssuerUnavailable(f"the issuer cannot be asked: {error}") from error
