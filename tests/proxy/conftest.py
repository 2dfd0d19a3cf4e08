"""TLS for fake providers, and a transport that trusts them."""

import ssl
from collections.abc import AsyncIterator

import pytest

from proxy.transport import NetworkTransport, open_transport
from tests.fakes import build_tls
from tests.proxy.upstreams import PATIENT, Security


@pytest.fixture(scope="session")
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    return build_tls()


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Security:
    server, client = tls_contexts
    return Security(server if request.param == "tls" else None, client)


@pytest.fixture
async def transport(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[NetworkTransport]:
    async with open_transport(PATIENT, ssl_context=tls_contexts[1]) as transport:
        yield transport
