"""Stripe's library on our own transport: what goes out, what comes of a slow, broken or absent Stripe, what is left."""

import logging
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import stripe
import trio
import trustme

from proxy.transport import Deadlines, open_transport
from server.billing.stripe_http import MAX_RETRIES, TrioHttpClient, open_stripe_connection
from server.errors import StripeKeySpent, StripeRefused, StripeUnavailable
from tests.server.billing.stripe_server import StripeServer, hang, open_stripe_server, refuse, tell
from tests.stripe_stand_in.http_service import HungUp, Reply, Request, build_reply

CUSTOMER = {"id": "cus_1", "object": "customer"}
MAKE = "POST /v1/customers"
FIND = "GET /v1/customers/cus_1"
SECRETS = ("sk_test_0123456789", "ann@example.com", "Ann Example")


@pytest.fixture
async def server() -> AsyncIterator[StripeServer]:
    async with open_stripe_server() as server:
        yield server


async def hang_up(_: Request) -> Reply:
    raise HungUp


async def test_a_request_is_a_form_in_brackets_with_our_version_key_and_idempotency_key(server: StripeServer) -> None:
    server.on(MAKE, tell(CUSTOMER))
    async with open_stripe_connection(server.settings) as connection:
        form = {"name": "Ann & Bob", "metadata": {"user_id": "1"}, "lines": [{"cents": 5}], "on": True, "off": False}
        assert await connection.ask("post", "/v1/customers", form, "the-key") == CUSTOMER
    (request,) = server.requests
    assert request.body == b"name=Ann+%26+Bob&metadata[user_id]=1&lines[0][cents]=5&on=true&off=false"
    headers = request.headers
    assert headers["authorization"] == "Bearer sk_test_0123456789"
    assert headers["stripe-version"] == "2024-06-20"
    assert headers["idempotency-key"] == "the-key"
    assert headers["content-type"] == "application/x-www-form-urlencoded"


async def test_stripe_is_not_told_how_we_fare(server: StripeServer) -> None:
    server.on(FIND, tell(CUSTOMER))
    async with open_stripe_connection(server.settings) as connection:
        await connection.ask("get", "/v1/customers/cus_1")
        await connection.ask("get", "/v1/customers/cus_1")
    for request in server.requests:
        assert "x-stripe-client-telemetry" not in request.headers
        assert "telemetry_id" not in request.headers["x-stripe-client-user-agent"]


async def test_a_fault_that_stripe_repeats_for_its_key_is_told_from_a_new_one(server: StripeServer) -> None:
    fault = {"error": {"type": "api_error"}}
    replayed = build_reply(500, fault, **{"Idempotent-Replayed": "true", "Stripe-Should-Retry": "false"})
    server.on(MAKE, build_reply(500, fault, **{"Stripe-Should-Retry": "false"}), replayed)
    kinds: list[type[Exception]] = []
    async with open_stripe_connection(server.settings) as connection:
        for _ in range(2):
            with pytest.raises(StripeUnavailable) as caught:
                await connection.ask("post", "/v1/customers", {}, "key")
            kinds.append(caught.type)
    assert kinds == [StripeUnavailable, StripeKeySpent]


async def test_a_get_puts_its_parameters_into_the_query(server: StripeServer) -> None:
    server.on(FIND, tell(CUSTOMER))
    async with open_stripe_connection(server.settings) as connection:
        await connection.ask("get", "/v1/customers/cus_1", {"expand": ["tax_ids"]})
    (request,) = server.requests
    assert (request.query, request.body) == ("expand[0]=tax_ids", b"")
    assert "idempotency-key" not in request.headers


