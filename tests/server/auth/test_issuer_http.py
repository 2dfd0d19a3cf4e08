"""Questions to the issuer over real sockets: whatever does not answer as it should is an outage, told in time."""

import logging
import ssl
from collections.abc import Iterable

import pytest
import trio
import trio.testing

from proxy.transport import build_ssl_context
from server.auth.issuer_http import MAX_ANSWER_BYTES, Answer, IssuerHttp
from server.errors import IssuerUnavailable
from tests.fakes import (
    Close,
    Pause,
    Reset,
    Send,
    SendChunk,
    Step,
    WaitForClose,
    build_tls,
    open_fake_upstream,
    response,
    stream_head,
)

SECONDS = 0.3
CONTEXT = build_ssl_context()
HTTP = IssuerHttp(CONTEXT, SECONDS)
PATIENT = IssuerHttp(CONTEXT)


async def ask(script: Iterable[Step], http: IssuerHttp = PATIENT) -> Answer:
    """Raises IssuerUnavailable bare, which the fake's nursery would wrap."""
    async with open_fake_upstream(script) as upstream:
        try:
            return await http.get(f"{upstream.url}/x")
        except IssuerUnavailable as error:
            failure = error
    raise failure


async def test_an_answer_of_any_status_is_an_answer() -> None:
    assert await ask(response(200, b"{}")) == Answer(200, b"{}")
    assert await ask(response(500, b"oh")) == Answer(500, b"oh")
    assert await ask(response(302, b"", {"location": "http://[bad"})) == Answer(302, b"")


async def test_a_redirect_is_not_followed() -> None:
    async with open_fake_upstream(response(200, b"secret")) as other:
        answer = await ask(response(302, b"", {"location": f"{other.url}/x"}))
        assert answer.status == 302
        assert other.requests == []


async def test_a_form_and_a_bearer_are_sent() -> None:
    async with open_fake_upstream(response(200, b"{}")) as upstream:
        await PATIENT.post(f"{upstream.url}/token", {"a": "b c", "d": "é&="})
        await PATIENT.get(f"{upstream.url}/userinfo", bearer="abc")
        posted, got = upstream.requests
        assert posted.body == b"a=b+c&d=%C3%A9%26%3D"
        assert posted.headers["content-type"] == "application/x-www-form-urlencoded"
        assert got.headers["authorization"] == "Bearer abc"
        assert got.headers["accept-encoding"] == "identity"
        assert len(upstream.connections) == 2


async def test_proxies_of_the_environment_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_fake_upstream(response(502, b"")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert (await ask(response(200, b"{}"))).status == 200
        assert proxy.connections == []


OUTAGES = [
    pytest.param([WaitForClose()], id="says nothing"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\nContent-Le"), WaitForClose()], id="half a head"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), WaitForClose()], id="half a body"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), Close()], id="ends in the middle"),
    pytest.param([stream_head(), *([SendChunk(b" "), Pause(SECONDS / 4)] * 40)], id="drips"),
    pytest.param([Reset()], id="resets"),
    pytest.param([Close()], id="closes"),
    pytest.param([Send(b"SSH-2.0-OpenSSH_9.6\r\n"), WaitForClose()], id="speaks another protocol"),
    pytest.param(response(200, b" " * (MAX_ANSWER_BYTES + 1)), id="too large"),
    pytest.param([stream_head(), *([SendChunk(b" " * 100_000)] * 11), WaitForClose()], id="too large in pieces"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000), WaitForClose()], id="a head without end"),
]


@pytest.mark.parametrize("script", OUTAGES)
async def test_an_outage_is_told_within_the_deadline(script: list[Step]) -> None:
    """The last of it is for a busy machine."""
    with trio.fail_after(SECONDS + 2), pytest.raises(IssuerUnavailable):
        await ask(script, HTTP)


async def test_a_refused_connection_is_an_outage() -> None:
    async with open_fake_upstream() as upstream:
        url = upstream.url
    with pytest.raises(IssuerUnavailable):
        await PATIENT.get(url)


async def test_a_name_that_no_network_knows_is_an_outage() -> None:
    with pytest.raises(IssuerUnavailable):
        await PATIENT.get("https://a..b.invalid/x")


async def test_a_certificate_of_nobody_is_an_outage() -> None:
    server, client = build_tls()
    async with open_fake_upstream(response(200, b"{}"), tls=server) as upstream:
        with pytest.raises(IssuerUnavailable):
            await PATIENT.get(upstream.url)
        assert (await IssuerHttp(client).get(upstream.url)).status == 200


async def test_tls_that_says_nothing_is_an_outage() -> None:
    async with open_fake_upstream(manner="only_listens") as upstream:
        with trio.fail_after(SECONDS + 2), pytest.raises(IssuerUnavailable):
            await HTTP.get(upstream.url.replace("http:", "https:"))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_whoever_gives_up_leaves_no_connection(scheme: str) -> None:
    """Of https also while TLS is agreed on, which never comes to an end here."""
    async with open_fake_upstream(manner="only_listens") as upstream, trio.open_nursery() as nursery:
        nursery.start_soon(PATIENT.get, upstream.url.replace("http:", f"{scheme}:"))
        await upstream.connected.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(2):
            await upstream.connections[0].closed_by_client.wait()


async def test_a_question_that_is_answered_leaves_no_connection() -> None:
    async with open_fake_upstream(response(200, b"{}")) as upstream:
        await PATIENT.get(upstream.url)
        with trio.fail_after(2):
            await upstream.connections[0].closed_by_client.wait()


async def test_the_deadline_closes_the_connection() -> None:
    async with open_fake_upstream([WaitForClose()]) as upstream:
        with pytest.raises(IssuerUnavailable):
            await HTTP.get(upstream.url)
        with trio.fail_after(2):
            await upstream.connections[0].closed_by_client.wait()


async def test_no_log_has_the_bearer_or_the_form(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_fake_upstream(response(200, b"{}")) as upstream:
        await PATIENT.get(upstream.url, bearer="a-bearer")
        await PATIENT.post(upstream.url, {"token": "a-refresh-token"})
        await trio.testing.wait_all_tasks_blocked()
    assert "a-bearer" not in caplog.text
    assert "a-refresh-token" not in caplog.text


def test_the_answer_and_the_context_show_in_no_repr() -> None:
    assert "secret" not in repr(Answer(200, b"secret"))
    assert ssl.SSLContext.__name__ not in repr(HTTP)