async def test_what_broke_is_asked_again_with_the_same_key(
    server: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    server.on(MAKE, hang_up, refuse(503, "", "api_error"), tell(CUSTOMER))
    async with open_stripe_connection(server.settings) as connection:
        assert await connection.ask("post", "/v1/customers", {}) == CUSTOMER
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert (len(server.requests), len(keys)) == (MAX_RETRIES + 1, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_stripe_that_is_not_well_is_unavailable(
    server: StripeServer, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    server.on(FIND, refuse(status, "", "api_error"))
    async with open_stripe_connection(server.settings) as connection:
        with pytest.raises(StripeUnavailable):
            await connection.ask("get", "/v1/customers/cus_1")


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"\xff", b'{"error": 3}'])
@pytest.mark.parametrize("status", [200, 404])
async def test_what_is_no_answer_of_stripes_decides_nothing(server: StripeServer, status: int, body: bytes) -> None:
    server.on(FIND, Reply(status, body))
    async with open_stripe_connection(server.settings) as connection:
        if (status, body) == (200, b'{"error": 3}'):
            assert await connection.ask("get", "/v1/customers/cus_1") == {"error": 3}
            return
        with pytest.raises(StripeUnavailable):
            await connection.ask("get", "/v1/customers/cus_1")


async def test_a_stripe_that_does_not_answer_is_given_up_at_the_deadline(server: StripeServer) -> None:
    server.on(FIND, hang)
    async with open_stripe_connection(replace(server.settings, deadline_seconds=0.05)) as connection:
        with pytest.raises(StripeUnavailable, match="in time"):
            await connection.ask("get", "/v1/customers/cus_1")


async def test_a_stripe_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    async with open_stripe_server() as server:
        settings = server.settings
    async with open_stripe_connection(settings) as connection:
        with pytest.raises(StripeUnavailable):
            await connection.ask("get", "/v1/customers/cus_1")


async def test_a_redirect_is_not_followed_for_the_key_would_go_elsewhere(server: StripeServer) -> None:
    server.on(FIND, Reply(302, b"", {"Location": f"{server.url}/v1/elsewhere"}))
    async with open_stripe_connection(server.settings) as connection:
        with pytest.raises(StripeUnavailable):
            await connection.ask("get", "/v1/customers/cus_1")
    assert server.questions == [FIND]


async def test_nothing_secret_reaches_a_log_an_error_or_a_repr(
    server: StripeServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="stripe")
    server.on(MAKE, tell({**CUSTOMER, "email": "ann@example.com"}), refuse(400, "email_invalid", param="email"))
    form = {"email": "ann@example.com", "name": "Ann Example"}
    async with open_stripe_connection(server.settings) as connection:
        await connection.ask("post", "/v1/customers", form)
        with pytest.raises(StripeRefused) as caught:
            await connection.ask("post", "/v1/customers", form)
        logging.getLogger("test").error("it failed", exc_info=caught.value)
        seen = caplog.text + str([record.__dict__ for record in caplog.records])
        seen += repr(caught.value) + repr(connection) + repr(server.settings) + "".join(capsys.readouterr())
    assert "email_invalid" in seen
    assert "req_refused" in seen
    for secret in SECRETS:
        assert secret not in seen


async def test_a_key_that_stripe_does_not_take_is_an_error_in_the_log_and_nothing_is_given_up(
    server: StripeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.on(FIND, refuse(401, ""))
    async with open_stripe_connection(server.settings) as connection:
        with pytest.raises(StripeUnavailable):
            await connection.ask("get", "/v1/customers/cus_1")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_connection_is_kept_for_the_next_question(server: StripeServer) -> None:
    server.on(FIND, tell(CUSTOMER))
    before = count_sockets()
    async with open_stripe_connection(server.settings) as connection:
        for _ in range(5):
            await connection.ask("get", "/v1/customers/cus_1")
        await trio.testing.wait_all_tasks_blocked()
        assert count_sockets() == before + 2  # its two ends, both in this process
    await wait_sockets(before)


async def test_a_storm_of_cancelled_requests_leaves_no_socket_and_a_working_pool(server: StripeServer) -> None:
    """A slow server with TLS, and clients that leave while they connect, agree on TLS, send, wait or read."""
    chance = random.Random(5)  # noqa: S311 - not for secrets
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    before = count_sockets()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_slowly, theirs, chance))
        async with open_transport(Deadlines(5, 5, 5, 5), ssl_context=ours) as transport:
            client = stripe.StripeClient(
                "sk_test_0123456789",
                base_addresses={"api": f"https://127.0.0.1:{port}"},
                http_client=TrioHttpClient(transport),
            )
            async with trio.open_nursery() as storm:
                for _ in range(200):
                    storm.start_soon(leave_soon, client, chance.uniform(0, 0.03))
                    await trio.sleep(0.001)
            assert transport.open_connections == transport.idle_connections
            with trio.fail_after(5):
                for _ in range(10):
                    await client.raw_request_async("get", "/v1/customers/cus_1")
        nursery.cancel_scope.cancel()
    await wait_sockets(before)


async def leave_soon(client: stripe.StripeClient, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await client.raw_request_async("post", "/v1/customers", name="Ann")


async def serve_slowly(
    context: ssl.SSLContext, chance: random.Random, *, task_status: trio.TaskStatus[int]
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        try:
            await trio.sleep(chance.uniform(0, 0.005))
            tls = trio.SSLStream(stream, context, https_compatible=True, server_side=True)
            while await tls.receive_some(65536):
                await trio.sleep(chance.uniform(0, 0.01))
                await tls.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
                await trio.sleep(chance.uniform(0, 0.005))
                await tls.send_all(b"}")
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(answer, listeners)


def count_sockets() -> int:
    return sum(descriptor.is_socket() for descriptor in Path("/proc/self/fd").iterdir())


async def wait_sockets(number: int) -> None:
    """The other end needs a moment to notice."""
    with trio.fail_after(5):
        while count_sockets() > number:
            await trio.sleep(0.005)
